"""Where the surfaces of a depth image end, and which of them are thin."""

from __future__ import annotations

import torch
from torch import Tensor

# 1 / z that bends by more than this share from pixel to pixel goes from one surface to another.
ONE_SURFACE = 0.02
EDGE_PIXELS = 2
# What is narrower than so many pixels and nearer than what is around by more than this share of the depth is thin.
THIN_PIXELS, THIN_DEPTH = 15, 0.02


def nearness_of(depth: Tensor) -> Tensor:
    """Inverse depth, 0 where there is no depth; its own inverse. [H, W]"""
    return torch.where(depth > 0, 1 / depth.clamp_min(torch.finfo(depth.dtype).tiny), 0.0)


def near_edges(depth: Tensor) -> Tensor:
    """Pixels within EDGE_PIXELS of where a surface ends: a mesh that is a little off would take colours of another one.

    Args:
        depth: z, 0 = nothing. [H, W]

    Returns:
        [H, W] bool.
    """
    # 1 / z is linear in pixels on planes, however flat they are seen.
    near = nearness_of(depth)[None, None]
    bent = torch.zeros_like(near)
    bent[..., 1:-1] = (near[..., 2:] + near[..., :-2] - 2 * near[..., 1:-1]).abs()
    down = (near[..., 2:, :] + near[..., :-2, :] - 2 * near[..., 1:-1, :]).abs()
    bent[..., 1:-1, :] = torch.maximum(bent[..., 1:-1, :], down)
    edge = (bent > ONE_SURFACE * near).float()
    return _dilated(edge, EDGE_PIXELS)[0, 0] > 0


def without_specks(depth: Tensor) -> Tensor:
    """A depth image without pixels and lines nearer or farther than all around: noise is not an edge. [H, W]"""
    near = nearness_of(depth)[None, None]
    # Closing, then opening, by 3x3.
    near = -_dilated(-_dilated(near))
    near = _dilated(-_dilated(-near))[0, 0]
    return nearness_of(near)


def _dilated(image: Tensor, margin: int = 1) -> Tensor:
    """The largest value within so many pixels, in a square. [..., H, W]"""
    return torch.nn.functional.max_pool2d(image, 2 * margin + 1, 1, margin)


def near_thin(depth: Tensor, margin: int) -> Tensor:
    """Pixels within `margin` of what is thin. [H, W] bool"""
    return _dilated(is_thin(depth).float()[None], margin)[0] > 0


def is_thin(depth: Tensor, pixels: int = THIN_PIXELS) -> Tensor:
    """What is narrower than so many pixels and clearly nearer than what is around. [H, W] bool

    Args:
        depth: z, 0 = unknown. [H, W]
        pixels: An odd number.
    """
    near = nearness_of(depth)[None, None]
    wide = _dilated(-_dilated(-near, pixels // 2), pixels // 2)
    return (near - wide > THIN_DEPTH * near)[0, 0]
