"""Nearest neighbours of points in space: exact, native, in torch where the native module is missing."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.checks import Dims

try:
    from scene3d import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]

_ROWS_AT_ONCE = 1024


def nearest(points: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest points of every query, nearest first, equal distances by index.

    Args:
        points: Finite. [P, 3]
        queries: Finite. [Q, 3]
        k: How many, at least 1.

    Returns:
        Distances [Q, k] float32 and indices [Q, k] int64; infinity and -1 where P < k.

    Raises:
        ValueError: a coordinate is not finite, or k is below 1.
    """
    if k < 1:
        raise ValueError(f"k: expected at least 1, got {k}")
    for name, value, size in (("points", points, "P 3"), ("queries", queries, "Q 3")):
        Dims().check(name, value, size)
        if not bool(value.isfinite().all()):
            row = int((~value.isfinite().all(dim=1)).nonzero()[0, 0])
            raise ValueError(f"{name}: expected finite coordinates, got {value[row].tolist()} in row {row}. Remove it")
    points, queries = (value.detach().float().cpu().contiguous() for value in (points, queries))
    distances = torch.full((len(queries), k), torch.inf)
    indices = torch.full((len(queries), k), -1, dtype=torch.int64)
    if _cpu is not None:
        _cpu.nearest_points(points, queries, distances, indices)
    else:
        _nearest_torch(points, queries, distances, indices)
    return distances, indices


def mean_neighbor_distance(points: Tensor, k: int = 3) -> Tensor:
    """Root mean square distance of every point to its k nearest others; 0 for a point alone.

    The first size of Gaussians in Kerbl et al. 2023.

    Args:
        points: Finite. [P, 3]
        k: How many others; fewer where there are not as many.

    Returns:
        [P] float32.
    """
    n_others = min(k, len(points) - 1)
    if n_others < 1:
        return torch.zeros(len(points))
    distances, indices = nearest(points, points, n_others + 1)
    is_self = indices == torch.arange(len(points))[:, None]
    # Among many points in one place a point may not find itself: then the last of the row is one too many.
    is_self[:, -1] |= ~is_self.any(dim=1)
    others = distances[~is_self].view(len(points), n_others)
    return others.square().mean(dim=1).sqrt()


def _nearest_torch(points: Tensor, queries: Tensor, distances: Tensor, indices: Tensor) -> None:
    k = min(distances.shape[1], len(points))
    for begin in range(0, len(queries), _ROWS_AT_ONCE):
        rows = slice(begin, begin + _ROWS_AT_ONCE)
        ordered = torch.cdist(queries[rows], points, compute_mode="donot_use_mm_for_euclid_dist").sort(
            dim=1, stable=True
        )
        distances[rows, :k], indices[rows, :k] = ordered.values[:, :k], ordered.indices[:, :k]
