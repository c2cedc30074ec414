"""Fields behind a network at every point, in plain torch: the oracle of native kernels. Any floating dtype.

Points are in units of the box, 0 to 1. See scene3d.core.fields for the layouts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scene3d.core.fields import OCTAVES, TABLE, Field
from scene3d.core.hash_grid import ROW_NUMBERS, HashGrid
from scene3d.ops.hash_field import level_features

# Of a unit below 0, what passes: one that nothing passes never rises again.
LEAK = 0.01


def network_units(field: Field, factors: tuple[Tensor, ...], unit: Tensor) -> Tensor:
    """Units of the last layer.

    Args:
        field: Whose kind and grid count.
        factors: Of density or of colour.
        unit: Points. [P, 3]

    Returns:
        [P, R].

    Differentiable in factors.
    """
    if field.names[0] == TABLE:
        assert field.grid is not None
        values, layers = hash_features(field.grid, factors[0], unit), factors[1:]
    else:
        values, layers = waves(unit), factors
    for layer in layers:
        values = torch.nn.functional.leaky_relu(values @ layer[:-1] + layer[-1], LEAK)
    return values


def unit_signs(units: Tensor) -> Tensor:
    """What each unit counts in the density: +1 in the first half, -1 in the second. [P, R] to [R]"""
    signs = torch.ones_like(units[0] if len(units) else units.new_zeros(units.shape[1]))
    signs[units.shape[1] // 2 :] = -1
    return signs


def hash_features(grid: HashGrid, table: Tensor, unit: Tensor) -> Tensor:
    """Features of all levels, interpolated trilinearly. [P, 3] to [P, inputs]"""
    rows, first, parts = table.reshape(-1)[: table.numel() // ROW_NUMBERS * ROW_NUMBERS].view(-1, ROW_NUMBERS), 0, []
    for level, cells in enumerate(grid.cells):
        n_rows = grid.n_rows(level)
        parts.append(level_features(rows[first : first + n_rows], cells, unit))
        first += n_rows
    return torch.cat(parts, dim=1)


def waves(unit: Tensor) -> Tensor:
    """Position from -1 to 1, then sines, then cosines, of ever finer waves of it (Mildenhall et al. 2020). [P, 51]"""
    place = 2 * unit - 1
    octaves = math.pi * 2.0 ** torch.arange(OCTAVES, dtype=unit.dtype, device=unit.device)
    angles = (place[:, None] * octaves[:, None]).flatten(1)
    return torch.cat([place, angles.sin(), angles.cos()], dim=1)
