"""Where the surfaces of a depth image end, and which of them are thin."""

from __future__ import annotations

import torch
from torch import Tensor

# 1 / z that bends by more than this share from pixel to pixel goes from one surface to another.
ONE_SURFACE = 0.02
EDGE_PIXELS = 2
# What is narrower than so many pixels and nearer than what is around by more than this share of the depth is thin;
# pixels are near such things up to NEAR_THIN.
THIN_PIXELS, THIN_DEPTH = 15, 0.02
NEAR_THIN = 4


def near_edges(depth: Tensor) -> Tensor:
    """Pixels within EDGE_PIXELS of where a surface ends: a mesh that is a little off would take colours of another one.

    Args:
        depth: z, 0 = nothing. [H, W]

    Returns:
        [H, W] bool.
    """
    # 1 / z is linear in pixels on planes, however flat they are seen.
    near = torch.where(depth > 0, 1 / depth, 0.0)[None, None]
    bent = torch.zeros_like(near)
    bent[..., 1:-1] = (near[..., 2:] + near[..., :-2] - 2 * near[..., 1:-1]).abs()
    down = (near[..., 2:, :] + near[..., :-2, :] - 2 * near[..., 1:-1, :]).abs()
    bent[..., 1:-1, :] = torch.maximum(bent[..., 1:-1, :], down)
    edge = (bent > ONE_SURFACE * near).float()
    return torch.nn.functional.max_pool2d(edge, 2 * EDGE_PIXELS + 1, 1, EDGE_PIXELS)[0, 0] > 0


def without_specks(depth: Tensor) -> Tensor:
    """A depth image without pixels and lines nearer or farther than all around: noise is not an edge. [H, W]"""
    near = torch.where(depth > 0, 1 / depth, 0.0)[None, None]
    # Closing, then opening, by 3x3.
    near = -_dilated(-_dilated(near))
    near = _dilated(-_dilated(-near))[0, 0]
    return torch.where(near > 0, 1 / near, 0.0)


def _dilated(image: Tensor) -> Tensor:
    return torch.nn.functional.max_pool2d(image, 3, 1, 1)


def near_thin(*depths: Tensor) -> Tensor:
    """Pixels within NEAR_THIN of what is thin in any of some depth images. [H, W] bool"""
    thin = torch.stack([is_thin(depth) for depth in depths]).any(dim=0)
    return torch.nn.functional.max_pool2d(thin.float()[None], 2 * NEAR_THIN + 1, 1, NEAR_THIN)[0] > 0


def is_thin(depth: Tensor, pixels: int = THIN_PIXELS) -> Tensor:
    """What is narrower than so many pixels and clearly nearer than what is around. [H, W] bool

    Args:
        depth: z, 0 = unknown. [H, W]
        pixels: An odd number.
    """
    near = torch.where(depth > 0, 1 / depth, 0.0)[None, None]
    margin = pixels // 2
    far = -torch.nn.functional.max_pool2d(-near, pixels, 1, margin)
    wide = torch.nn.functional.max_pool2d(far, pixels, 1, margin)
    return (near - wide > THIN_DEPTH * near)[0, 0]
