"""Nearest neighbours of points in space: exact, native, in torch where the native module is missing."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.checks import Dims
from scene3d.ops import cuda_call

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
        Distances [Q, k] float32 and indices [Q, k] int64, on the device of the queries; infinity and -1 where P < k.

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
    device = queries.device
    points, queries = points.detach().float().contiguous(), queries.detach().float().contiguous()
    if cuda_call.takes(points, queries) and k <= cuda_call.module.MAX_NEIGHBORS:
        return _nearest_cuda(points, queries, k)
    distances = torch.full((len(queries), k), torch.inf)
    indices = torch.full((len(queries), k), -1, dtype=torch.int64)
    search = _nearest_torch if _cpu is None else _cpu.nearest_points
    search(points.cpu(), queries.cpu(), distances, indices)
    return distances.to(device), indices.to(device)


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
        return torch.zeros(len(points), device=points.device)
    distances, indices = nearest(points, points, n_others + 1)
    is_self = indices == torch.arange(len(points), device=points.device)[:, None]
    # Among many points in one place a point may not find itself: then the last of the row is one too many.
    is_self[:, -1] |= ~is_self.any(dim=1)
    others = distances[~is_self].view(len(points), n_others)
    return others.square().mean(dim=1).sqrt()


def _nearest_cuda(points: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    distances = torch.full((len(queries), k), torch.inf, device=queries.device)
    indices = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    if len(points) == 0 or len(queries) == 0:
        return distances, indices
    low = points.amin(dim=0)
    size = float((points.amax(dim=0) - low).max())
    inv_size = 1 / size if size > 1e-30 else 0.0  # points in one place need no order
    memory = cuda_call.Memory(cuda_call.module, points.device)
    stream = cuda_call.begin(cuda_call.module, points.device)
    cuda_call.module.nearest_points(
        points, queries, low.tolist(), inv_size, distances, indices, memory.native(), stream
    )
    return distances, indices


def _nearest_torch(points: Tensor, queries: Tensor, distances: Tensor, indices: Tensor) -> None:
    k = min(distances.shape[1], len(points))
    for begin in range(0, len(queries), _ROWS_AT_ONCE):
        rows = slice(begin, begin + _ROWS_AT_ONCE)
        ordered = torch.cdist(queries[rows], points, compute_mode="donot_use_mm_for_euclid_dist").sort(
            dim=1, stable=True
        )
        distances[rows, :k], indices[rows, :k] = ordered.values[:, :k], ordered.indices[:, :k]
