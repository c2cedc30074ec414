"""Clustering and optimal codebooks."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scene3d import _cpu
from scene3d.ops.kmeans import MAX_EXACT_VALUES, kmeans, nearest_entry, optimal_codebook_1d


def points(n: int, n_dims: int, seed: int = 0) -> Tensor:
    return torch.randn(n, n_dims, generator=torch.Generator().manual_seed(seed))


def error(rows: Tensor, centers: Tensor, labels: Tensor, weights: Tensor | None = None) -> float:
    squares = (rows.double() - centers.double()[labels]).square().sum(dim=1)
    return float((squares * (1 if weights is None else weights.double())).sum())


def test_clusters_far_apart_are_found() -> None:
    corners = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0], [50.0, 50.0]])
    rows = torch.cat([corner + points(40, 2, i) for i, corner in enumerate(corners)])
    centers, labels = kmeans(rows, 4, n_iter=20)
    torch.testing.assert_close(centers[labels], rows.view(4, 40, 2).mean(dim=1).repeat_interleave(40, dim=0))


def test_centers_are_the_weighted_means_of_their_points() -> None:
    rows, weights = points(3000, 5), torch.rand(3000, generator=torch.Generator().manual_seed(1))
    centers, labels = kmeans(rows, 20, weights, n_iter=60)
    sums = torch.zeros(20, 5).index_add_(0, labels, rows * weights[:, None])
    masses = torch.zeros(20).index_add_(0, labels, weights)
    # Sixty iterations come near to the fixed point, not quite onto it.
    torch.testing.assert_close(centers, sums / masses[:, None], atol=0.02, rtol=0)


@pytest.mark.parametrize("n_dims", [1, 3, 16, 45])
def test_labels_name_the_nearest_center(n_dims: int) -> None:
    rows = points(700, n_dims)
    centers, labels = kmeans(rows, 37, n_iter=2)
    distances = torch.cdist(rows.double(), centers.double())
    best = distances.amin(dim=1)
    torch.testing.assert_close(distances.gather(1, labels[:, None])[:, 0], best, atol=1e-5, rtol=0)


def test_the_search_in_cells_rarely_misses_the_nearest() -> None:
    rows = points(6000, 9)
    centers, labels = kmeans(rows, 1100)
    is_nearest = torch.cdist(rows, centers).argmin(dim=1) == labels
    assert float(is_nearest.float().mean()) > 0.95


def test_more_iterations_err_less() -> None:
    rows = points(4000, 8)
    errors = [error(rows, *kmeans(rows, 64, n_iter=n)) for n in (0, 1, 5, 25)]
    assert errors == sorted(errors, reverse=True)


def test_many_clusters_err_less_than_few() -> None:
    rows = points(5000, 6)
    errors = [error(rows, *kmeans(rows, k)) for k in (16, 128, 1024, 2000)]
    assert all(b < a for a, b in itertools.pairwise(errors))


def test_as_many_clusters_as_points_are_the_points() -> None:
    rows = points(9, 4)
    centers, labels = kmeans(rows, 20)
    assert torch.equal(centers[labels], rows)


@pytest.mark.parametrize("n", [0, 1])
def test_none_and_one_point(n: int) -> None:
    centers, labels = kmeans(points(n, 3), 8)
    assert (len(centers), len(labels)) == (n, n)


def test_equal_points_need_one_center() -> None:
    rows = torch.full((2000, 3), 0.25)
    centers, labels = kmeans(rows, 1100)
    assert error(rows, centers, labels) == 0


def test_points_without_weight_do_not_move_centers() -> None:
    rows = torch.cat([points(500, 2), points(500, 2) + 100])
    weights = torch.cat([torch.ones(500), torch.zeros(500)])
    alone, _ = kmeans(rows[:500], 8, n_iter=30)
    both, labels = kmeans(rows, 8, weights, n_iter=30)
    assert float(both.amax()) < 10
    assert error(rows[:500], both, labels[:500]) < 1.3 * error(rows[:500], *kmeans(rows[:500], 8, n_iter=30))
    assert len(alone) == 8


def test_the_number_of_threads_does_not_matter() -> None:
    rows, before = points(5000, 12), _cpu.n_threads()
    results = []
    for n_threads in (1, 2):
        _cpu.set_threads(n_threads)
        results.append(kmeans(rows, 1100, n_iter=3))
    _cpu.set_threads(before)
    assert all(torch.equal(c, results[0][0]) and torch.equal(l, results[0][1]) for c, l in results)


def test_instruction_sets_agree() -> None:
    rows, before = points(2000, 24), _cpu.simd_level()
    errors = []
    for level in _cpu.simd_levels():
        assert _cpu.set_simd_level(level)
        errors.append(error(rows, *kmeans(rows, 1100, n_iter=2)))
    _cpu.set_simd_level(before)
    assert errors == pytest.approx([errors[0]] * len(errors), rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.full((3, 2), torch.nan), 2), "points: expected finite numbers"),
        ((torch.zeros(3, 2), 2, torch.tensor([1.0, -1.0, 0.0])), "weights: expected finite numbers of at least 0"),
        ((torch.zeros(3, 2), 2, torch.ones(4)), r"weights: expected shape \[N\], got \[4\] where N=3"),
        ((torch.zeros(3, 2), 0), "expected at least 1 and 0, got 0"),
    ],
)
def test_bad_arguments_are_told(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kmeans(*arguments)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=4, max_size=9), st.integers(1, 3), st.randoms(use_true_random=False))
def test_codebook_is_optimal_among_all(numbers: list[int], n_entries: int, random) -> None:
    values = torch.tensor(sorted(numbers), dtype=torch.float64)
    weights = torch.tensor([random.randint(1, 5) for _ in numbers], dtype=torch.float64)
    entries = optimal_codebook_1d(values, n_entries, weights).double()
    found = float((weights * (values - entries[nearest_entry(values, entries)]).square()).sum())

    def interval_error(begin: int, end: int) -> float:
        w, x = weights[begin:end], values[begin:end]
        return float((w * (x - (w * x).sum() / w.sum()).square()).sum()) if end > begin else 0.0

    cuts = itertools.combinations_with_replacement(range(len(values) + 1), n_entries - 1)
    edges = [(0, *cut, len(values)) for cut in cuts]
    best = min(sum(interval_error(a, b) for a, b in itertools.pairwise(edge)) for edge in edges)
    assert found == pytest.approx(best, abs=1e-6)


def test_codebook_of_many_values_meets_the_high_rate_bound() -> None:
    values = points(60_000, 1)[:, 0]
    assert len(values.unique()) > MAX_EXACT_VALUES
    entries = optimal_codebook_1d(values, 64)
    found = float((values - entries[nearest_entry(values, entries)]).square().mean())
    # Panter and Dite 1951, for the normal distribution.
    assert found == pytest.approx(3**0.5 * torch.pi / 2 / 64**2, rel=0.05)


def test_codebook_of_few_values_is_those_values() -> None:
    entries = optimal_codebook_1d(torch.tensor([3.0, -1.0, 3.0]), 4)
    assert entries.tolist() == [-1, 3, 3, 3]
    assert optimal_codebook_1d(torch.zeros(0), 2).tolist() == [0, 0]


def test_nearest_entry_is_nearest() -> None:
    codebook, values = torch.tensor([-1.0, 0.0, 0.5, 4.0]), points(100, 1)[:, 0] * 3
    assert torch.equal(nearest_entry(values, codebook), (values[:, None] - codebook).abs().argmin(dim=1))
