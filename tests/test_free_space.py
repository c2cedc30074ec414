from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.capture import Capture, Photo
from scene3d.core.warp import Warp
from scene3d.ops.occupancy import cell_centers
from scene3d.ops.pinhole import in_image, to_pixels
from scene3d.ops.warp import world_points
from scene3d.recon.free_space import BLIND, LEAST_POINTS, SAFE, cells_to_fill, clear_depths

SIDE = 32
DISTANCE = 4.0


def wall_capture(n_points: int = 500) -> Capture:
    """Two cameras, right and left of the origin, that look at it from DISTANCE; points within 1 of it."""
    up = torch.tensor([0.0, 0.0, 1.0])
    eyes = [torch.tensor([DISTANCE, 0.0, 0.0]), torch.tensor([0.0, -DISTANCE, 0.0])]
    viewmats = torch.stack([look_at(eye, torch.zeros(3), up) for eye in eyes])
    K = torch.tensor([[40.0, 0, SIDE / 2], [0, 40.0, SIDE / 2], [0, 0, 1]])
    points = 2 * torch.rand(n_points, 3, generator=torch.Generator().manual_seed(0)) - 1
    return Capture(
        Cameras(viewmats, K.repeat(2, 1, 1), torch.tensor([[SIDE, SIDE]] * 2)),
        lambda i: Photo(torch.zeros(SIDE, SIDE, 3, dtype=torch.uint8)),
        train=(0, 1),
        test=(),
        source=Path("wall"),
        points=points,
        point_colors=torch.full((n_points, 3), 128, dtype=torch.uint8),
    )


def test_nothing_stands_before_the_nearest_points_of_a_photo() -> None:
    capture = wall_capture()
    depths = clear_depths(capture.cameras, capture.points)
    # Points begin at depth 3; one in a hundred may be wrong.
    assert ((depths > SAFE * (DISTANCE - 1)) & (depths < SAFE * (DISTANCE - 0.9))).all()


def test_a_few_wrong_points_before_the_lens_change_little() -> None:
    capture = wall_capture()
    wrong = torch.tensor([[DISTANCE - 0.1, 0.0, 0.0]]).repeat(3, 1)
    depths = clear_depths(capture.cameras, torch.cat([capture.points, wrong]))
    assert depths[0] == pytest.approx(float(clear_depths(capture.cameras, capture.points)[0]), rel=0.02)


def test_without_points_a_part_of_the_distance_to_what_cameras_look_at_is_free() -> None:
    cameras = wall_capture().cameras
    assert clear_depths(cameras, torch.zeros(0, 3)) == pytest.approx(BLIND * DISTANCE, rel=1e-3)


def test_a_photo_without_points_is_clear_as_far_as_all_others() -> None:
    capture = wall_capture(LEAST_POINTS + 40)
    away = replace(capture.cameras, viewmats=capture.cameras.viewmats.clone())
    away.viewmats[1] = look_at(
        torch.tensor([0.0, -DISTANCE, 0.0]), torch.tensor([0.0, -8.0, 0.0]), torch.tensor([0, 0, 1.0])
    )
    depths = clear_depths(away, capture.points)
    assert depths[1] <= depths[0]


@pytest.mark.parametrize("warp", [None, Warp("cube", torch.tensor([[0.5, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 0.5, 0]]))])
def test_cells_are_free_in_the_near_part_of_a_frustum_only(warp: Warp | None) -> None:
    capture, box = wall_capture(), torch.tensor([[-4.5, -4.5, -2.0], [4.5, 4.5, 2.0]])
    if warp is not None:
        box = torch.tensor([[-2.0] * 3, [2.0] * 3])
    cells = cells_to_fill(capture, box, warp)
    places = cell_centers((cells.shape[0], cells.shape[1], cells.shape[2]), box).reshape(-1, 3)
    places = places if warp is None else world_points(warp, places)
    expected = torch.ones(len(places), dtype=torch.bool)
    for i, depth in enumerate(clear_depths(capture.cameras, capture.points).tolist()):
        pixels, z = to_pixels(places, capture.cameras.viewmats[i], capture.cameras.Ks[i])
        expected &= ~(in_image(pixels, z, SIDE, SIDE) & (z < depth))
    assert torch.equal(cells.reshape(-1), expected)
    assert 0.9 < float(cells.float().mean()) < 0.999
    near_origin = (places.abs() < 1).all(dim=1)
    assert cells.reshape(-1)[near_origin].all()
