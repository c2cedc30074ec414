"""S3IM: structural similarity of random pixels, as if they were neighbours (Xie et al. 2023).

A window of SSIM takes sixteen pixels from anywhere in any photo: their means, variances and covariance tell what a mean
over single pixels cannot, whether the render varies where the photos do.
"""

from __future__ import annotations

import torch
from torch import Tensor

# A window of 4x4 with a Gaussian of 1.5 pixels, as in the paper.
SIDE, SIGMA = 4, 1.5
REPEATS = 10
C1, C2 = 0.01**2, 0.03**2


def s3im(rgb: Tensor, target: Tensor, generator: torch.Generator, repeats: int = REPEATS) -> Tensor:
    """Mean SSIM over windows of random pixels.

    Args:
        rgb: [R, 3], R at least 16; a last window that is not full is left out.
        target: [R, 3]
        generator: Deals the pixels to windows, anew in each repeat.
        repeats: Ways to deal them.

    Differentiable in rgb and target.
    """
    size = SIDE * SIDE
    n_windows = len(rgb) // size
    if n_windows < 1:
        raise ValueError(f"rgb: expected at least {size} pixels, got {len(rgb)}")
    order = torch.stack([torch.randperm(len(rgb), generator=generator)[: n_windows * size] for _ in range(repeats)])
    order = order.reshape(-1, size).to(rgb.device)
    window = _window().to(rgb)[None, :, None]
    x, y = rgb[order], target[order]
    mean_x, mean_y = (window * x).sum(dim=1), (window * y).sum(dim=1)
    variance_x = (window * x * x).sum(dim=1) - mean_x**2
    variance_y = (window * y * y).sum(dim=1) - mean_y**2
    covariance = (window * x * y).sum(dim=1) - mean_x * mean_y
    light = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return (light * (2 * covariance + C2) / (variance_x + variance_y + C2)).mean()


def _window() -> Tensor:  # [16]
    offsets = torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2
    line = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    plane = line[:, None] * line
    return (plane / plane.sum()).reshape(-1)
