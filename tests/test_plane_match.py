"""Plane matching: planes in closed form, what is compared of colours, whom views are compared with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from painted_wall import HEIGHT, NORMAL, WIDTH, cameras_along, wall_depth, wall_photo

from scene3d import _cpu
from scene3d.ops.plane_match import (
    GreyPhotos,
    Search,
    depth_of,
    enlarged,
    less_white,
    partner_views,
    plane_normals,
    planes_of,
)
from scene3d.ops.threads import set_threads


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


def curved(bend: float) -> torch.Tensor:
    """The planes that touch 1 / z = 1 + bend (x^2 + y^2) / 2."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) - HEIGHT / 2, torch.arange(WIDTH) - WIDTH / 2, indexing="ij")
    return torch.stack([1 + bend * (x * x + y * y) / 2, bend * x, bend * y])


def grey_photos(shade: torch.Tensor) -> GreyPhotos:
    return GreyPhotos([shade[..., None].expand(-1, -1, 3)], cameras_along((0.0,)))


def test_votes_take_noise_away_and_leave_a_wall_where_it_is():
    true = torch.stack([torch.full((HEIGHT, WIDTH), v) for v in (1.0, 1e-3, -2e-3)])
    true[0] += 1e-3 * torch.arange(WIDTH) - 2e-3 * torch.arange(HEIGHT)[:, None]
    noise = torch.tensor([1e-3, 1e-4, 1e-4])[:, None, None] * torch.randn(3, HEIGHT, WIDTH)
    photos = grey_photos(torch.full((HEIGHT, WIDTH), 0.5))
    even = photos.vote(0, true + noise, torch.ones(HEIGHT, WIDTH), 4, 0.01)
    assert float((even - true)[0].std()) < 0.35 * float(noise[0].std())
    assert float((even - true)[0].mean().abs()) < 1e-4


def test_votes_come_from_the_same_surface_only():
    planes = torch.zeros(3, HEIGHT, WIDTH)
    planes[0] = 1.0
    planes[0, :, WIDTH // 2 :] = 1.1
    planes[:, 20, 30] = 0.0
    shade = torch.full((HEIGHT, WIDTH), 0.5)
    even = grey_photos(shade).vote(0, planes, torch.ones(HEIGHT, WIDTH), 4, 0.003)
    torch.testing.assert_close(even, planes, rtol=0, atol=1e-5)  # unknown planes stay unknown
    shade[:, WIDTH // 2 :] = 1.0
    painted = planes.clone()
    painted[0, :, WIDTH // 2 :] = 1.003
    even = grey_photos(shade).vote(0, painted, torch.ones(HEIGHT, WIDTH), 2, 0.01)
    torch.testing.assert_close(even, painted, rtol=0, atol=1e-4)


def test_votes_bring_what_bulges_nearer_as_patches_put_it_behind():
    bend = -2e-5
    even = grey_photos(torch.full((HEIGHT, WIDTH), 0.5)).vote(0, curved(bend), torch.ones(HEIGHT, WIDTH), 2, 1.0)
    offsets = torch.tensor([-4.0, -2.0, 0.0, 2.0, 4.0])
    weights = torch.exp(-offsets.square() / (2 * 2.5**2))
    spread = float((weights * offsets.square()).sum() / weights.sum())
    # A line from the voter with 0.8 of its slope and 0.2 of the pixel's own: 0.3 bend d^2 beside the surface.
    expected = -0.3 * bend * 2 * spread
    torch.testing.assert_close(
        (even - curved(bend))[0, 20:-20, 30:-30].mean(), torch.tensor(expected), rtol=0.05, atol=0
    )


def test_votes_are_the_same_for_any_number_of_threads():
    planes, photos = curved(-1e-4), grey_photos(torch.rand(HEIGHT, WIDTH))
    one = photos.vote(0, planes, torch.ones(HEIGHT, WIDTH), 3, 0.01)
    set_threads(3)
    three = photos.vote(0, planes, torch.ones(HEIGHT, WIDTH), 3, 0.01)
    set_threads(None)
    assert torch.equal(one, three)


def test_nothing_is_compared_with_what_a_photo_does_not_show():
    cameras = cameras_along((-0.4, 0.0, 0.4))
    colors = [wall_photo(cameras.select([i])).float() / 255 for i in range(3)]
    nowhere = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    planes = planes_of(wall_depth(cameras.select([1])), NORMAL.expand(HEIGHT, WIDTH, 3), cameras.select([1]))
    cost = [
        GreyPhotos(colors, cameras, shown).match(1, [0, 2], planes, Search(0, 0, 0))[1][20:-20, 30:-30].median()
        for shown in ([None, None, None], [nowhere, None, None], [nowhere, None, nowhere])
    ]
    assert cost[0] < cost[1] < cost[2]
    assert cost[2] == 2


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
