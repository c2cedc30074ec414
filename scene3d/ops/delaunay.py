"""Delaunay tetrahedra of points in space, exact on a grid of 2^20 cells a side."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.checks import Dims
from scene3d.core.errors import BackendUnavailable
from scene3d.ops.morton import interleave

try:
    from scene3d import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]

# Every round of insertion has so many times as many points as all before.
GROWTH = 4
# Of a point's hash, which decides its round.
HASH_BITS = 31


def delaunay(points: Tensor) -> Tensor:
    """Delaunay tetrahedra of points, rounded to a grid of 2^20 cells along the longest side of their box.

    Of points that share a cell of the grid only the first is a corner.

    Args:
        points: Finite. [P, 3]

    Returns:
        Indices of corners, of positive volume on the grid; none where all points lie in one plane. [T, 4] int64

    Raises:
        ValueError: a coordinate is not finite.
        BackendUnavailable: the native module is not built.
    """
    Dims().check("points", points, "P 3")
    if not bool(points.isfinite().all()):
        raise ValueError("points: expected finite coordinates")
    if _cpu is None:
        raise BackendUnavailable("cpu", "the native module is not built", "Install with its native code: pip install .")
    if len(points) < 4:
        return torch.zeros(0, 4, dtype=torch.int64)
    exact = points.detach().cpu().double()
    low = exact.amin(dim=0)
    # All at one place: any scale does.
    span = float((exact.amax(dim=0) - low).max()) or 1.0
    cells = ((exact - low) / span * (2**_cpu.DELAUNAY_BITS - 1)).round().long()
    order = insertion_order(cells)
    found = _cpu.delaunay(cells[order].int().contiguous().numpy())
    return order[torch.from_numpy(found).long()]


def insertion_order(cells: Tensor) -> Tensor:
    """Rounds of growing numbers of points drawn from everywhere, each along the Z-curve (Amenta et al. 2003).

    Args:
        cells: Whole coordinates. [P, 3] int64

    Returns:
        [P] int64
    """
    n = len(cells)
    code = interleave(cells)
    # The place in the order decides the draw, not chance: equal input, equal tetrahedra.
    draw = (torch.arange(n) * 2654435761 + 12345) % (1 << HASH_BITS)
    rounds = torch.zeros(n, dtype=torch.int64)
    share = 1.0
    while share * n > 1000:
        share /= GROWTH
        rounds += draw >= share * (1 << HASH_BITS)
    by_code = code.argsort(stable=True)
    return by_code[rounds[by_code].argsort(stable=True)]
