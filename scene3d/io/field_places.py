"""Which numbers of a field's factors are coded (of planes, nodes that occupied cells touch), and what lies beside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scene3d.core.fields import AXES, LeafLevel


@dataclass(frozen=True)
class Places:
    """Where the numbers of a factor that are coded stand, in the order of coding.

    Attributes:
        used: Which nodes those are.
        above: Of each an earlier one beside it, in another row of a plane or another leaf; -1: none. [P]
    """

    used: Tensor
    above: np.ndarray

    @staticmethod
    def of(name: str, nodes: torch.Size, occupancy: Tensor | None, levels: tuple[LeafLevel, ...]) -> Places:
        """The places of a factor with so many nodes."""
        used = used_nodes(occupancy, nodes, name)
        if levels:
            level = levels[int(name[1])]
            beside = leaves_beside(level, AXES.index(name[0]))[:, None] * level.nodes + np.arange(level.nodes)
            return Places(used, np.where(beside < 0, -1, beside).reshape(-1).astype(np.int32))
        return Places(used, rows_above(used.numpy()) if used.ndim == 2 else np.full(int(used.sum()), -1, np.int32))


def rows_above(used: np.ndarray) -> np.ndarray:
    """Of each used node of a plane the number of that in the row before, -1 where that is not used. [B, A] to [P]"""
    numbers = np.where(used, used.reshape(-1).cumsum().reshape(used.shape) - 1, -1)
    before = np.full(used.shape, -1, np.int64)
    before[1:] = numbers[:-1]
    return before[used].astype(np.int32)


def leaves_beside(level: LeafLevel, axis: int) -> np.ndarray:
    """Of each leaf an earlier one next to it, across the axis first; far below 0: none. [L]"""
    numbers = level.numbers().numpy().astype(np.int64)
    found = np.full(numbers.shape, -(1 << 30), np.int64)
    # The last to be set counts: neighbours along the axis itself share but one node.
    for other in sorted(range(3), key=lambda a: (a != axis, a)):
        dim = 2 - other
        before = np.roll(numbers, 1, axis=dim)
        before[tuple(slice(0, 1) if d == dim else slice(None) for d in range(3))] = -1
        found = np.where(before >= 0, before, found)
    return found[numbers >= 0]


def used_nodes(occupancy: Tensor | None, nodes: torch.Size, name: str) -> Tensor:
    """Nodes of a plane that occupied cells touch; of lines, leaves and bases, all. [n_b, n_a], [n] or [n_leaves, n]"""
    if occupancy is None or not set(name) < set(AXES) or len(name) == 1:
        return torch.ones(nodes, dtype=torch.bool)
    across = ({"x", "y", "z"} - set(name)).pop()
    cells = occupancy.any(dim="zyx".index(across))
    rows, columns = (_touches(n_cells, n) for n_cells, n in zip(cells.shape, nodes, strict=True))
    return (rows.T @ cells.float() @ columns) > 0


def _touches(n_cells: int, n: int) -> Tensor:
    """Which nodes lie at or around each cell of an axis. [n_cells, n] of 0 and 1"""
    cell, node = torch.arange(n_cells)[:, None], torch.arange(n)[None]
    low = cell * (n - 1) // n_cells
    high = -((-(cell + 1) * (n - 1)) // n_cells)
    return ((node >= low) & (node <= high)).float()
