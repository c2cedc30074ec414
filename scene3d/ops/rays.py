"""Rays of pixels: origins and unit directions in the world."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras


def camera_rays(cameras: Cameras, views: Tensor, columns: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rays through the centres of pixels.

    Args:
        cameras: The views.
        views: Which view each pixel belongs to. [R] int64
        columns: Pixel columns. [R]
        rows: Pixel rows. [R]

    Returns:
        Origins [R, 3] and unit directions [R, 3].

    Differentiable in cameras.viewmats.
    """
    Ks, rotations = cameras.Ks[views], cameras.viewmats[views, :3, :3]
    x = (columns + 0.5 - Ks[:, 0, 2]) / Ks[:, 0, 0]
    y = (rows + 0.5 - Ks[:, 1, 2]) / Ks[:, 1, 1]
    in_camera = torch.stack([x - y * Ks[:, 0, 1] / Ks[:, 0, 0], y, torch.ones_like(x)], dim=1)
    directions = (in_camera[:, None] @ rotations)[:, 0]
    origins = cameras.centers()[views]
    return origins, directions / directions.norm(dim=1, keepdim=True)


def tiled_pixels(width: int, height: int, tile: int = 8) -> tuple[Tensor, Tensor]:
    """Columns and rows of all pixels of an image, tile after tile, so that what is near in the list is near in it."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    row, column = row.reshape(-1), column.reshape(-1)
    key = ((row // tile) * (width // tile + 1) + column // tile) * tile * tile + (row % tile) * tile + column % tile
    order = key.argsort()
    return column[order], row[order]
