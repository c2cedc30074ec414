"""First Gaussians: from points, from silhouettes, from nothing."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_capture import tiny_cameras, tiny_capture, tiny_scene

from scene3d.core.capture import Capture, Photo
from scene3d.recon.initialize import (
    MIN_POINTS,
    RANDOM_POINTS,
    from_points,
    initialize,
    random_points,
    usable_points,
)
from scene3d.recon.scene_frame import focus_point, scene_extent


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def grid_points(n: int = 6) -> torch.Tensor:
    axis = torch.arange(float(n))
    return torch.cartesian_prod(axis, axis, axis)


def test_gaussian_is_as_large_as_the_distance_of_its_neighbours():
    points = 0.5 * grid_points()
    gaussians = from_points(points, torch.rand(len(points), 3), generator())
    torch.testing.assert_close(gaussians.scales, torch.full((len(points), 3), 0.5))
    torch.testing.assert_close(gaussians.opacities, torch.full((len(points),), 0.1))


def test_lonely_point_does_not_become_fog():
    points = torch.cat([grid_points(), torch.tensor([[1e4, 0.0, 0.0]])])
    gaussians = from_points(points, torch.rand(len(points), 3), generator())
    assert float(gaussians.scales.max()) == pytest.approx(10.0, rel=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_very_few_points_give_finite_gaussians(n: int):
    gaussians = from_points(torch.eye(3)[:n], torch.rand(n, 3), generator())
    assert len(gaussians) == n
    assert bool(gaussians.is_finite().all())


def test_points_of_the_capture_keep_place_and_colour():
    points = grid_points() - 2.5
    colors = torch.randint(0, 256, (len(points), 3), dtype=torch.uint8, generator=generator())
    capture = replace(tiny_capture(tiny_scene()), points=points, point_colors=colors)
    gaussians = initialize(capture, 0)
    assert torch.equal(gaussians.means, points)
    torch.testing.assert_close(gaussians.sh0[:, 0] * 0.28209479177387814 + 0.5, colors / 255)


def test_bad_and_repeated_points_are_left_out():
    points = torch.tensor([[0.0, 0, 0], [math.nan, 0, 0], [1.0, 0, 0], [0.0, 0, 0], [math.inf, 1, 1]])
    colors = torch.arange(5, dtype=torch.uint8)[:, None].repeat(1, 3)
    kept, kept_colors = usable_points(replace(tiny_capture(tiny_scene()), points=points, point_colors=colors))
    assert kept.tolist() == [[0, 0, 0], [1, 0, 0]]
    torch.testing.assert_close(kept_colors[:, 0] * 255, torch.tensor([0.0, 2.0]))


def test_capture_without_points_starts_from_random_ones_that_cameras_see():
    capture = tiny_capture(tiny_scene())
    gaussians = initialize(capture, 0)
    assert len(gaussians) == RANDOM_POINTS
    cameras = tiny_cameras().select(capture.train)
    in_cam = (
        torch.einsum("cij,nj->cni", cameras.viewmats[:, :3, :3], gaussians.means) + cameras.viewmats[:, None, :3, 3]
    )
    pixels = torch.einsum("cij,cnj->cni", cameras.Ks, in_cam)
    pixels = pixels[..., :2] / pixels[..., 2:]
    inside = (in_cam[..., 2] > 0) & (pixels > 0).all(2) & (pixels < cameras.sizes[0]).all(2)
    assert bool(inside.any(dim=0).all())


def test_few_points_are_kept_and_joined_by_random_ones():
    points = torch.rand(MIN_POINTS - 1, 3)
    capture = replace(tiny_capture(tiny_scene()), points=points, point_colors=torch.zeros_like(points).byte())
    gaussians = initialize(capture, 0)
    assert len(gaussians) == RANDOM_POINTS + MIN_POINTS - 1
    assert torch.equal(gaussians.means[: len(points)], points)


def test_same_seed_gives_the_same_gaussians_and_another_seed_others():
    capture = tiny_capture(tiny_scene())
    first, again, other = (initialize(capture, seed).means for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_silhouettes_hold_random_points_inside():
    cameras = tiny_cameras(12)
    alpha = torch.zeros(24, 32, dtype=torch.uint8)
    alpha[9:15, 13:19] = 255
    rgb = torch.full((24, 32, 3), 200, dtype=torch.uint8)
    capture = Capture(cameras, lambda i: Photo(rgb, alpha), train=tuple(range(12)), source=Path("tiny"), has_alpha=True)
    points, colors = random_points(capture, 200, generator())
    assert len(points) == 200
    # A silhouette of 6 of 32 pixels at distance 4.1 and focal length 30 is 0.82 wide.
    assert float(points.norm(dim=1).max()) < 1.0
    torch.testing.assert_close(colors, torch.full_like(colors, 200 / 255), rtol=0, atol=0.02)


def test_focus_is_where_optical_axes_meet():
    torch.testing.assert_close(focus_point(tiny_cameras()), torch.zeros(3), rtol=0, atol=0.01)


def test_focus_of_parallel_cameras_lies_in_front_of_them():
    cameras = tiny_cameras(1).select([0, 0, 0])
    shifts = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [-0.5, 0, 0]])
    cameras.viewmats[:, :3, 3] += shifts
    focus = focus_point(cameras)
    in_cam = cameras.viewmats[:, :3, :3] @ focus + cameras.viewmats[:, :3, 3]
    assert bool((in_cam[:, 2] > 0).all())


def test_extent_is_the_radius_of_the_cameras_and_one_for_a_single_one():
    assert scene_extent(tiny_cameras()) == pytest.approx(1.1 * 4, rel=1e-5)
    assert scene_extent(tiny_cameras(1)) == 1.0
