"""PSNR and SSIM of images in [0, 1], as papers on 3D Gaussian splatting report them."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.checks import Dims

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
_C1 = 0.01**2
_C2 = 0.03**2


def psnr(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio, dB; infinite for equal images.

    Args:
        a: Image in [0, 1]. [H, W, D]
        b: Image in [0, 1]. [H, W, D]
        mask: Weight of each pixel, bool or number; None counts all alike. [H, W]

    Returns:
        Scalar.

    Differentiable in a and b where they differ.
    """
    _check(a, b, mask)
    return -10 * torch.log10(masked_mean((a - b).square().mean(dim=2), mask))


def ssim(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """Structural similarity: the mean of `ssim_map` over pixels and channels.

    Args:
        a: Image in [0, 1]. [H, W, D]
        b: Image in [0, 1]. [H, W, D]
        mask: Weight of each pixel, bool or number; None counts all alike. [H, W]

    Returns:
        Scalar, at most 1.

    Differentiable in a and b.
    """
    _check(a, b, mask)
    return masked_mean(ssim_map(a, b).mean(dim=2), mask)


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity around each pixel: Gaussian window of 11 x 11, sigma 1.5, zeros beyond the border.

    Args:
        a: Image in [0, 1]. [H, W, D]
        b: Image in [0, 1]. [H, W, D]

    Returns:
        [H, W, D].

    Differentiable in a and b. Wang et al. 2004, equation 13.
    """
    _check(a, b, None)
    a, b = a.permute(2, 0, 1), b.permute(2, 0, 1)
    blurred = _blur(torch.cat([a, b, a * a, b * b, a * b]))
    mean_a, mean_b, aa, bb, ab = blurred.chunk(5)
    var_a, var_b, covariance = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    numerator = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    denominator = (mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2)
    return (numerator / denominator).permute(1, 2, 0)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of values [H, W] weighted by mask [H, W]; NaN where the mask is empty: there is nothing to measure."""
    if mask is None:
        return values.mean()
    weights = mask.to(values.dtype)
    # Pixels of weight 0 may hold anything, even NaN.
    return torch.where(weights > 0, values * weights, torch.zeros_like(values)).sum() / weights.sum()


def _blur(channels: Tensor) -> Tensor:  # [D, H, W]
    offsets = torch.arange(SSIM_WINDOW, dtype=channels.dtype, device=channels.device) - SSIM_WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
    window = window / window.sum()
    half, n = SSIM_WINDOW // 2, len(channels)
    # As groups of one image: as a batch of images with one channel, PyTorch takes ten times as long.
    windows = window.expand(n, 1, 1, -1)
    columns = torch.nn.functional.conv2d(channels[None], windows.transpose(2, 3), padding=(half, 0), groups=n)
    return torch.nn.functional.conv2d(columns, windows, padding=(0, half), groups=n)[0]


def _check(a: Tensor, b: Tensor, mask: Tensor | None) -> None:
    dims = Dims()
    dims.check("a", a, "H W D")
    dims.check("b", b, "H W D", a.dtype)
    if mask is not None:
        dims.check("mask", mask, "H W")
