"""Delaunay tetrahedra: the tetrahedra of Qhull, closed and of positive volume whatever lies on one plane or sphere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from scene3d.ops import delaunay as module
from scene3d.ops.delaunay import delaunay

pytestmark = pytest.mark.skipif(module._cpu is None, reason="the native module is not built")

GRID = 2**20 - 1


def on_the_grid(n: int, seed: int = 0) -> Tensor:
    """Points of whole coordinates that span the grid: nothing is rounded."""
    points = torch.randint(0, GRID + 1, (n, 3), generator=torch.Generator().manual_seed(seed)).double()
    points[0], points[1] = 0, GRID
    return points


def as_sets(tetrahedra: Tensor) -> set[tuple[int, ...]]:
    return set(map(tuple, tetrahedra.sort(dim=1).values.tolist()))


def volumes(points: Tensor, tetrahedra: Tensor) -> Tensor:
    corners = points[tetrahedra].double()
    return torch.linalg.det(corners[:, 1:] - corners[:, :1]) / 6


@pytest.mark.parametrize("n", [4, 5, 40, 1500])
def test_tetrahedra_are_those_of_qhull(n: int):
    spatial = pytest.importorskip("scipy.spatial", reason="Qhull comes with it: pip install scene3d[mesh]")
    points = on_the_grid(n)
    other = torch.from_numpy(spatial.Delaunay(points.numpy()).simplices.astype(np.int64))
    assert as_sets(delaunay(points)) == as_sets(other)


def test_a_lattice_is_filled_without_gaps_or_flat_tetrahedra():
    x = torch.arange(6.0)
    points = torch.stack(torch.meshgrid(x, x, x, indexing="ij"), dim=-1).reshape(-1, 3)
    volume = volumes(points, delaunay(points))
    assert float(volume.min()) > 0.1
    assert float(volume.sum()) == pytest.approx(125)


def test_points_on_one_sphere_are_joined_over_its_hull():
    points = torch.nn.functional.normalize(on_the_grid(300) - GRID / 2, dim=1)
    tetrahedra = delaunay(points)
    assert len(torch.unique(tetrahedra)) == 300
    assert float(volumes(points, tetrahedra).sum()) == pytest.approx(4 / 3 * torch.pi, rel=0.05)
    # Faces of one tetrahedron only are the hull: closed, of Euler number 2.
    faces = torch.cat([tetrahedra[:, [j for j in range(4) if j != k]] for k in range(4)]).sort(dim=1).values
    unique, count = torch.unique(faces, dim=0, return_counts=True)
    hull = unique[count == 1]
    edges = torch.unique(torch.cat([hull[:, [0, 1]], hull[:, [1, 2]], hull[:, [0, 2]]]), dim=0)
    assert int(count.max()) == 2
    assert 300 - len(edges) + len(hull) == 2


def test_equal_points_are_corners_once():
    points = on_the_grid(50)
    doubled = torch.cat([points, points])
    tetrahedra = delaunay(doubled)
    assert as_sets(tetrahedra % 50) == as_sets(delaunay(points))
    assert len(torch.unique(tetrahedra)) == 50


@pytest.mark.parametrize("n", [0, 3, 100])
def test_flat_and_few_points_have_no_tetrahedra(n: int):
    points = on_the_grid(max(n, 2))[:n]
    points[:, 1] = 7
    assert delaunay(points).shape == (0, 4)


def test_points_that_are_no_numbers_are_refused():
    points = on_the_grid(9)
    points[4, 2] = torch.nan
    with pytest.raises(ValueError, match="points: expected finite coordinates"):
        delaunay(points)
    with pytest.raises(ValueError, match="points: expected whole numbers of 20 bits"):
        module._cpu.delaunay(np.full((5, 3), 1 << 20, dtype=np.int32))
