"""A picture as grids and radial bases: fitted to its pixels, rendered at any size (NeuRBF, Chen et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.ops.radial_grid import RadialGrid, RadialGridSettings, fit_radial_grid

# Bases in what is flat: a share of what edges get.
FLAT = 0.1
PIXELS_AT_ONCE = 1 << 17
MAX_PIXELS = 1 << 26


def fit_image(image: Tensor, settings: RadialGridSettings) -> RadialGrid:
    """Fit a picture; bases go where colours change.

    Args:
        image: 0 to 1. [H, W, C] float32
        settings: How.
    """
    height, width = image.shape[:2]
    if min(height, width) < 2 or height * width > MAX_PIXELS:
        raise ValueError(f"image: expected 2x2 to {MAX_PIXELS:,} pixels, got {width}x{height}")
    down, across = torch.gradient(image, dim=(0, 1))
    change = (down.square() + across.square()).sum(dim=2).sqrt().reshape(-1)
    weights = change + FLAT * change.mean() + 1e-6
    return fit_radial_grid(pixel_places(height, width), image.reshape(height * width, -1), weights, settings)


@torch.no_grad()
def image_of(model: RadialGrid, height: int, width: int) -> Tensor:
    """The picture at any size. [H, W, C]"""
    parts = [model(part) for part in pixel_places(height, width).split(PIXELS_AT_ONCE)]
    return torch.cat(parts).reshape(height, width, -1)


def pixel_places(height: int, width: int) -> Tensor:
    """Centres of pixels, 0 to 1, row by row. [H W, 2] x y"""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack([x, y], dim=2).reshape(-1, 2)
