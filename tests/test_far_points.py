"""Points on a far sphere: where photos agree about a direction, and only there."""

from dataclasses import replace
from pathlib import Path

import torch
from tiny_capture import tiny_cameras
from torch import Tensor

from scene3d.core.capture import Capture, Photo
from scene3d.recon.far_points import PARALLAX, far_points
from scene3d.recon.scene_frame import scene_extent

N_VIEWS = 24


def rays(view: int) -> tuple[Tensor, Tensor]:
    """Centre of a camera and the directions of its pixels [H, W, 3] in the world."""
    cameras = tiny_cameras(N_VIEWS)
    K, viewmat = cameras.Ks[view], cameras.viewmats[view]
    width, height = cameras.sizes[view].tolist()
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    in_cam = torch.stack([(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1], torch.ones_like(rows)], dim=2)
    directions = torch.nn.functional.normalize(in_cam @ viewmat[:3, :3], dim=2)
    return cameras.centers()[view], directions


def smooth_colors(values: Tensor) -> Tensor:
    return 0.5 + 0.4 * torch.sin(torch.tensor([2.0, 3.0, 2.5]) * values + torch.tensor([0.0, 1.0, 2.0]))


def photo_of_environment(view: int) -> Tensor:
    return smooth_colors(rays(view)[1])


def photo_of_room(view: int) -> Tensor:
    """The inside of a sphere of radius 6, just behind the cameras, painted finely."""
    center, directions = rays(view)
    along = (directions * center).sum(dim=2, keepdim=True)
    distance = -along + (along**2 - center.dot(center) + 36).sqrt()
    return smooth_colors(4 * (center + distance * directions))


def capture_of(photo) -> Capture:
    def load(view: int) -> Photo:
        return Photo((255 * photo(view)).round().to(torch.uint8))

    return Capture(tiny_cameras(N_VIEWS), load, train=tuple(range(N_VIEWS)), source=Path("made"))


def test_environment_at_infinity_gives_far_points_of_its_colours():
    points, colors = far_points(capture_of(photo_of_environment))
    assert len(points) > 100
    directions = torch.nn.functional.normalize(points, dim=1)
    torch.testing.assert_close(colors, smooth_colors(directions), rtol=0, atol=0.15)


def test_far_points_hardly_move_when_the_camera_crosses_the_scene():
    points, _ = far_points(capture_of(photo_of_environment))
    cameras = tiny_cameras(N_VIEWS)
    angle = scene_extent(cameras) / points.norm(dim=1)
    assert bool((angle * cameras.Ks[0, 0, 0] < 1.01 * PARALLAX).all())


def test_room_around_the_cameras_is_not_far():
    assert len(far_points(capture_of(photo_of_room))[0]) == 0


def test_photos_with_alpha_have_nothing_behind_the_subject():
    assert len(far_points(replace(capture_of(photo_of_environment), has_alpha=True))[0]) == 0
