"""Clusters of vectors and optimal codebooks of numbers: weighted, native, equal bytes for any number of threads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scene3d.core.checks import Dims
from scene3d.core.errors import BackendUnavailable

# More distinct values than this are gathered into bins before the exact search, whose cost grows with their number.
MAX_EXACT_VALUES = 16_384


def kmeans(
    points: Tensor, n_clusters: int, weights: Tensor | None = None, n_iter: int = 10, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Cluster points: centres with a small sum of weights times squared distance to the nearest centre.

    Lloyd's iterations (1982) from a systematic sample; clusters that run empty restart at the largest error. Up to
    1024 clusters compare every point with every centre; beyond, centres and points lie in cells of a coarse clustering
    and a point looks into the twelve nearest cells, which makes 65,536 clusters of a million points affordable.

    Args:
        points: Finite. [N, D]
        n_clusters: K wanted; with fewer points than that each becomes a cluster of its own.
        weights: Not negative; all equal by default. [N]
        n_iter: Passes over the points.
        seed: Shifts the sample that is started from.

    Returns:
        Centres [K, D] float32 and the nearest of them for every point [N] int64, K = min(n_clusters, N).

    Raises:
        ValueError: sizes differ, a number is not finite, or a weight is negative.
    """
    dims = Dims()
    dims.check("points", points, "N D")
    n_points = len(points)
    weights = torch.ones(n_points) if weights is None else weights
    dims.check("weights", weights, "N")
    if n_clusters < 1 or n_iter < 0:
        raise ValueError(f"n_clusters, n_iter: expected at least 1 and 0, got {n_clusters} and {n_iter}")
    rows, loads = _plain(points, torch.float32), _checked_weights(weights, torch.float32)
    if not bool(rows.isfinite().all()):
        raise ValueError("points: expected finite numbers, got NaN or infinity. Remove such rows")
    if n_points <= n_clusters:
        return rows.clone(), torch.arange(n_points)
    # Scores x·c - |c|²/2 lose the digits that a common offset takes.
    offset = rows.double().mean(dim=0).float()
    centers = torch.empty(n_clusters, rows.shape[1])
    labels = torch.empty(n_points, dtype=torch.int32)
    _native().kmeans((rows - offset).contiguous(), loads, n_iter, seed, centers, labels)
    return centers + offset, labels.long()


def optimal_codebook_1d(values: Tensor, n_entries: int, weights: Tensor | None = None) -> Tensor:
    """The codebook of numbers with the least sum of weights times squared distance to the nearest entry.

    Exact by dynamic programming (Wu 1991) for up to 16,384 distinct values; more are gathered into as many bins first
    and the result is polished by Lloyd's iterations on all values.

    Args:
        values: Finite. [M]
        n_entries: Size of the codebook.
        weights: Not negative; all equal by default. [M]

    Returns:
        Ascending; the last entry repeats where there are fewer distinct values than entries. [n_entries] float32
    """
    dims = Dims()
    dims.check("values", values, "M")
    weights = torch.ones(len(values)) if weights is None else weights
    dims.check("weights", weights, "M")
    if n_entries < 1:
        raise ValueError(f"n_entries: expected at least 1, got {n_entries}")
    numbers, loads = _plain(values, torch.float64), _checked_weights(weights, torch.float64)
    if not bool(numbers.isfinite().all()):
        raise ValueError("values: expected finite numbers, got NaN or infinity. Remove them")
    distinct, place = torch.unique(numbers, return_inverse=True)
    if len(distinct) <= n_entries:
        last = distinct[-1:] if len(distinct) else torch.zeros(1, dtype=torch.float64)
        return torch.cat([distinct, last.expand(n_entries - len(distinct))]).float()
    totals = torch.zeros(len(distinct), dtype=torch.float64).index_add_(0, place, loads)
    bins, masses = _binned(distinct, totals)
    entries = torch.empty(n_entries, dtype=torch.float64)
    _native().optimal_codebook(bins.contiguous(), masses.contiguous(), entries)
    if len(bins) < len(distinct):
        for _ in range(3):
            entries = _means(distinct, totals, entries)
    return entries.sort().values.float()


def nearest_entry(values: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest entry of an ascending codebook, the lower one halfway between two.

    Args:
        values: Any shape.
        codebook: Ascending. [K]

    Returns:
        int64, shape of values.
    """
    exact = codebook.double()
    return torch.searchsorted((exact[1:] + exact[:-1]) / 2, values.double().contiguous())


def _binned(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    # Half of the borders at even steps of value keep sparse tails apart, half at even steps of rank keep crowds apart.
    if len(values) <= MAX_EXACT_VALUES:
        return values, weights
    half = MAX_EXACT_VALUES // 2
    by_value = torch.linspace(float(values[0]), float(values[-1]), half + 1, dtype=torch.float64)[1:]
    by_rank = values[torch.arange(1, half) * len(values) // half]
    borders = torch.unique(torch.cat([by_value, by_rank]))
    place = torch.searchsorted(borders, values)
    n_bins = len(borders) + 1
    masses = torch.zeros(n_bins, dtype=torch.float64).index_add_(0, place, weights)
    sums = torch.zeros(n_bins, dtype=torch.float64).index_add_(0, place, weights * values)
    is_used = masses > 0
    return sums[is_used] / masses[is_used], masses[is_used]


def _means(values: Tensor, weights: Tensor, entries: Tensor) -> Tensor:
    place = torch.searchsorted((entries[1:] + entries[:-1]) / 2, values)
    masses = torch.zeros_like(entries).index_add_(0, place, weights)
    sums = torch.zeros_like(entries).index_add_(0, place, weights * values)
    return torch.where(masses > 0, sums / masses.clamp_min(torch.finfo(torch.float64).tiny), entries)


def _plain(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.detach().to("cpu", dtype).contiguous()


def _checked_weights(weights: Tensor, dtype: torch.dtype) -> Tensor:
    plain = _plain(weights, dtype)
    if not bool((plain.isfinite() & (plain >= 0)).all()):
        raise ValueError("weights: expected finite numbers of at least 0, got others. Clamp them")
    return plain


def _native() -> Any:
    try:
        from scene3d import _cpu
    except ImportError as error:
        raise BackendUnavailable(
            "cpu", "the native module is missing", "Install scene3d with a C++ compiler."
        ) from error
    return _cpu
