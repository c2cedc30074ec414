"""The CUDA module on a device. Everything that takes the `target` fixture also runs there; this is what is left.

Where no device is, tests/test_cuda_emulated.py and tests/test_cuda_steps.py run the same kernels on the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from comparison import ALL, EVERY_IMAGE
from field_scenes import random_field, random_rays
from strategies import random_gaussians, ring_of_cameras, with_gradients
from tiny_capture import tiny_capture, tiny_scene
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.fields import FieldKind
from scene3d.core.gaussians import Gaussians
from scene3d.ops import adam, cuda_call, knn, mcmc_noise
from scene3d.ops.memory_limit import set_memory_limit
from scene3d.recon.densify import GradStats
from scene3d.recon.descent import Descent
from scene3d.recon.field_fit import fit_field
from scene3d.recon.field_settings import FieldFitSettings
from scene3d.recon.optim import AdamState
from scene3d.recon.photos import Target
from scene3d.recon.settings import FitSettings
from scene3d.recon.step import Rates, View
from scene3d.render import backends, cuda, field_cuda, field_reference, self_check
from scene3d.render.field_march import SMOOTH
from scene3d.render.loss import l1_ssim_parts
from scene3d.render.rasterize import rasterize
from scene3d.render.surfels import rasterize_surfels
from scene3d.render.types import RasterSettings

REASON = cuda.why_unavailable()
DEVICE = cuda_call.device_type()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(REASON is not None, reason=f"backend cuda: {REASON}")]


@pytest.fixture(params=[False, True], ids=["fast", "ordered"])
def is_ordered(request: pytest.FixtureRequest) -> Iterator[bool]:
    torch.use_deterministic_algorithms(request.param)
    yield request.param
    torch.use_deterministic_algorithms(False)


def outputs(backend: str, scene: Gaussians, views: Cameras) -> list[Tensor]:
    """Every image, then every gradient, then grad2d; on the CPU."""
    device = DEVICE if backend == "cuda" else "cpu"
    leaves = with_gradients(scene.to(device, torch.float32))
    found = rasterize(leaves, views.to(device, torch.float32), ALL, backend)
    EVERY_IMAGE(replace(found, **{n: getattr(found, n).double().cpu() for n in IMAGES})).backward()
    tensors = [getattr(found, n).detach() for n in IMAGES] + [p.grad for p in leaves.params().values()]
    return [t.cpu() for t in (*tensors, found.stats.grad2d, found.stats.radii)]


IMAGES = ("rgb", "alpha", "depth", "median_depth", "normals")


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    """Images but for few pixels, where rounding moves a contribution of 1/255 over its threshold; then gradients."""
    for a, b in zip(found[: len(IMAGES)], expected[: len(IMAGES)], strict=True):
        assert ((a - b).abs() > 1e-3).float().mean() < 1e-3
    for a, b in zip(found[len(IMAGES) :], expected[len(IMAGES) :], strict=True):
        assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.9999
        assert relative(a, b) < 5e-3


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_small_scene_is_that_of_the_cpu(is_ordered: bool) -> None:
    scene, views = random_gaussians(300), ring_of_cameras(1, 70, 50)
    assert_same(outputs("cuda", scene, views), outputs("cpu", scene, views))


def test_large_scene_is_that_of_the_cpu(is_ordered: bool) -> None:
    scene = random_gaussians(50_000, spread=2.0)
    scene = replace(scene, log_scales=scene.log_scales - 2.5)
    views = ring_of_cameras(2, 640, 400, focal=400.0)
    assert_same(outputs("cuda", scene, views), outputs("cpu", scene, views))


def test_ordered_sums_give_the_same_bytes_again() -> None:
    scene, views = random_gaussians(20_000), ring_of_cameras(1, 300, 200, focal=200.0)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (outputs("cuda", scene, views) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_bands_of_tiles_change_nothing() -> None:
    scene = random_gaussians(5_000).to(DEVICE, torch.float32)
    views = ring_of_cameras(1, 300, 400, focal=200.0).to(DEVICE, torch.float32)
    whole = rasterize(scene, views, ALL, "cuda")
    in_bands = cuda.rasterize_with(cuda_call.module, scene, views, ALL, memory_limit=600_000)
    assert torch.equal(whole.rgb, in_bands.rgb)


@pytest.mark.skipif(DEVICE == "cpu", reason="the kernels run on the host")
def test_work_follows_the_current_stream() -> None:
    scene = random_gaussians(5_000).to(DEVICE, torch.float32)
    views = ring_of_cameras(1, 300, 400, focal=200.0).to(DEVICE, torch.float32)
    expected = rasterize(scene, views, ALL, "cuda").rgb
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = rasterize(scene, views, ALL, "cuda").rgb
    stream.synchronize()
    assert torch.equal(found, expected)


def test_loss_is_that_of_the_cpu() -> None:
    rgb, target, weight = torch.rand(123, 211, 3), torch.rand(123, 211, 3), torch.rand(123, 211)
    results = []
    for device in (DEVICE, "cpu"):
        leaf = rgb.to(device).requires_grad_()
        parts = l1_ssim_parts(leaf, target.to(device), weight.to(device))
        parts.loss.backward()
        results.append((parts.loss.item(), leaf.grad.cpu()))
    assert results[0][0] == pytest.approx(results[1][0], abs=2e-6)
    assert relative(results[0][1], results[1][1]) < 1e-4


def test_adam_steps_are_those_of_the_cpu() -> None:
    n, shapes = 10_000, [(3,), (4,), (), (15, 3)]
    arrays = [[torch.rand(n, *shape) for shape in shapes] for _ in range(4)]
    visible = torch.rand(n) < 0.3
    copies = [[value.to(DEVICE, copy=True) for value in row] for row in arrays]
    lrs = [1e-2] * len(shapes)
    adam.adam_step_(copies[0], [*copies[1]], copies[2], copies[3], lrs, 3, visible.to(DEVICE))
    adam.adam_step_(arrays[0], [*arrays[1]], arrays[2], arrays[3], lrs, 3, visible)
    for found, expected in zip(copies[0], arrays[0], strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-7)


def test_noise_is_that_of_the_cpu() -> None:
    n = 10_000
    args = torch.randn(n, 4), torch.randn(n, 3) - 3, torch.randn(n) * 3 - 5
    found, expected = torch.zeros(n, 3, device=DEVICE), torch.zeros(n, 3)
    mcmc_noise.mcmc_noise_(found, *(a.to(DEVICE) for a in args), 0.5, 3, 4)
    mcmc_noise.mcmc_noise_(expected, *args, 0.5, 3, 4)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-7)


def test_neighbours_are_those_of_the_cpu() -> None:
    points = torch.randn(30_000, 3)
    found, _ = knn.nearest(points.to(DEVICE), points.to(DEVICE), 4)
    expected, _ = knn.nearest(points, points, 4)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-7)


def test_kernels_pass_the_check_that_auto_makes() -> None:
    assert self_check.problem_of(cuda_call.module) is None
    assert backends.choose("auto", torch.device("cuda")) == "cuda"


def first_step(backend: str) -> dict[str, Tensor]:
    """First moments, statistics and loss after one native step, and the gradients by camera and colour transform."""
    scene = random_gaussians(300).to(dtype=torch.float32)
    camera = ring_of_cameras(1, 70, 50).to(dtype=torch.float32)
    photo = torch.randint(0, 256, (50, 70, 3), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    descent = Descent(FitSettings(backend=backend, opacity_reg=0.1, scale_reg=0.1))
    state = AdamState.start(scene, 3).to(descent.device)
    stats = GradStats.zeros(len(state), state.device)
    transform = torch.tensor([[1.1, 0.1, 0.0, 0.02], [0.0, 0.9, 0.05, -0.01], [0.02, 0.0, 1.2, 0.0]])
    background = (0.1, 0.2, 0.3)
    settings = replace(ALL, with_depth=False, with_normals=False, background=background)
    weight = torch.rand(50, 70, generator=torch.Generator().manual_seed(3))
    view = View(0, camera, Target(photo, None, weight), background, settings, transform, True)
    outcome = descent.step(state, stats, view, Rates(dict.fromkeys(state.values, 1e-3), 0.5, 2.0, True))
    assert state.n_steps == 1
    assert outcome.v_viewmat is not None
    assert outcome.v_transform is not None
    found = {**state.exp_avg, "sums": stats.sums, "loss": torch.tensor(outcome.loss)}
    found |= {"v_viewmat": outcome.v_viewmat[:3], "v_transform": outcome.v_transform}
    return {name: value.detach().cpu() for name, value in found.items()}


def test_small_step_of_a_fit_is_that_of_the_cpu(is_ordered: bool) -> None:
    found, expected = first_step("cuda"), first_step("cpu")
    for name, value in expected.items():
        assert relative(found[name], value) < 5e-3, name


@pytest.mark.parametrize("kind", ["vm", "cp", "trivec", "cover"])
def test_small_fields_are_marched_as_by_torch(kind: str) -> None:
    field, rays = random_field(kind, ranks=(16, 16)), random_rays(40)
    results = []
    for march, dtype, device in (
        (field_cuda.march, torch.float32, DEVICE),
        (field_reference.march, torch.float64, "cpu"),
    ):
        factors = tuple(value.detach().to(device, dtype).requires_grad_() for value in field.factors())
        sums = march(field.to(device, dtype).with_factors(factors), *(r.to(device, dtype) for r in rays), SMOOTH)
        (sums.features.sum() + sums.opacity.sum() + sums.distance.sum()).backward()
        results.append(
            [
                value.detach().cpu().double()
                for value in (sums.features, sums.opacity, sums.distance, *(f.grad for f in factors))
            ]
        )
    for found, expected in zip(*results, strict=True):
        assert relative(found, expected) < 5e-3


def test_small_discs_are_those_of_the_cpu(is_ordered: bool) -> None:
    scene, camera = random_gaussians(300).to(dtype=torch.float32), ring_of_cameras(1, 70, 50).to(dtype=torch.float32)
    found = rasterize_surfels(scene.to(DEVICE), camera, RasterSettings(), 0.1, "cuda")
    expected = rasterize_surfels(scene, camera, RasterSettings(), 0.1, "cpu")
    assert relative(found.render.rgb.cpu(), expected.render.rgb) < 1e-3


@pytest.mark.parametrize("kind", ["vm", "trivec"])
def test_small_fields_are_fitted_as_on_the_cpu(kind: FieldKind) -> None:
    settings = FieldFitSettings(
        kind, 40, batch_rays=256, first_voxels=12**3, last_voxels=20**3, leaf_nodes=4, box=(-2, -2, -2, 2, 2, 2)
    )
    capture = tiny_capture(tiny_scene())
    found, expected = (fit_field(capture, replace(settings, backend=name)).validation for name in ("cuda", "cpu"))
    assert found is not None
    assert expected is not None
    assert found.psnr == pytest.approx(expected.psnr, abs=0.5)


def test_memory_limit_makes_bands_and_changes_nothing() -> None:
    scene = random_gaussians(20_000, spread=2.0).to(DEVICE, torch.float32)
    views = ring_of_cameras(1, 640, 400, focal=400.0).to(DEVICE, torch.float32)
    expected = rasterize(scene, views, ALL, "cuda").rgb
    try:
        set_memory_limit(0.35 if DEVICE == "cuda" else 0.02)
        found = rasterize(scene, views, ALL, "cuda").rgb
    finally:
        set_memory_limit(None)
    assert torch.equal(found, expected)
