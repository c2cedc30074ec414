"""The CUDA kernels without a GPU: the same sources run on the host, thread by thread (cuda/gpu/emulation.h).

What this cannot show: timing, rounding of the GPU's special functions, CUB's sorts (plain loops stand in for them) and
races inside one warp between two shuffles. tests/gpu runs the rest where a device is.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from comparison import ALL, EVERY_IMAGE, Losses, assert_close_image, compare
from emulation import load_emulated
from hypothesis import given, settings
from strategies import cameras, front_camera, one_gaussian, random_gaussians, ring_of_cameras, scenes, with_gradients
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.errors import BackendUnavailable
from scene3d.core.gaussians import Gaussians
from scene3d.render import cpu, cuda
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings, Render

emulated = load_emulated()
_cpu = pytest.importorskip("scene3d._cpu", reason="scene3d._cpu is not built")

F32 = torch.float32
RGB_AND_ALPHA = Losses(rgb=1.0, alpha=0.5)


@dataclass(frozen=True)
class Emulated:
    """The CUDA rasterizer on the host, as comparison.compare takes a backend."""

    name: str = "cuda"
    memory_limit: int = 0

    def render(self, scene: Gaussians, views: Cameras, settings: RasterSettings = ALL) -> Render:
        found = cuda.rasterize_with(
            emulated, scene.to(dtype=F32), views.to(dtype=F32), settings, memory_limit=self.memory_limit
        )
        names = ("rgb", "alpha", "depth", "median_depth", "normals")
        images = {name: getattr(found, name) for name in names if getattr(found, name) is not None}
        return replace(found, **{name: image.double() for name, image in images.items()})


@pytest.fixture(params=[False, True], ids=["fast", "ordered"])
def is_ordered(request: pytest.FixtureRequest) -> Iterator[bool]:
    torch.use_deterministic_algorithms(request.param)
    yield request.param
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def ascending_schedule() -> Iterator[None]:
    emulated.set_schedule(0)
    yield
    emulated.set_schedule(0)


def outputs(target: Emulated, scene: Gaussians, views: Cameras, settings: RasterSettings = ALL) -> list[Tensor]:
    """Every image, then every gradient, then grad2d."""
    leaves = with_gradients(scene)
    viewmats = views.viewmats.detach().clone().requires_grad_()
    found = target.render(leaves, replace(views, viewmats=viewmats), settings)
    EVERY_IMAGE(found).backward()
    images = [i for i in (found.rgb, found.alpha, found.depth, found.median_depth, found.normals) if i is not None]
    return [*images, *(p.grad for p in leaves.params().values()), viewmats.grad, found.stats.grad2d]


@pytest.mark.parametrize(
    "settings",
    [
        ALL,
        replace(ALL, antialiased=True),
        replace(ALL, absgrad=True, sh_degree=1),
        RasterSettings(background=(0.2, 0.9, 0.4)),
        RasterSettings(absgrad=True, sh_degree=2, eps2d=0.0),
        RasterSettings(sh_degree=0),
    ],
    ids=["all", "antialiased", "absgrad and extra", "colour", "absgrad", "degree 0"],
)
def test_images_and_gradients_are_those_of_the_reference(settings: RasterSettings, is_ordered: bool) -> None:
    loss = EVERY_IMAGE if settings.with_depth else RGB_AND_ALPHA
    compare(Emulated(), random_gaussians(120, seed=2), ring_of_cameras(2, 45, 37), settings, loss)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_every_number_of_stored_coefficients_works(degree: int) -> None:
    compare(Emulated(), random_gaussians(40, seed=degree, sh_degree=degree), ring_of_cameras(1), ALL, EVERY_IMAGE)


@settings(max_examples=20)
@given(scenes(), cameras())
def test_degenerate_scenes_look_like_those_of_the_reference(scene: Gaussians, views: Cameras) -> None:
    found, expected = Emulated().render(scene, views), rasterize(scene, views, ALL, "reference")
    for name in ("rgb", "alpha", "normals"):
        assert_close_image(getattr(found, name), getattr(expected, name))


def test_gaussians_that_fill_many_tiles_are_listed_by_a_whole_warp(is_ordered: bool) -> None:
    scene = random_gaussians(20, seed=5)
    scene = replace(scene, log_scales=scene.log_scales + 2.0, opacity_logits=scene.opacity_logits - 2.0)
    compare(Emulated(), scene, ring_of_cameras(1, 90, 200), RasterSettings(), RGB_AND_ALPHA)


def test_lists_longer_than_a_batch_are_blended_to_the_end(is_ordered: bool) -> None:
    scene = random_gaussians(600, seed=4, spread=0.2)
    scene = replace(scene, opacity_logits=scene.opacity_logits - 5.0)  # faint: no pixel is finished early
    compare(Emulated(), scene, ring_of_cameras(1, 20, 20), RasterSettings(), RGB_AND_ALPHA)


def test_unsound_gaussians_are_counted_and_get_no_gradient(is_ordered: bool) -> None:
    scene = random_gaussians(40, seed=6)
    broken = {name: value.clone() for name, value in scene.params().items()}
    broken["means"][3, 1], broken["shN"][7, 2, 0], broken["quats"][11] = torch.nan, torch.inf, 0.0
    leaves = with_gradients(Gaussians(**broken))
    found = Emulated().render(leaves, ring_of_cameras(1))
    EVERY_IMAGE(found).backward()
    assert found.stats.n_culled_nonfinite == 3
    assert bool(found.rgb.isfinite().all())
    for value in leaves.params().values():
        assert bool(value.grad.isfinite().all())
        assert not value.grad[[3, 7, 11]].any()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_images_do_not_depend_on_the_order_of_threads(seed: int) -> None:
    scene, views = random_gaussians(150, seed=7), ring_of_cameras(1, 40, 40)
    expected = outputs(Emulated(), scene, views)
    emulated.set_schedule(seed)
    found = outputs(Emulated(), scene, views)
    assert all(torch.equal(a, b) for a, b in zip(found[:5], expected[:5], strict=True))
    for a, b in zip(found[5:], expected[5:], strict=True):
        assert ((a - b).norm() / b.norm()).item() < 1e-5  # atomics: sums in another order


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ordered_sums_do_not_depend_on_the_order_of_threads(seed: int) -> None:
    scene, views = random_gaussians(150, seed=7), ring_of_cameras(2, 40, 40)
    torch.use_deterministic_algorithms(True)
    try:
        expected = outputs(Emulated(), scene, views)
        emulated.set_schedule(seed)
        found = outputs(Emulated(), scene, views)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def state_of(scene: Gaussians, views: Cameras, memory_limit: int = 0) -> tuple[Any, Any]:
    """Forward of the first view: the state and the call, which owns the memory that the state points into."""
    call = cuda._Call(emulated, scene, views, RasterSettings(), memory_limit)
    images = call.images(cuda._new_images(call), 0)
    params = [p.contiguous() for p in scene.params().values()]
    return emulated.raster_forward(call.views[0], params, images, call.radii[0], call.memory[0].native(), 0), call


def numbers_at(address: int, n: int) -> Tensor:
    return torch.tensor((ctypes.c_uint32 * n).from_address(address)[:], dtype=torch.int64)


@pytest.mark.parametrize("seed", range(4))
def test_lists_are_as_long_as_those_of_the_cpu_backend(seed: int) -> None:
    scene = random_gaussians(1500, seed=seed).to(dtype=F32)
    views = ring_of_cameras(1, 130, 90, seed=seed).to(dtype=F32)
    state, call = state_of(scene, views)
    cpu_call = cpu._Call(scene, views, RasterSettings(), True)
    images = cpu._images(cpu_call, F32)
    native = cpu._native_images(cpu_call, images, torch.empty(1, 0, dtype=torch.int32), 0)
    expected = _cpu.tiled_forward(cpu_call.views[0], _cpu.Params32(*scene.params().values()), native, cpu_call.radii[0])
    assert state.n_visible == expected.n_visible
    assert state.n_pairs == expected.n_pairs
    torch.testing.assert_close(call.radii, cpu_call.radii, rtol=1e-4, atol=1e-4)


def test_lists_hold_each_gaussian_of_a_tile_once_by_depth() -> None:
    scene, views = random_gaussians(800, seed=8).to(dtype=F32), ring_of_cameras(1, 70, 50).to(dtype=F32)
    state, call = state_of(scene, views)
    ids_at, bounds_at = state.list_addresses
    ids, bounds = numbers_at(ids_at, state.n_pairs), numbers_at(bounds_at, 2 * 5 * 4).view(-1, 2)
    depths = scene.means @ views.viewmats[0, 2, :3] + views.viewmats[0, 2, 3]
    assert bounds[0, 0] == 0
    assert bounds[-1, 1] == state.n_pairs
    assert bool((bounds[1:, 0] == bounds[:-1, 1]).all())
    for begin, end in bounds.tolist():
        assert bool((depths[ids[begin:end]].diff() >= -1e-6).all())
        assert len(ids[begin:end].unique()) == end - begin
    del call


def test_equal_depths_are_ordered_by_index() -> None:
    scene = one_gaussian()
    many = Gaussians(**{name: value.repeat(5, *[1] * (value.ndim - 1)) for name, value in scene.params().items()})
    state, call = state_of(many.to(dtype=F32), front_camera(8, 8).to(dtype=F32))
    assert numbers_at(state.list_addresses[0], state.n_pairs).tolist() == [0, 1, 2, 3, 4]
    del call


def test_bands_of_tiles_change_nothing(is_ordered: bool) -> None:
    scene, views = random_gaussians(300, seed=9), ring_of_cameras(1, 60, 130)
    expected = outputs(Emulated(), scene, views)
    limit = 42_000 if is_ordered else 9_000
    state, _ = state_of(scene.to(dtype=F32), views.to(dtype=F32), limit)
    assert len(state.bands) > 1
    found = outputs(Emulated(memory_limit=limit), scene, views)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_too_little_memory_for_one_row_of_tiles_is_said() -> None:
    with pytest.raises(MemoryError, match=r"one row of tiles .16 pixels. need .* Render smaller images"):
        Emulated(memory_limit=100).render(random_gaussians(50), ring_of_cameras(1))


def test_bands_hold_as_many_rows_as_fit() -> None:
    assert emulated.plan_bands([3, 4, 5, 1, 1, 9, 0, 0], 9, 1) == [(0, 2, 7), (2, 5, 7), (5, 8, 9)]
    assert emulated.plan_bands([0, 0], 0, 1) == [(0, 2, 0)]


def masked_outputs(name: str, settings: RasterSettings) -> list[Tensor]:
    """Images, then gradients of the parameters and of the masks."""
    scene, masks = random_gaussians(120, seed=3), torch.linspace(0, 1, 120, dtype=torch.float64)
    masks[::3] = 0
    dtype = F32 if name == "cuda" else torch.float64
    leaves, masks = with_gradients(scene.to(dtype=dtype)), masks.to(dtype).requires_grad_()
    views = ring_of_cameras(2, 45, 37).to(dtype=dtype)
    if name == "cuda":
        found = cuda.rasterize_with(emulated, leaves, views, settings, masks=masks)
    else:
        found = rasterize(leaves, views, settings, "reference", masks)
    RGB_AND_ALPHA(replace(found, rgb=found.rgb.double(), alpha=found.alpha.double())).backward()
    return [found.rgb, found.alpha, *(p.grad for p in leaves.params().values()), masks.grad]


@pytest.mark.parametrize("absgrad", [False, True])
def test_masks_hide_and_have_the_gradients_of_the_reference(absgrad: bool, is_ordered: bool) -> None:
    settings = RasterSettings(background=(0.2, 0.9, 0.4), absgrad=absgrad)
    found, expected = masked_outputs("cuda", settings), masked_outputs("reference", settings)
    for a, b in zip(found, expected, strict=True):
        assert ((a.double() - b).norm() / b.norm()).item() < 2e-3
    assert bool((found[-1][::3] != 0).any()), "hidden ones have a gradient"


def test_masks_come_without_depth() -> None:
    with pytest.raises(BackendUnavailable, match="no depth and no normals with masks"):
        cuda.rasterize_with(emulated, random_gaussians(3).to(dtype=F32), ring_of_cameras(1), ALL, masks=torch.ones(3))


def test_tensors_of_another_dtype_are_refused() -> None:
    with pytest.raises(TypeError, match=r"expected float32 on cpu, got torch.float64 on cpu"):
        cuda.rasterize_with(emulated, random_gaussians(3), ring_of_cameras(1), ALL)


@pytest.mark.parametrize("n_terms", range(1, 21))
def test_warps_sum_every_value_once(n_terms: int) -> None:
    values, sums = torch.randint(-50, 50, (32, n_terms)).float(), torch.zeros(n_terms)
    emulated.probe_sum(values, sums)
    assert torch.equal(sums, values.sum(dim=0))


def test_emulation_shows_a_missing_barrier() -> None:
    values, out = torch.arange(64.0), torch.empty(64)
    for seed in range(4):
        emulated.set_schedule(seed)
        emulated.probe_neighbors(True, values, out)
        assert torch.equal(out, values.roll(-1))
    emulated.set_schedule(0)
    emulated.probe_neighbors(False, values, out)
    assert not torch.equal(out, values.roll(-1))


@pytest.mark.parametrize(
    ("fault", "message"),
    [(0, "wait at __syncthreads"), (1, "wait at __syncthreads"), (2, "part of a warp"), (3, "meets __shfl_sync")],
)
def test_emulation_refuses_what_a_gpu_may_not_survive(fault: int, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        emulated.probe_fault(fault)
