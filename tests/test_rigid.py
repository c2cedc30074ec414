"""Similarity transforms: inverse, chain, and what cameras see."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from strategies import F64, random_gaussians, ring_of_cameras, sim3s

from scene3d.ops import covariance, rigid
from scene3d.ops.rigid import Sim3

POINTS = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=F64)


@given(a_from_b=sim3s())
def test_the_inverse_goes_back(a_from_b: Sim3) -> None:
    there = rigid.transform_points(POINTS, a_from_b)
    torch.testing.assert_close(rigid.transform_points(there, a_from_b.inverse()), POINTS, rtol=0, atol=1e-9)


@given(a_from_b=sim3s(), b_from_c=sim3s())
def test_transforms_chain(a_from_b: Sim3, b_from_c: Sim3) -> None:
    one_by_one = rigid.transform_points(rigid.transform_points(POINTS, b_from_c), a_from_b)
    torch.testing.assert_close(rigid.transform_points(POINTS, a_from_b.compose(b_from_c)), one_by_one)


@given(motion=sim3s())
def test_moved_cameras_see_moved_points_in_the_same_pixels(motion: Sim3) -> None:
    views = ring_of_cameras(3)
    moved = rigid.transform_cameras(views, motion)
    before = POINTS @ views.viewmats[:, :3, :3].transpose(1, 2) + views.viewmats[:, None, :3, 3]
    points = rigid.transform_points(POINTS, motion)
    after = points @ moved.viewmats[:, :3, :3].transpose(1, 2) + moved.viewmats[:, None, :3, 3]
    torch.testing.assert_close(after, motion.scale * before, rtol=1e-9, atol=1e-8)


@given(motion=sim3s())
def test_moved_cameras_stay_rigid_and_stand_where_their_centres_went(motion: Sim3) -> None:
    views = ring_of_cameras(3)
    moved = rigid.transform_cameras(views, motion)
    rotations = moved.viewmats[:, :3, :3]
    # The cameras of the ring are rounded to float32.
    torch.testing.assert_close(
        rotations @ rotations.transpose(1, 2), torch.eye(3, dtype=F64).expand(3, 3, 3), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(moved.centers(), rigid.transform_points(views.centers(), motion), rtol=1e-6, atol=1e-5)


@given(motion=sim3s())
def test_covariances_turn_and_grow(motion: Sim3) -> None:
    scene = random_gaussians(5)
    moved = rigid.transform_gaussians(scene, motion)
    linear = motion.scale * motion.rotation
    expected = linear @ covariance.from_quats_scales(scene.quats, scene.scales) @ linear.T
    torch.testing.assert_close(covariance.from_quats_scales(moved.quats, moved.scales), expected)


@given(motion=sim3s())
def test_gaussians_come_back_as_they_were(motion: Sim3) -> None:
    scene = random_gaussians(5)
    back = rigid.transform_gaussians(rigid.transform_gaussians(scene, motion), motion.inverse())
    for name in ("means", "log_scales", "opacity_logits", "sh0", "shN"):
        torch.testing.assert_close(getattr(back, name), getattr(scene, name), rtol=0, atol=1e-8)
    same = [covariance.from_quats_scales(g.quats, g.scales) for g in (back, scene)]
    torch.testing.assert_close(same[0], same[1], rtol=0, atol=1e-9)


def test_the_dtype_of_the_gaussians_stays() -> None:
    moved = rigid.transform_gaussians(random_gaussians(3).to(dtype=torch.float32), rigid.identity())
    assert moved.dtype == torch.float32
    assert moved.shN.dtype == torch.float32


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_scales_that_are_not_positive_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scale: expected a positive number"):
        Sim3(torch.eye(3), torch.zeros(3), scale)
