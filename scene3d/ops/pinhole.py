"""Pinhole cameras: points of the world to pixels, and back from pixels with a depth."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras

# What is nearer to a camera than this, scene units, or behind it, is seen nowhere.
NEAR = 1e-6


def to_pixels(points: Tensor, viewmat: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Where a camera shows points.

    Args:
        points: World. [P, 3]
        viewmat: cam_from_world. [4, 4]
        K: Intrinsics, pixels; skew is ignored. [3, 3]

    Returns:
        Pixels [P, 2], of what is not in front of the camera anything finite, and z in the camera [P].

    Differentiable in points.
    """
    viewmat, K = viewmat.to(points), K.to(points)
    in_cam = points @ viewmat[:3, :3].T + viewmat[:3, 3]
    z = in_cam[:, 2]
    safe = torch.where(z > NEAR, z, 1.0)
    return in_cam[:, :2] / safe[:, None] * K.diagonal()[:2] + K[:2, 2], z


def in_image(pixels: Tensor, z: Tensor, width: int, height: int) -> Tensor:
    """Which points an image shows, as far as nothing hides them. [P] bool"""
    x, y = pixels[:, 0], pixels[:, 1]
    return (z > NEAR) & (x >= 0) & (y >= 0) & (x < width) & (y < height)


def from_pixels(columns: Tensor, rows: Tensor, z: Tensor, viewmat: Tensor, K: Tensor) -> Tensor:
    """Places in the world of the centres of pixels.

    Args:
        columns: [P] int64
        rows: [P] int64
        z: In the camera. [P]
        viewmat: cam_from_world. [4, 4]
        K: Intrinsics, pixels. [3, 3]

    Returns:
        [P, 3], of the type of z.

    Differentiable in z.
    """
    viewmat, K = viewmat.to(z), K.to(z)
    x, y = (columns + 0.5 - K[0, 2]) / K[0, 0], (rows + 0.5 - K[1, 2]) / K[1, 1]
    return (torch.stack([x * z, y * z, z], dim=1) - viewmat[:3, 3]) @ viewmat[:3, :3]


def pixel_rays(camera: Cameras, like: Tensor) -> tuple[Tensor, Tensor]:
    """x and y of the rays (x, y, 1) through pixel centres of one camera, of the type of `like`, each [H, W]."""
    K = camera.Ks[0].to(like)
    x = (torch.arange(camera.width(), dtype=like.dtype, device=like.device) + 0.5 - K[0, 2]) / K[0, 0]
    y = (torch.arange(camera.height(), dtype=like.dtype, device=like.device) + 0.5 - K[1, 2]) / K[1, 1]
    return x.expand(camera.height(), -1), y[:, None].expand(-1, camera.width())
