"""Hash grid: features at the corners of ever finer cells over a box, in tables that are shorter than corners are many.

Corners of a level share the rows of its table by a hash where there are more of them (Müller et al. 2022). The tables
of all levels lie one after the other, coarse to fine, four numbers a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

ROW_NUMBERS = 4
MAX_HASH_LEVELS, MAX_ROW_BITS, MAX_SIDE = 16, 24, 1 << 14


@dataclass(frozen=True)
class HashGrid:
    """The levels of a hash grid.

    Attributes:
        cells: Along x y z of each level, coarse to fine.
        row_bits: No level has more rows than 2^row_bits.
    """

    cells: tuple[tuple[int, int, int], ...]
    row_bits: int

    def __post_init__(self) -> None:
        if not 1 <= len(self.cells) <= MAX_HASH_LEVELS:
            raise ValueError(f"cells: expected 1 to {MAX_HASH_LEVELS} levels, got {len(self.cells)}")
        if not all(len(level) == 3 and all(1 <= n <= MAX_SIDE for n in level) for level in self.cells):
            raise ValueError(f"cells: expected 1 to {MAX_SIDE} along each axis, got {self.cells}")
        if not 4 <= self.row_bits <= MAX_ROW_BITS:
            raise ValueError(f"row_bits: expected 4 to {MAX_ROW_BITS}, got {self.row_bits}")

    @property
    def n_inputs(self) -> int:
        """Numbers that a point gets."""
        return ROW_NUMBERS * len(self.cells)

    def n_rows(self, level: int) -> int:
        """Rows of the table of a level."""
        return min(math.prod(n + 1 for n in self.cells[level]), 1 << self.row_bits)

    def table_rows(self, rank: int) -> int:
        """Rows of `rank` numbers that hold the tables of all levels."""
        total = ROW_NUMBERS * sum(self.n_rows(level) for level in range(len(self.cells)))
        return -(-total // rank)


def hash_grid(box: Tensor, n_levels: int, coarsest: int, finest: int, row_bits: int) -> HashGrid:
    """Levels of cubic cells over a box, their edges evenly spaced in the logarithm.

    Args:
        box: [2, 3]
        n_levels: Of the grid.
        coarsest: Cells of the first level along the longest edge of the box.
        finest: Of the last.
        row_bits: See HashGrid.
    """
    size = (box[1] - box[0]).double()
    shares = (size / size.amax()).tolist()
    growth = 0.0 if n_levels == 1 else math.log(finest / coarsest) / (n_levels - 1)
    sides = [coarsest * math.exp(growth * level) for level in range(n_levels)]
    x, y, z = ([max(1, round(side * share)) for side in sides] for share in shares)
    return HashGrid(tuple(zip(x, y, z, strict=True)), row_bits)
