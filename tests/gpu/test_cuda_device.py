"""The CUDA module on a device. Everything that takes the `target` fixture also runs there; this is what is left.

Where no device is, tests/test_cuda_emulated.py and tests/test_cuda_steps.py run the same kernels on the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from comparison import ALL, EVERY_IMAGE
from strategies import random_gaussians, ring_of_cameras, with_gradients
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.ops import adam, knn, mcmc_noise
from scene3d.render import cuda
from scene3d.render.loss import l1_ssim_parts
from scene3d.render.rasterize import rasterize

REASON = cuda.why_unavailable()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(REASON is not None, reason=f"backend cuda: {REASON}")]


@pytest.fixture(params=[False, True], ids=["fast", "ordered"])
def is_ordered(request: pytest.FixtureRequest) -> Iterator[bool]:
    torch.use_deterministic_algorithms(request.param)
    yield request.param
    torch.use_deterministic_algorithms(False)


def outputs(device: str, scene: Gaussians, views: Cameras) -> list[Tensor]:
    """Every image, then every gradient, then grad2d; on the CPU."""
    leaves = with_gradients(scene.to(device, torch.float32))
    found = rasterize(leaves, views.to(device, torch.float32), ALL, device)
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
    scene = random_gaussians(5_000).to("cuda", torch.float32)
    views = ring_of_cameras(1, 300, 400, focal=200.0).to("cuda", torch.float32)
    whole = rasterize(scene, views, ALL, "cuda")
    in_bands = cuda.rasterize_with(cuda.cuda_call.module, scene, views, ALL, memory_limit=600_000)
    assert torch.equal(whole.rgb, in_bands.rgb)


def test_work_follows_the_current_stream() -> None:
    scene = random_gaussians(5_000).to("cuda", torch.float32)
    views = ring_of_cameras(1, 300, 400, focal=200.0).to("cuda", torch.float32)
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
    for device in ("cuda", "cpu"):
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
    copies = [[value.to("cuda") for value in row] for row in arrays]
    lrs = [1e-2] * len(shapes)
    adam.adam_step_(copies[0], [*copies[1]], copies[2], copies[3], lrs, 3, visible.to("cuda"))
    adam.adam_step_(arrays[0], [*arrays[1]], arrays[2], arrays[3], lrs, 3, visible)
    for found, expected in zip(copies[0], arrays[0], strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-7)


def test_noise_is_that_of_the_cpu() -> None:
    n = 10_000
    args = torch.randn(n, 4), torch.randn(n, 3) - 3, torch.randn(n) * 3 - 5
    found, expected = torch.zeros(n, 3, device="cuda"), torch.zeros(n, 3)
    mcmc_noise.mcmc_noise_(found, *(a.to("cuda") for a in args), 0.5, 3, 4)
    mcmc_noise.mcmc_noise_(expected, *args, 0.5, 3, 4)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-7)


def test_neighbours_are_those_of_the_cpu() -> None:
    points = torch.randn(30_000, 3)
    found, _ = knn.nearest(points.to("cuda"), points.to("cuda"), 4)
    expected, _ = knn.nearest(points, points, 4)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-7)
