"""Order of points along the Z-curve (Morton 1966): neighbours in the order are mostly neighbours in space."""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 21
# Bit i moves to bit 3 i in five doublings of the gaps.
_SHIFTS = (32, 16, 8, 4, 2)
_MASKS = (0x1FFFFF, 0x1F00000000FFFF, 0x1F0000FF0000FF, 0x100F00F00F00F00F, 0x10C30C30C30C30C3, 0x1249249249249249)


def codes(points: Tensor) -> Tensor:
    """Interleave the bits of the coordinates, 21 an axis, over the box of the points.

    Args:
        points: Finite. [N, 3]

    Returns:
        x in the lowest bit. [N] int64
    """
    if len(points) == 0:
        return torch.zeros(0, dtype=torch.int64)
    exact = points.detach().to("cpu", torch.float64)
    low, high = exact.amin(dim=0), exact.amax(dim=0)
    # A flat box must not divide by zero; the smallest normal number keeps tiny boxes apart.
    span = (high - low).clamp_min(torch.finfo(torch.float64).tiny)
    cells = ((exact - low) / span * (2**BITS - 1)).long()
    return interleave(cells)


def interleave(cells: Tensor) -> Tensor:
    """Bit i of x, y, z becomes bit 3 i, 3 i + 1, 3 i + 2.

    Args:
        cells: 0 to 2^21 - 1. [N, 3] int64

    Returns:
        [N] int64.
    """
    return _spread(cells[:, 0]) | (_spread(cells[:, 1]) << 1) | (_spread(cells[:, 2]) << 2)


def deinterleave(values: Tensor) -> Tensor:
    """The inverse of interleave. [N] int64 -> [N, 3] int64"""
    return torch.stack([_gather(values >> axis) for axis in range(3)], dim=1)


def order(points: Tensor) -> Tensor:
    """Indices that put points [N, 3] in Morton order, equal codes as they come. [N] int64"""
    return torch.argsort(codes(points), stable=True)


def _spread(x: Tensor) -> Tensor:
    for shift, mask in zip(_SHIFTS, _MASKS[1:], strict=True):
        x = (x | (x << shift)) & mask
    return x


def _gather(x: Tensor) -> Tensor:
    x = x & _MASKS[-1]
    for shift, mask in zip(reversed(_SHIFTS), reversed(_MASKS[:-1]), strict=True):
        x = (x | (x >> shift)) & mask
    return x
