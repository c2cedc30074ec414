"""Directions spread evenly over the sphere."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def even_directions(n: int) -> Tensor:
    """n unit directions on a Fibonacci lattice. [n, 3] float64"""
    k = torch.arange(n, dtype=torch.float64) + 0.5
    z, turn = 1 - 2 * k / n, math.pi * (3 - math.sqrt(5)) * k
    ring = (1 - z * z).sqrt()
    return torch.stack([ring * turn.cos(), ring * turn.sin(), z], dim=1)
