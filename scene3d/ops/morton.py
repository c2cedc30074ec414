"""Order of points along the Z-curve (Morton 1966): neighbours in the order are mostly neighbours in space."""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 21


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
    return _spread(cells[:, 0]) | (_spread(cells[:, 1]) << 1) | (_spread(cells[:, 2]) << 2)


def order(points: Tensor) -> Tensor:
    """Indices that put points [N, 3] in Morton order, equal codes as they come. [N] int64"""
    return torch.argsort(codes(points), stable=True)


def _spread(x: Tensor) -> Tensor:
    # Moves bit i to bit 3 i, in five doublings of the gaps.
    for shift, mask in (
        (32, 0x1F00000000FFFF),
        (16, 0x1F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        x = (x | (x << shift)) & mask
    return x
