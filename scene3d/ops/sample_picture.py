"""Bilinear lookup in pictures."""

from __future__ import annotations

from torch import Tensor


def sample_picture(picture: Tensor, pixels: Tensor) -> Tensor:
    """Bilinear colours at pixels [P, 2] (x, y, centres at +0.5) of a picture [H, W, 3]. [P, 3] float32"""
    height, width, _ = picture.shape
    place = (pixels - 0.5).clamp_min(0)
    x, y = place[:, 0].clamp_max(width - 1), place[:, 1].clamp_max(height - 1)
    x0, y0 = x.long(), y.long()
    x1, y1 = (x0 + 1).clamp_max(width - 1), (y0 + 1).clamp_max(height - 1)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    flat = picture.reshape(-1, 3)
    top = flat[y0 * width + x0].float() * (1 - fx) + flat[y0 * width + x1].float() * fx
    bottom = flat[y1 * width + x0].float() * (1 - fx) + flat[y1 * width + x1].float() * fx
    return top * (1 - fy) + bottom * fy
