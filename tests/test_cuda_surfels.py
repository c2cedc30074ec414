"""Discs met by rays, by the CUDA kernels on the host, against the dense oracle and the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from emulation import load_emulated
from test_surfels import UNIT, camera, front, one_disc, scene, total
from torch import Tensor

from scene3d.core.errors import BackendUnavailable
from scene3d.core.gaussians import Gaussians
from scene3d.ops import cuda_call
from scene3d.render import backends, cuda, surfels_cuda
from scene3d.render.surfels import blend_reference, rasterize_surfels, see_discs
from scene3d.render.types import RasterSettings

emulated = load_emulated()
F32 = torch.float32
# float32 images against float64; a disc on the 1/255 cut may fall to either side.
IMAGE_TOLERANCE = 5e-3


@pytest.fixture(autouse=True)
def on_emulation(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cuda_call, "module", emulated)
    monkeypatch.setattr(cuda, "why_unavailable", lambda: None)
    yield
    emulated.set_schedule(0)


@pytest.fixture(params=[False, True], ids=["fast", "ordered"])
def is_ordered(request: pytest.FixtureRequest) -> Iterator[bool]:
    torch.use_deterministic_algorithms(request.param)
    yield request.param
    torch.use_deterministic_algorithms(False)


def blended(gaussians: Gaussians, dtype: torch.dtype, limit: int = 0) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Images, then gradients of the parameters and the screen gradient where there is one, all in float64."""
    leaves = gaussians.to(dtype=dtype).map(lambda t: t.clone().requires_grad_())
    view, settings = camera(37, 33, dtype), RasterSettings()
    discs = see_discs(leaves, view, settings)
    if dtype == F32:
        images, stats = surfels_cuda.blend(discs, view, settings, UNIT, memory_limit=limit)
    else:
        images, stats = blend_reference(discs, view, settings, UNIT, cutoff=True)
    total({name: image.double() for name, image in images.items()}).backward()
    grads = [value.grad.double() for value in leaves.params().values() if value.grad is not None]
    return {name: image.detach().double() for name, image in images.items()}, [*grads, stats.grad2d]


@pytest.mark.parametrize("schedule", [0, 1, 4])
def test_images_and_gradients_are_those_of_the_oracle(schedule: int, is_ordered: bool) -> None:
    emulated.set_schedule(schedule)
    (found, grads), (expected, wanted) = (blended(scene(60), dtype) for dtype in (F32, torch.float64))
    for name, image in expected.items():
        close = (found[name] - image).abs() < IMAGE_TOLERANCE
        assert close.double().mean() > (0.99 if name == "median" else 0.9999), name
    for a, b in zip(grads[:-1], wanted[:-1], strict=True):
        assert torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.9999
        assert (a - b).norm() < 1e-2 * b.norm()


def test_ordered_gradients_do_not_depend_on_the_order_of_threads() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        expected = blended(scene(60), F32)[1]
        emulated.set_schedule(2)
        found = blended(scene(60), F32)[1]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_bands_of_tiles_change_nothing(is_ordered: bool) -> None:
    (images, grads), (whole, wanted) = (blended(scene(60), F32, limit) for limit in (9_000 if is_ordered else 2_000, 0))
    assert all(torch.equal(images[name], whole[name]) for name in whole)
    assert all(torch.equal(a, b) for a, b in zip(grads, wanted, strict=True))


def test_too_little_memory_is_said() -> None:
    with pytest.raises(MemoryError, match=r"one row of tiles .* are allowed"):
        blended(scene(60), F32, 50)


def test_discs_are_those_of_the_cpu() -> None:
    gaussians, view = scene(60).to(dtype=F32), camera(37, 33, F32)
    found, expected = (rasterize_surfels(gaussians, view, RasterSettings(), UNIT, name) for name in ("cuda", "cpu"))
    for a, b in ((found.render.rgb, expected.render.rgb), (found.distortion, expected.distortion)):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.render.stats.radii, expected.render.stats.radii, rtol=1e-4, atol=1e-4)


def test_discs_behind_the_camera_and_faint_ones_are_not_seen() -> None:
    behind, faint = one_disc(20, z=-5.0), replace(one_disc(20), opacity_logits=torch.tensor([-8.0]))
    for gaussians in (behind, faint):
        render = rasterize_surfels(gaussians, front(), RasterSettings(), UNIT, "cuda").render
        assert not render.alpha.any()
        assert not render.stats.radii.any()


def test_no_discs_give_the_background() -> None:
    none = one_disc(0).select(torch.zeros(0, dtype=torch.long))
    render = rasterize_surfels(none, front(), RasterSettings(background=(0.1, 0.2, 0.3)), UNIT, "cuda").render
    assert render.rgb[0, 5, 5].tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_what_draws_no_discs_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match=r"discs: expected float32 on cpu, got torch\.float64 on cpu"):
        rasterize_surfels(scene(), camera(), RasterSettings(), UNIT, "cuda")
    discs = see_discs(scene(dtype=F32), camera(dtype=F32), RasterSettings())
    with pytest.raises(ValueError, match="no images without cut-offs"):
        surfels_cuda.blend(discs, camera(), RasterSettings(), UNIT, cutoff=False)
    monkeypatch.setattr(backends, "why_unavailable", lambda name: None)
    with pytest.raises(BackendUnavailable, match="it draws no discs"):
        rasterize_surfels(scene(dtype=F32), camera(dtype=F32), RasterSettings(), UNIT, "gsplat")
