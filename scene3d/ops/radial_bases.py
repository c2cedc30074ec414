"""Radial bases: where they are put, which of them reach a cell, and their values at points in plain torch.

Bases go where weight is, by weighted k-means, and take the shape of what they stand for: the covariance of their
cluster (NeuRBF, Chen et al. 2023, section 3.2). See scene3d.core.bases for the formula.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from scene3d.core.bases import MAX_LISTED, STEEPNESS, RadialBases
from scene3d.ops.kmeans import kmeans

# Edges of cells over the median half extent of bases: with shorter ones lists are shorter, but do not stay in caches.
CELL_SHARE = 1.0
MAX_CELLS = 96
# More than that would not come from bases that are spread over the box.
MAX_ITEMS = 1 << 25
BASES_AT_ONCE = 2048
# A basis reaches so many times as far as the edge of a ball that is spread like its cluster: neighbours overlap.
REACH = 2.0


def listed(centers: Tensor, shapes: Tensor, waves: tuple[float, float]) -> RadialBases:
    """Bases with the lists of those that reach each cell.

    Args:
        centers: 0 to 1. [N, D]
        shapes: Upper triangles, diagonals above 0. [N, D (D + 1) / 2]
        waves: Frequencies.

    Raises:
        ValueError: a number is not finite, a shape is none, or bases are so large that lists would not end.
    """
    if len(centers) == 0:
        raise ValueError("bases: expected at least one, got none")
    if not bool(centers.isfinite().all() and shapes.isfinite().all()):
        raise ValueError("bases: expected finite centres and shapes")
    d = centers.shape[1]
    if d not in (2, 3):
        raise ValueError(f"bases: expected two or three dimensions, got {d}")
    upper = _upper(shapes.double().cpu(), d)
    if not bool((upper.diagonal(dim1=1, dim2=2) > 0).all()):
        raise ValueError("bases: expected shapes with diagonals above 0")
    # Farther than the box nothing matters.
    half = torch.linalg.inv(upper).norm(dim=2).clamp_max(2.0)
    edge = (CELL_SHARE * half.median(dim=0).values).clamp(1 / MAX_CELLS, 1.0)
    sizes = (1 / edge).round().clamp(1, MAX_CELLS).long()
    starts, items = _lists(centers.double().cpu(), upper, half, sizes)
    x_last = tuple(reversed(sizes.tolist()))
    return RadialBases(centers, shapes, waves, x_last, starts.to(centers.device), items.to(centers.device))


def clustered(points: Tensor, weights: Tensor, n: int, floor: float, seed: int) -> tuple[Tensor, Tensor]:
    """Centres and shapes of n bases where the weight is.

    Args:
        points: 0 to 1. [P, D]
        weights: Not negative. [P]
        n: Bases wanted; fewer where there are fewer points.
        floor: Least half extent of a basis.
        seed: Of the clusters.

    Returns:
        [N, D] and [N, D (D + 1) / 2], as `listed` takes them.
    """
    centers, labels = kmeans(points, n, weights, seed=seed)
    n, d = centers.shape
    mass = torch.zeros(n).index_add_(0, labels, weights)
    offsets = points - centers[labels]
    outer = (offsets[:, :, None] * offsets[:, None] * weights[:, None, None]).reshape(-1, d * d)
    spread = torch.zeros(n, d * d).index_add_(0, labels, outer) / mass.clamp_min(1e-30)[:, None]
    # A ball of radius r has the variance r^2 / (D + 2) along every axis.
    reach = spread.reshape(n, d, d) * ((d + 2) * REACH**2) + floor**2 * torch.eye(d)
    return centers, shapes_of(reach)


def even(points: Tensor, volume: float, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Centres of n round bases of one size strewn over points; see `clustered`.

    Args:
        points: 0 to 1. [P, D]
        volume: That the points stand for, shared among the bases.
        n: Bases wanted.
        generator: Picks points.
    """
    centers = points[torch.randperm(len(points), generator=generator)[:n]]
    d = points.shape[1]
    radius = REACH * (volume / len(centers) / {2: torch.pi, 3: 4 / 3 * torch.pi}[d]) ** (1 / d)
    return centers, shapes_of((radius**2 * torch.eye(d)).expand(len(centers), d, d))


def shapes_of(reach: Tensor) -> Tensor:
    """Shapes of bases whose edges are the points with d^T reach^-1 d = 1. [N, D, D] to [N, D (D + 1) / 2]"""
    d = reach.shape[-1]
    lower = torch.linalg.cholesky(torch.linalg.inv(reach.double()))
    rows, columns = torch.triu_indices(d, d)
    return lower.mT[:, rows, columns].float()


