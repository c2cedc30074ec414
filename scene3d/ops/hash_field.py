"""Hash-grid fields: a smooth function of position from a few tables and a small network.

Tables of features at the corners of ever finer grids, found by a spatial hash where a grid has more corners than its
table has rows, interpolated trilinearly and put through two hidden layers (Müller et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

PRIMES = (1, 2_654_435_761, 805_459_861)
HIDDEN = 64


@dataclass(frozen=True)
class HashField:
    """A field over all of space.

    Attributes:
        tables: Features by level and row; the number of rows is a power of two. [L, T, F]
        layers: Weight and bias of each layer of the network in turn: (L F, 64), (64), (64, 64), (64), (64, out), (out).
        center: Middle of the scene. [3]
        scale: Distance from it beyond which space is contracted.
        base: Cells per side of the coarsest grid.
        growth: Cells per side of a level over those of the one before.
    """

    tables: Tensor
    layers: tuple[Tensor, ...]
    center: Tensor
    scale: float
    base: int = 16
    growth: float = 1.447

    def __call__(self, points: Tensor) -> Tensor:
        """Evaluate. points [N, 3] -> [N, out]. Differentiable in tables and layers."""
        values = self.features(contract((points - self.center) / self.scale))
        for i in range(0, len(self.layers), 2):
            values = values @ self.layers[i] + self.layers[i + 1]
            if i + 2 < len(self.layers):
                values = values.relu()
        return values

    def features(self, unit: Tensor) -> Tensor:
        """Interpolated features of points [N, 3] in the unit cube. [N, L F]"""
        sides = [int(self.base * self.growth**level) for level in range(len(self.tables))]
        parts = [level_features(table, (side,) * 3, unit) for table, side in zip(self.tables, sides, strict=True)]
        return torch.cat(parts, dim=1)


def level_features(table: Tensor, cells: tuple[int, int, int], unit: Tensor) -> Tensor:
    """Features of one level of a hash grid, interpolated trilinearly.

    Args:
        table: Rows of features; corners share them where there are too few. [T, F]
        cells: Of the level along x y z.
        unit: Points in the unit cube. [N, 3]

    Returns:
        [N, F].

    Differentiable in table.
    """
    sides = torch.tensor(cells, dtype=unit.dtype, device=unit.device)
    at = unit * sides
    corner = torch.minimum(at.floor().clamp_min(0), sides - 1)
    inside = at - corner
    total = torch.zeros(len(unit), table.shape[1], dtype=table.dtype, device=table.device)
    for offset in product((0, 1), repeat=3):
        step = torch.tensor(offset, device=unit.device)
        share = torch.where(step == 1, inside, 1 - inside).prod(dim=1, keepdim=True)
        total = total + share * table[corner_rows(corner.long() + step, cells, len(table))]
    return total


def contract(points: Tensor) -> Tensor:
    """Map all of space into the unit cube: the ball of radius 1 into its middle half (Barron et al. 2022). [N, 3]"""
    length = points.norm(dim=1, keepdim=True).clamp_min(1e-12)
    contracted = torch.where(length <= 1, points, (2 - 1 / length) * points / length)
    return contracted / 4 + 0.5


def corner_rows(corners: Tensor, cells: tuple[int, int, int], n_rows: int) -> Tensor:
    """Rows of a table for corners [N, 3] of a grid: one each where there are enough, else by hash. [N] int64"""
    nx, ny, nz = (n + 1 for n in cells)
    if nx * ny * nz <= n_rows:
        return corners[:, 0] + nx * (corners[:, 1] + ny * corners[:, 2])
    mixed = corners[:, 0] * PRIMES[0] ^ corners[:, 1] * PRIMES[1] ^ corners[:, 2] * PRIMES[2]
    return mixed & (n_rows - 1)


def new_field(
    points: Tensor, n_out: int, n_levels: int = 8, n_row_bits: int = 12, n_features: int = 2, seed: int = 0
) -> HashField:
    """A field with small random features.

    Args:
        points: Where it will be asked: sets middle and scale. [N, 3]
        n_out: Numbers it gives.
        n_levels: Grids.
        n_row_bits: Logarithm of the rows of a table, base 2.
        n_features: Features per row.
        seed: Of the first values.
    """
    generator = torch.Generator().manual_seed(seed)
    center = points.median(dim=0).values if len(points) else torch.zeros(3)
    distance = float((points - center).norm(dim=1).median()) if len(points) else 1.0
    tables = (torch.rand(n_levels, 1 << n_row_bits, n_features, generator=generator) * 2 - 1) * 1e-2
    layers: list[Tensor] = []
    for n_in, n_next in ((n_levels * n_features, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, n_out)):
        bound = (6 / n_in) ** 0.5
        layers += [(torch.rand(n_in, n_next, generator=generator) * 2 - 1) * bound, torch.zeros(n_next)]
    return HashField(tables, tuple(layers), center.float(), max(2 * distance, 1e-12))
