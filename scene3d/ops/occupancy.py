"""Occupancy: which cells of a box hold matter, as booleans [Z, Y, X] and as bits for native code."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

try:
    from scene3d import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]

BLOCK = 4


def pack_bits(cells: Tensor) -> tuple[Tensor, Tensor]:
    """Words of 4x4x4 cells, and words of 4x4x4 of those words that are not 0; x is the lowest bit and runs fastest.

    Args:
        cells: [Z, Y, X] bool

    Returns:
        Two flat arrays of words, int64.
    """
    words = _pack(cells.cpu().contiguous())
    return words.reshape(-1), _pack(words != 0).reshape(-1)


def is_occupied(cells: Tensor, box: Tensor, points: Tensor) -> Tensor:
    """Whether points lie in occupied cells; points outside count as those on the border.

    Args:
        cells: [Z, Y, X] bool
        box: [2, 3]
        points: [..., 3]

    Returns:
        [...] bool.
    """
    size = torch.tensor(list(reversed(cells.shape)), device=points.device)
    place = (points - box[0]) * (size.to(points.dtype) / (box[1] - box[0]))
    x, y, z = torch.minimum(place.long().clamp_min(0), size - 1).unbind(dim=-1)
    return cells[z, y, x]


def cells_with(points: Tensor, box: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Cells of a box that hold points; points outside count as those on the border. [P, 3] to [Z, Y, X] bool"""
    size = torch.tensor(list(reversed(shape)))
    place = ((points - box[0]) / (box[1] - box[0]) * size).long()
    x, y, z = torch.minimum(place.clamp_min(0), size - 1).unbind(dim=1)
    cells = torch.zeros(shape, dtype=torch.bool)
    cells[z, y, x] = True
    return cells


def dilate(cells: Tensor) -> Tensor:
    """Also take the 26 neighbours of occupied cells. [Z, Y, X] bool to the same."""
    grown = torch.nn.functional.max_pool3d(cells[None, None].float(), kernel_size=3, stride=1, padding=1)
    return grown[0, 0] > 0.5


def overlapping(cells: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Cells of another grid over the same box that share some of their inside with occupied ones.

    Args:
        cells: [Z, Y, X] bool
        shape: Of the other grid, Z Y X.

    Returns:
        [Z, Y, X] bool, of that shape.
    """
    for axis, n in enumerate(shape):
        n_cells, places = cells.shape[axis], torch.arange(n)
        # Integer arithmetic: cells from floor(i c / n) up to, not with, ceil((i + 1) c / n).
        first, end = places * n_cells // n, ((places + 1) * n_cells + n - 1) // n
        taken = cells.index_select(axis, first)
        for offset in range(1, int((end - first).amax())):
            taken = taken | cells.index_select(axis, torch.minimum(first + offset, end - 1))
        cells = taken
    return cells


def occupied_box(cells: Tensor, box: Tensor) -> Tensor:
    """The smallest box of whole cells around all that is occupied. [2, 3]

    Raises:
        ValueError: nothing is occupied.
    """
    if not bool(cells.any()):
        raise ValueError("cells: expected at least one occupied cell, got none")
    bounds = []
    for axis in (2, 1, 0):
        others = tuple(i for i in range(3) if i != axis)
        taken = cells.any(dim=others[1]).any(dim=others[0]).nonzero()[:, 0]
        bounds.append((int(taken[0]), int(taken[-1]) + 1))
    size = (box[1] - box[0]) / torch.tensor(list(reversed(cells.shape)), dtype=box.dtype, device=box.device)
    return torch.stack([box[0] + torch.tensor([b[i] for b in bounds], device=box.device) * size for i in (0, 1)])


def cell_centers(shape: tuple[int, int, int], box: Tensor) -> Tensor:
    """Centres of the cells of a box; shape is Z Y X. [Z, Y, X, 3]"""
    axes = [
        box[0, i] + (torch.arange(n, dtype=box.dtype, device=box.device) + 0.5) * ((box[1, i] - box[0, i]) / n)
        for i, n in enumerate(reversed(shape))
    ]
    z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    return torch.stack([x, y, z], dim=-1)


def _pack(cells: Tensor) -> Tensor:  # [Z, Y, X] bool -> [ceil(Z/4), ceil(Y/4), ceil(X/4)] int64
    z, y, x = (-(-n // BLOCK) for n in cells.shape)
    if _cpu is not None:
        words = torch.empty(z, y, x, dtype=torch.int64)
        _cpu.pack_cells(cells, words)
        return words
    padded = np.pad(cells.numpy(), [(0, -n % BLOCK) for n in cells.shape])
    blocks = padded.reshape(z, BLOCK, y, BLOCK, x, BLOCK).transpose(0, 2, 4, 1, 3, 5).reshape(z, y, x, BLOCK**3)
    return torch.from_numpy(np.packbits(blocks, axis=-1, bitorder="little").view(np.int64)[..., 0])