def near(bases: RadialBases, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of points and bases that reach them, by point.

    Args:
        bases: N of them.
        points: 0 to 1; those outside are looked up in the nearest cell. [P, D]

    Returns:
        Points [H] int64, bases [H] int64 and phi [H]. Differentiable in points, centres and shapes.
    """
    sizes = torch.tensor(list(reversed(bases.cells)), device=points.device)
    cell = torch.minimum((points.detach() * sizes).long().clamp_min(0), sizes - 1)
    flat = cell[:, -1]
    for axis in range(bases.n_dims - 2, -1, -1):
        flat = flat * sizes[axis] + cell[:, axis]
    first, count = bases.starts[flat].long(), (bases.starts[flat + 1] - bases.starts[flat]).long()
    rows = torch.arange(len(points), device=points.device).repeat_interleave(count)
    before = (count.cumsum(0) - count)[rows]
    item = bases.items[first[rows] + torch.arange(len(rows), device=points.device) - before].long()
    place = (_upper(bases.shapes, bases.n_dims)[item] @ (points[rows] - bases.centers[item])[:, :, None])[:, :, 0]
    q = place.square().sum(dim=1)
    reached = q < 1
    q = q[reached]
    return rows[reached], item[reached], (1 - q) ** 2 / (1 + STEEPNESS * q)


def channels(phi: Tensor, frequencies: Tensor) -> Tensor:
    """Channels of bases: sines of phi, or phi itself. [H], [R] to [H, R]. Differentiable in phi."""
    if not bool(frequencies.any()):
        return phi[:, None].expand(-1, len(frequencies))
    return (phi[:, None] * frequencies).sin()


def weighted_sum(bases: RadialBases, rows: Tensor, points: Tensor) -> Tensor:
    """Sum over bases of their channels times their rows, channel by channel.

    Args:
        bases: N of them.
        rows: Weights. [N, R]
        points: 0 to 1. [P, D]

    Returns:
        [P, R]. Differentiable in everything.
    """
    point, item, phi = near(bases, points)
    values = channels(phi, bases.frequencies(rows.shape[1])) * rows[item]
    return torch.zeros(len(points), rows.shape[1], dtype=rows.dtype, device=rows.device).index_add(0, point, values)


def _upper(shapes: Tensor, d: int) -> Tensor:  # [N, D (D + 1) / 2] -> [N, D, D]
    rows, columns = torch.triu_indices(d, d)
    upper = torch.zeros(len(shapes), d, d, dtype=shapes.dtype, device=shapes.device)
    upper[:, rows, columns] = shapes
    return upper


def _lists(centers: Tensor, upper: Tensor, half: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Starts [cells + 1] and items [E] of cells, x fastest."""
    low = torch.minimum(((centers - half) * sizes).floor().long().clamp_min(0), sizes - 1)
    high = torch.minimum(((centers + half) * sizes).floor().long().clamp_min(0), sizes - 1)
    spans = (high - low + 1).clamp_min(1)
    counts = spans.prod(dim=1)
    if int(counts.sum()) > MAX_ITEMS:
        raise ValueError(
            f"bases: {len(centers)} of them reach {float(counts.double().mean()):.0f} cells each: too many"
        )
    parts = [
        _reached_cells(centers, upper, sizes, chunk, low[chunk], spans[chunk])
        for chunk in torch.arange(len(centers)).split(BASES_AT_ONCE)
    ]
    flat, item, gap = (torch.cat(values) for values in zip(*parts, strict=True))
    # Where too many reach a cell the nearest are taken.
    order = gap.argsort(stable=True)
    order = order[flat[order].argsort(stable=True)]
    flat, item = flat[order], item[order]
    count = torch.bincount(flat, minlength=int(sizes.prod()))
    place = torch.arange(len(flat)) - (count.cumsum(0) - count)[flat]
    item = item[place < MAX_LISTED]
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), count.clamp_max(MAX_LISTED).cumsum(0)])
    return starts.int(), item.int()


def _reached_cells(
    centers: Tensor, upper: Tensor, sizes: Tensor, chunk: Tensor, low: Tensor, spans: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Cells that bases of a chunk reach, those bases, and how near they are at least. [E] each"""
    counts = spans.prod(dim=1)
    row = torch.arange(len(chunk)).repeat_interleave(counts)
    left = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
    cell = torch.empty(len(row), len(sizes), dtype=torch.int64)
    for axis in range(len(sizes)):
        cell[:, axis] = low[row, axis] + left % spans[row, axis]
        left = left // spans[row, axis]
    gap = _least_distance(centers[chunk], upper[chunk], sizes, cell, row)
    reached = gap < 1
    cell = cell[reached]
    flat = cell[:, -1]
    for axis in range(len(sizes) - 2, -1, -1):
        flat = flat * sizes[axis] + cell[:, axis]
    return flat, chunk[row[reached]], gap[reached]


def _least_distance(centers: Tensor, upper: Tensor, sizes: Tensor, cell: Tensor, item: Tensor) -> Tensor:
    """At most the least |U (x - c)| over the points of a cell. [E]"""
    d = len(sizes)
    middle = (cell + 0.5) / sizes
    away = (upper[item] @ (middle - centers[item])[:, :, None])[:, :, 0].norm(dim=1)
    corners = torch.tensor(list(itertools.product((-0.5, 0.5), repeat=d)), dtype=torch.float64) / sizes
    size = (upper @ corners.T).norm(dim=1).amax(dim=1)
    return away - size[item]
