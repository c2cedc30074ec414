"""The CUDA kernels of a fitting step beside the rasterizer, run on the host: loss, Adam, noise, neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from emulation import load_emulated
from torch import Tensor

from scene3d.ops import adam, cuda_call, image, knn, mcmc_noise
from scene3d.render import loss

emulated = load_emulated()
pytest.importorskip("scene3d._cpu", reason="scene3d._cpu is not built")

VALUE_ERROR = 2e-6  # Of float32 blurs of values near 1.
GRADIENT_ERROR = 2e-4  # Relative to the largest: variances are differences of squares, 1e-7 against C2 = 9e-4.


@pytest.fixture(params=[0, 1, 2], ids=["ascending", "descending", "mixed"], autouse=True)
def schedule(request: pytest.FixtureRequest) -> Iterator[None]:
    emulated.set_schedule(request.param)
    yield
    emulated.set_schedule(0)


@pytest.fixture
def on_emulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_call, "module", emulated)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def native_loss(rgb: Tensor, target: Tensor, weight: Tensor | None, ssim_lambda: float) -> tuple[Tensor, Tensor]:
    height, width, _ = rgb.shape
    scratch = torch.full((emulated.loss_scratch_floats(height, width),), torch.nan)
    v_rgb, parts = torch.full_like(rgb, torch.nan), torch.full((3,), torch.nan)
    emulated.l1_ssim(rgb, target, weight, ssim_lambda, scratch, v_rgb, parts, 0)
    return parts, v_rgb


def assert_like_oracle(rgb: Tensor, target: Tensor, weight: Tensor | None, ssim_lambda: float) -> None:
    x, y = rgb.double().requires_grad_(), target.double()
    w = None if weight is None else weight.double()
    l1, ssim = image.masked_mean((x - y).abs().mean(dim=2), w), image.ssim(x, y, w)
    expected = (1 - ssim_lambda) * l1 + ssim_lambda * (1 - ssim)
    expected.backward()
    parts, v_rgb = native_loss(rgb, target, weight, ssim_lambda)
    found = torch.stack([expected, l1, ssim]).detach()
    assert (parts - found).abs().max() < VALUE_ERROR
    assert (v_rgb - x.grad).abs().max() < GRADIENT_ERROR * x.grad.abs().max()


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (1, 40), (35, 20)])
@pytest.mark.parametrize("ssim_lambda", [0.0, 0.2, 1.0])
def test_loss_and_gradient_equal_the_oracle(size: tuple[int, int], ssim_lambda: float) -> None:
    assert_like_oracle(random(*size, 3), random(*size, 3, seed=1), None, ssim_lambda)


def test_weighted_loss_and_gradient_equal_the_oracle() -> None:
    weight = random(35, 20, seed=2)
    weight[weight < 0.3] = 0
    assert_like_oracle(random(35, 20, 3), random(35, 20, 3, seed=1), weight, 0.2)


def test_weights_of_zero_give_zero() -> None:
    parts, v_rgb = native_loss(random(9, 9, 3), random(9, 9, 3, seed=1), torch.zeros(9, 9), 0.2)
    assert parts.tolist() == [0.0, 0.0, 0.0]
    assert not v_rgb.any()


def test_bytes_are_255ths() -> None:
    rgb, target = random(20, 18, 3), (random(20, 18, 3, seed=1) * 255).to(torch.uint8)
    parts, v_rgb = native_loss(rgb, target, None, 0.2)
    expected, v_expected = native_loss(rgb, target.float() / 255, None, 0.2)
    torch.testing.assert_close(parts, expected, atol=VALUE_ERROR, rtol=0)
    torch.testing.assert_close(v_rgb, v_expected, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("has_mask", [True, False])
def test_adam_steps_are_those_of_the_cpu(has_mask: bool) -> None:
    n, shapes = 300, [(3,), (4,), (), (1, 3), (15, 3)]
    arrays = [[random(n, *shape, seed=10 * j + k) - 0.5 for k, shape in enumerate(shapes)] for j in range(4)]
    arrays[3] = [value.abs() for value in arrays[3]]
    arrays[1][1][7, 2] = torch.nan
    visible = random(n, seed=99) < 0.4 if has_mask else None
    if visible is not None:
        visible[7] = True
    expected = [[value.clone() for value in row] for row in arrays]
    lrs = [1e-2 * (k + 1) for k in range(len(shapes))]
    n_bad = adam.adam_step_(expected[0], [*expected[1]], expected[2], expected[3], lrs, 5, visible)
    count = torch.zeros(1, dtype=torch.int32)
    mask = None if visible is None else visible.view(torch.uint8)
    emulated.adam_step(*arrays, lrs, 5, mask, 0.9, 0.999, 1e-15, count, 0)
    assert count.item() == n_bad == 1
    for found, wanted in zip(arrays, expected, strict=True):
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7, equal_nan=True)


def test_noise_is_that_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 500
    quats, log_scales, logits = random(n, 4) - 0.5, random(n, 3, seed=1) - 2, random(n, seed=2) * 12 - 8
    quats[3] = 0
    log_scales[5, 1] = torch.inf
    found, expected = torch.zeros(n, 3), torch.zeros(n, 3)
    mcmc_noise.mcmc_noise_(expected, quats, log_scales, logits, 0.5, 2**63 + 5, 7)
    monkeypatch.setattr(cuda_call, "module", emulated)
    mcmc_noise.mcmc_noise_(found, quats, log_scales, logits, 0.5, 2**63 + 5, 7)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-8)
    assert found.any()
    assert not found[[3, 5]].any()


@pytest.mark.parametrize("k", [1, 4, 9])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 65, 700])
def test_neighbours_are_those_of_the_cpu(n: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) * (random(n, 1) * 6 - 4).exp()
    points[: n // 10] = points[n // 10 : 2 * (n // 10)]  # duplicates
    queries = torch.cat([points[:40], random(20, 3, seed=3) * 9 - 4])
    distances, indices = knn.nearest(points, queries, k)
    monkeypatch.setattr(cuda_call, "module", emulated)
    found_distances, found_indices = knn.nearest(points, queries, k)
    torch.testing.assert_close(found_distances, distances, rtol=1e-6, atol=0)
    is_same = found_indices == indices
    torch.testing.assert_close(found_distances[~is_same], distances[~is_same], rtol=1e-6, atol=0)
    assert is_same.float().mean() > 0.99  # rounding may swap neighbours that are equally near


def test_equal_distances_come_in_the_order_of_indices(on_emulation: None) -> None:
    _, indices = knn.nearest(torch.zeros(200, 3), torch.zeros(1, 3), 5)
    assert indices.tolist() == [[0, 1, 2, 3, 4]]
    assert knn.mean_neighbor_distance(torch.ones(30, 3)).tolist() == [0.0] * 30


def test_points_on_a_line_find_their_neighbours(on_emulation: None) -> None:
    points = torch.zeros(64, 3)
    points[:, 1] = torch.arange(64.0)
    distances, _ = knn.nearest(points, points, 3)
    assert distances[1:-1].tolist() == [[0.0, 1.0, 1.0]] * 62
    assert distances[0].tolist() == [0.0, 1.0, 2.0]


def test_without_points_there_are_no_neighbours(on_emulation: None) -> None:
    distances, indices = knn.nearest(torch.zeros(0, 3), torch.zeros(2, 3), 2)
    assert bool(distances.isinf().all())
    assert indices.tolist() == [[-1, -1], [-1, -1]]


@pytest.mark.parametrize("has_weight", [True, False])
def test_float_images_on_the_device_take_the_native_loss(has_weight: bool, on_emulation: None) -> None:
    rgb, target = random(20, 30, 3).requires_grad_(), (random(20, 30, 3, seed=1) * 255).to(torch.uint8)
    weight = random(20, 30, seed=2) if has_weight else None
    found = loss.l1_ssim_parts(rgb, target, weight, 0.3)
    (2 * found.loss).backward()
    parts, v_rgb = native_loss(rgb.detach(), target, weight, 0.3)
    assert [found.loss.item(), found.l1, found.ssim] == parts.tolist()
    assert torch.equal(rgb.grad, 2 * v_rgb)


def test_arrays_on_the_device_take_the_native_adam(on_emulation: None) -> None:
    value, grad = random(50, 3), random(50, 3, seed=1)
    grad[4, 1] = torch.inf
    expected = torch.nn.Parameter(value.clone())
    expected.grad = torch.where(grad.isfinite(), grad, 0.0)
    torch.optim.Adam([expected], lr=0.1, eps=1e-15).step()
    moments = [[torch.zeros(50, 3)], [torch.zeros(50, 3)]]
    assert adam.adam_step_([value], [grad], *moments, [0.1], 1, None) == 1
    torch.testing.assert_close(value, expected.detach(), rtol=1e-5, atol=1e-6)
