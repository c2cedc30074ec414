"""Plane matching: planes in closed form, what is compared of colours, whom views are compared with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from painted_wall import HEIGHT, NORMAL, WIDTH, cameras_along, wall_depth, wall_photo

from scene3d import _cpu
from scene3d.ops.plane_match import depth_of, enlarged, less_white, partner_views, plane_normals, planes_of


def test_true_planes_stay_where_they_are():
    cameras = cameras_along((-0.4, 0.0, 0.4))
    photos = [
        _cpu.StereoPhoto(
            wall_photo(cameras.select([i]))[..., 0].contiguous(), cameras.Ks[i].double(), cameras.viewmats[i].double()
        )
        for i in range(3)
    ]
    inverse = 1 / wall_depth(cameras.select([1]).to(dtype=torch.float64))
    dy, dx = (torch.from_numpy(np.asarray(g)) for g in np.gradient(inverse.numpy()))
    planes, costs = torch.stack([inverse, dx, dy]).float().contiguous(), torch.empty(HEIGHT, WIDTH)
    _cpu.match_planes(photos[1], [photos[0], photos[2]], 0, 0.0, 0.0, 0, planes, costs)
    assert float(costs[8:-8, 12:-12].max()) < 0.12  # of two photos, not three: 0.1 is for the one that is missing
    wrong = planes * torch.tensor([1.06, 1, 1])[:, None, None]
    _cpu.match_planes(photos[1], [photos[0], photos[2]], 0, 0.0, 0.0, 0, wrong, costs)
    assert float(costs[8:-8, 12:-12].median()) > 0.3


def test_partners_look_from_elsewhere_but_not_from_the_side():
    cameras = cameras_along((0.0, 0.9, 1.4, 9.0)).select([0, 0, 2, 1, 3])
    assert partner_views(cameras, cameras.centers().norm(dim=1))[0] == [3, 2]


def test_enlarged_planes_are_the_same_planes():
    y, x = torch.meshgrid(torch.arange(6) + 0.5, torch.arange(8) + 0.5, indexing="ij")
    small = torch.stack([0.5 + 0.01 * x - 0.02 * y, torch.full_like(x, 0.01), torch.full_like(x, -0.02)])
    large = enlarged(small, 16, 12)
    y, x = torch.meshgrid((torch.arange(12) + 0.5) / 2, (torch.arange(16) + 0.5) / 2, indexing="ij")
    torch.testing.assert_close(large[0], 0.5 + 0.01 * x - 0.02 * y)
    torch.testing.assert_close(large[1], torch.full_like(x, 0.005))


def test_normals_of_planes_face_the_camera():
    camera = cameras_along((0.6,))
    inverse = 1 / wall_depth(camera)
    dx = torch.nn.functional.pad((inverse[:, 2:] - inverse[:, :-2]) / 2, (1, 1))
    dy = torch.nn.functional.pad((inverse[2:] - inverse[:-2]) / 2, (0, 0, 1, 1))
    normals = plane_normals(torch.stack([inverse, dx, dy]), camera)[1:-1, 1:-1]
    torch.testing.assert_close(normals, NORMAL.expand_as(normals), rtol=0, atol=2e-3)


def test_sizes_are_checked():
    grey, K, viewmat = torch.zeros(8, 9, dtype=torch.uint8), torch.eye(3).double(), torch.eye(4).double()
    photo = _cpu.StereoPhoto(grey, K, viewmat)
    with pytest.raises(ValueError, match="expected the size of the photo"):
        _cpu.match_planes(photo, [photo], 1, 0.1, 0.1, 0, torch.zeros(3, 9, 8), torch.zeros(8, 9))
    with pytest.raises(ValueError, match="expected at most 8"):
        _cpu.match_planes(photo, [photo] * 9, 1, 0.1, 0.1, 0, torch.zeros(3, 8, 9), torch.zeros(8, 9))
    with pytest.raises(ValueError, match="4 to 32768 pixels"):
        _cpu.StereoPhoto(torch.zeros(8, 3, dtype=torch.uint8), K, viewmat)


def test_planes_through_depth_and_normals_have_them_again():
    camera = cameras_along((0.6,))
    depth, normals = wall_depth(camera), NORMAL.expand(HEIGHT, WIDTH, 3)
    planes = planes_of(depth, normals, camera)
    torch.testing.assert_close(depth_of(planes), depth)
    torch.testing.assert_close(plane_normals(planes, camera), normals, rtol=0, atol=1e-5)
    torch.testing.assert_close(planes[0, :, :-1] + planes[1, :, :-1], planes[0, :, 1:])


def test_places_without_depth_have_no_plane():
    camera = cameras_along((0.0,))
    planes = planes_of(torch.zeros(HEIGHT, WIDTH), NORMAL.expand(HEIGHT, WIDTH, 3), camera)
    assert not planes.any()
    assert not depth_of(planes).any()


def test_mirrored_white_changes_little_of_what_is_compared():
    wood = torch.tensor([0.4, 0.25, 0.1])
    gleam = less_white(wood + 0.3) - less_white(wood)
    assert float(gleam) < 0.8 * 0.3
    assert float(less_white(torch.tensor([1.0, 1.0, 0.0]))) == pytest.approx(1.0)
    assert float(less_white(torch.ones(3)) - less_white(torch.zeros(3))) == pytest.approx(0.75)
