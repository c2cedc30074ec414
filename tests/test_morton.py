"""Order along the Z-curve."""

from __future__ import annotations

import torch

from scene3d.ops import morton


def test_bits_of_the_axes_interleave() -> None:
    top = 2**morton.BITS - 1
    corners = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [2, 0, 0], [top, top, top]]).double()
    assert morton.codes(corners).tolist() == [0, 1, 2, 4, 8, 2**63 - 1]


def test_neighbours_in_the_order_are_near() -> None:
    points = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0))
    ordered = points[morton.order(points)]
    step, before = (float((p[1:] - p[:-1]).norm(dim=1).mean()) for p in (ordered, points))
    assert step < 0.2 * before


def test_points_in_one_place_keep_their_order() -> None:
    assert morton.order(torch.full((5, 3), 2.5)).tolist() == [0, 1, 2, 3, 4]


def test_no_points_have_no_order() -> None:
    assert morton.order(torch.zeros(0, 3)).tolist() == []


def test_cells_come_back() -> None:
    cells = torch.randint(0, 2**21, (200, 3), generator=torch.Generator().manual_seed(0))
    assert torch.equal(morton.deinterleave(morton.interleave(cells)), cells)
