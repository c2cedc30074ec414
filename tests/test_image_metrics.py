"""PSNR and SSIM against closed forms and plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from strategies import F64
from torch import Tensor

from scene3d.ops.image import psnr, ssim, ssim_map


def random_image(height: int = 20, width: int = 26, seed: int = 0) -> Tensor:
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize(("error", "expected_db"), [(0.1, 20.0), (0.01, 40.0), (1.0, 0.0)])
def test_psnr_of_a_constant_error(error: float, expected_db: float) -> None:
    black = torch.zeros(4, 5, 3, dtype=F64)
    assert psnr(black, black + error).item() == pytest.approx(expected_db)


def test_psnr_of_equal_images_is_infinite() -> None:
    assert psnr(random_image(), random_image()).item() == math.inf


def test_psnr_counts_masked_pixels_only() -> None:
    a = torch.zeros(4, 6, 3, dtype=F64)
    b, mask = a.clone(), torch.zeros(4, 6, dtype=torch.bool)
    mask[:, :3] = True
    b[:, :3] += 0.1
    b[:, 3:] = math.nan
    assert psnr(a, b, mask).item() == pytest.approx(20.0)


def test_an_empty_mask_measures_nothing() -> None:
    empty = torch.zeros(20, 26, dtype=torch.bool)
    assert math.isnan(psnr(random_image(), random_image(seed=1), empty).item())


def test_ssim_of_equal_images_is_one() -> None:
    assert ssim(random_image(), random_image()).item() == pytest.approx(1.0, abs=1e-12)


def test_ssim_is_symmetric_and_at_most_one() -> None:
    a, b = random_image(), random_image(seed=1)
    assert ssim(a, b).item() == pytest.approx(ssim(b, a).item(), abs=1e-12)
    assert ssim_map(a, b).max() <= 1


def test_ssim_of_constant_images_is_the_luminance_term() -> None:
    a, b = torch.full((30, 30, 3), 0.2, dtype=F64), torch.full((30, 30, 3), 0.6, dtype=F64)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert ssim_map(a, b)[15, 15, 0].item() == pytest.approx(expected)


@pytest.mark.parametrize(("row", "column"), [(10, 12), (0, 0), (19, 3), (7, 25)])
def test_ssim_is_the_formula_over_an_11_by_11_window_with_zeros_outside(row: int, column: int) -> None:
    a, b = random_image(), (random_image() + 0.3 * random_image(seed=1)).clamp(0, 1)
    weights = [math.exp(-(k**2) / (2 * 1.5**2)) for k in range(-5, 6)]
    sums, norm = torch.zeros(5, dtype=F64), sum(weights) ** 2
    for i in range(-5, 6):
        for j in range(-5, 6):
            y, x = row + i, column + j
            if 0 <= y < 20 and 0 <= x < 26:
                p, q = a[y, x, 1], b[y, x, 1]
                sums += weights[i + 5] * weights[j + 5] / norm * torch.stack([p, q, p * p, q * q, p * q])
    p, q, pp, qq, pq = sums.tolist()
    expected = (
        (2 * p * q + 1e-4) * (2 * (pq - p * q) + 9e-4) / ((p * p + q * q + 1e-4) * (pp - p * p + qq - q * q + 9e-4))
    )
    assert ssim_map(a, b)[row, column, 1].item() == pytest.approx(expected)


def test_ssim_counts_masked_pixels_only() -> None:
    a, b = random_image(), random_image(seed=1)
    mask = torch.zeros(20, 26, dtype=torch.uint8)
    mask[5:9, 7:12] = 1
    expected = ssim_map(a, b)[5:9, 7:12].mean().item()
    assert ssim(a, b, mask).item() == pytest.approx(expected)


def test_ssim_takes_images_smaller_than_its_window() -> None:
    assert ssim(random_image(3, 2), random_image(3, 2)).item() == pytest.approx(1.0, abs=1e-12)


def test_gradients_pass_gradcheck() -> None:
    a, b = random_image(5, 6).requires_grad_(), random_image(5, 6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(ssim, (a, b))
    assert torch.autograd.gradcheck(psnr, (a, b))


def test_sizes_and_dtypes_that_differ_are_named() -> None:
    with pytest.raises(ValueError, match=r"b: expected shape \[H, W, D\], got \[20, 25, 3\] where H=20, W=26, D=3"):
        psnr(random_image(), random_image()[:, :25])
    with pytest.raises(TypeError, match=r"b: expected dtype torch.float64, got torch.float32"):
        ssim(random_image(), random_image().float())
    with pytest.raises(ValueError, match=r"mask: expected shape \[H, W\]"):
        ssim(random_image(), random_image(), torch.ones(3, 3))
