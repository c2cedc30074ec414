"""Unit quaternions as their three smaller components, each within +-1/sqrt(2), and which component is the largest.

The largest follows from the unit length; its sign is made positive, for q and -q are the same rotation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.ops import quaternions


def encode(quats: Tensor) -> tuple[Tensor, Tensor]:
    """Split quaternions.

    Args:
        quats: Any order of components, any non-zero length. [N, 4]

    Returns:
        The smaller three in their order, times sqrt(2): within [-1, 1]. [N, 3]
        Index of the largest, the first of equals. [N] int64
    """
    unit = quaternions.normalize(quats)
    largest = unit.abs().argmax(dim=1)
    unit = torch.where(unit.gather(1, largest[:, None]) < 0, -unit, unit)
    return unit.gather(1, _others(largest)) * 2**0.5, largest


def decode(small: Tensor, largest: Tensor) -> Tensor:
    """The inverse of encode.

    Args:
        small: Within [-1, 1]. [N, 3]
        largest: 0 to 3. [N] int64

    Returns:
        Unit quaternions, as far as small allows. [N, 4]
    """
    rest = small / 2**0.5
    value = (1 - rest.square().sum(dim=1, keepdim=True)).clamp_min(0).sqrt()
    quats = torch.empty(len(small), 4, dtype=small.dtype)
    quats.scatter_(1, _others(largest), rest)
    return quats.scatter_(1, largest[:, None], value)


def _others(largest: Tensor) -> Tensor:  # [N] -> [N, 3], ascending
    steps = torch.arange(3)[None, :]
    return steps + (steps >= largest[:, None])
