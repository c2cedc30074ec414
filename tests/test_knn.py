"""Nearest neighbours against all distances, and where points coincide, are few or broken."""

import pytest
import torch

from scene3d.ops import knn


def scattered(n: int, seed: int = 0) -> torch.Tensor:
    """Clusters, outliers and duplicates, as structure from motion gives."""
    g = torch.Generator().manual_seed(seed)
    points = torch.randn(n, 3, generator=g) * (torch.rand(n, 1, generator=g) * 6 - 4).exp()
    points[: n // 10] = points[n // 10 : 2 * (n // 10)]
    return points


@pytest.mark.parametrize("k", [1, 4, 9])
@pytest.mark.parametrize("n", [1, 7, 9, 700])
def test_neighbours_are_those_of_all_distances(n: int, k: int) -> None:
    points, queries = scattered(n), scattered(50, seed=1)
    distances, indices = knn.nearest(points, queries, k)
    expected = torch.cdist(queries.double(), points.double()).sort(dim=1).values[:, :k]
    n_found = min(n, k)
    torch.testing.assert_close(distances[:, :n_found].double(), expected, rtol=1e-5, atol=1e-6)
    found = (points[indices[:, :n_found]] - queries[:, None]).norm(dim=2)
    torch.testing.assert_close(found, distances[:, :n_found], rtol=1e-5, atol=1e-6)
    assert bool((indices[:, n_found:] == -1).all())
    assert bool(distances[:, n_found:].isinf().all())


def test_equal_distances_come_in_the_order_of_indices() -> None:
    _, indices = knn.nearest(torch.zeros(20, 3), torch.zeros(1, 3), 5)
    assert indices.tolist() == [[0, 1, 2, 3, 4]]


def test_mean_distance_leaves_out_the_point_itself() -> None:
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 2]])
    expected = (torch.tensor([1.0 + 4 + 4]) / 3).sqrt()
    torch.testing.assert_close(knn.mean_neighbor_distance(points)[:1], expected)


def test_mean_distance_of_points_in_one_place_is_zero() -> None:
    assert knn.mean_neighbor_distance(torch.ones(30, 3)).tolist() == [0.0] * 30


def test_a_point_alone_has_distance_zero() -> None:
    assert knn.mean_neighbor_distance(torch.ones(1, 3)).tolist() == [0.0]
    assert knn.mean_neighbor_distance(torch.ones(0, 3)).shape == (0,)


def test_points_that_are_not_finite_are_refused() -> None:
    points = torch.zeros(5, 3)
    points[3, 1] = torch.nan
    with pytest.raises(ValueError, match=r"points: expected finite coordinates, got .* in row 3"):
        knn.nearest(points, torch.zeros(1, 3), 1)


def test_the_torch_way_agrees_with_the_native_one(monkeypatch: pytest.MonkeyPatch) -> None:
    points = scattered(300)
    native = knn.mean_neighbor_distance(points)
    monkeypatch.setattr(knn, "_cpu", None)
    torch.testing.assert_close(knn.mean_neighbor_distance(points), native)
