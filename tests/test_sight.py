"""Sight: views that really see a place, in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from painted_wall import HEIGHT, NORMAL, WIDTH, cameras_along, wall_depth

from scene3d.ops.plane_match import BEST_DEG
from scene3d.ops.sight import Sights, sights_of

XS = (-0.9, -0.4, 0.0, 0.4, 0.9)


def wall() -> tuple[list[torch.Tensor], torch.Tensor]:
    cameras = cameras_along(XS)
    return [wall_depth(cameras.select([i])) for i in range(len(XS))], NORMAL.expand(HEIGHT, WIDTH, 3)


def test_what_a_view_says_falls_with_the_angle_from_the_best():
    depths, normals = wall()
    sights = sights_of(depths, normals, cameras_along(XS), 2)
    by_view = dict(zip(sights.views.tolist(), sights.worth, strict=True))
    assert sorted(by_view) == [0, 1, 3, 4]
    cameras = cameras_along(XS)
    middle = torch.zeros(3)
    sight = [torch.nn.functional.normalize(middle - cameras.centers()[i], dim=0) for i in (2, 4)]
    angle = math.degrees(math.acos(float(sight[0] @ sight[1])))
    expected = math.exp(-0.5 * ((angle - BEST_DEG) / 10) ** 2)
    assert float(by_view[4].median()) == pytest.approx(expected, abs=0.1)
    assert float(by_view[1].median()) < float(by_view[0].median())


def test_a_view_with_something_in_front_says_nothing():
    depths, normals = wall()
    depths[4] = 0.5 * depths[4]
    sights = sights_of(depths, normals, cameras_along(XS), 2)
    worth = dict(zip(sights.views.tolist(), sights.worth, strict=True))
    assert not worth[4].any()
    assert float(worth[3].median()) > 0


def test_surfaces_seen_from_the_edge_say_nothing():
    depths, _ = wall()
    across = torch.tensor([0.0, 1.0, 0.0]).expand(HEIGHT, WIDTH, 3)
    straight, flat = (sights_of(depths, n, cameras_along(XS), 2).worth.sum() for n in (wall()[1], across))
    assert float(flat) < 0.5 * float(straight)


def test_views_are_picked_for_places_that_lack_them():
    worth = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.9, 0.0], [0.0, 0.0, 0.0, 0.6], [0.0, 0.0, 0.0, 0.0]])
    sights = Sights(torch.tensor([7, 5, 3, 1]), worth.double())
    assert sights.picked(2, 1.0) == [7, 3]
    assert sights.picked(4, 2.0) == [7, 5, 3]
    assert sights.picked(4, 0.5) == [7, 3]


def test_a_view_of_nothing_has_no_sights():
    depths, normals = wall()
    sights = sights_of([torch.zeros_like(d) for d in depths], normals, cameras_along(XS), 0)
    assert sights.worth.shape[1] == 0
    assert sights.picked(3, 1.0) == []
