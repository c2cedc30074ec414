"""What must hold for any scene and any camera."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import Target
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import (
    F64,
    cameras,
    front_camera,
    numbers,
    one_gaussian,
    random_gaussians,
    ring_of_cameras,
    scenes,
    sim3s,
)

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians, cat
from scene3d.ops.rigid import Sim3, transform_cameras, transform_gaussians
from scene3d.render.types import RasterSettings, Render

ALL = RasterSettings(with_depth=True, with_normals=True, background=(0.2, 0.5, 0.7))
# The fixture holds no state that one example could leave to the next.
for_any = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
# A contribution of 1/255 that rounding takes across the threshold changes one pixel by that much, a few in a scene do.
FLIP_SIZE = 1.01 / 255
FLIP_SHARE = 0.01


def assert_same_image(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> None:
    """Equal to rounding, but for few pixels where a contribution crosses its threshold."""
    error = (a - b).abs().flatten()
    assert error.max().item() <= FLIP_SIZE * max(1.0, b.abs().max().item())
    n_flips = int((error > tolerance * max(1.0, b.abs().max().item())).sum())
    assert n_flips <= 3 + FLIP_SHARE * error.numel()


def assert_same_colours(a: Render, b: Render, target: Target) -> None:
    assert_same_image(a.rgb, b.rgb, 5 * target.tolerance)
    assert_same_image(a.alpha, b.alpha, 5 * target.tolerance)


@for_any
@given(scene=scenes(), views=cameras())
def test_rendering_is_deterministic(target: Target, scene: Gaussians, views: Cameras) -> None:
    a, b = target.render(scene, views, ALL), target.render(scene, views, ALL)
    assert torch.equal(a.rgb, b.rgb)
    assert torch.equal(a.stats.radii, b.stats.radii)


@for_any
@given(scene=scenes(), views=cameras())
def test_alpha_lies_between_0_and_1(target: Target, scene: Gaussians, views: Cameras) -> None:
    render = target.render(scene, views, ALL)
    assert render.alpha.min() >= 0
    assert render.alpha.max() <= 1 + target.tolerance


@for_any
@given(scene=scenes(), views=cameras())
def test_depths_lie_between_the_nearest_and_the_farthest(target: Target, scene: Gaussians, views: Cameras) -> None:
    render = target.render(scene, views, ALL)
    for depth in (render.depth, render.median_depth):
        if depth is not None and len(scene):
            z = (scene.means @ views.viewmats[:, 2, :3].T + views.viewmats[:, 2, 3]).clamp_min(0)
            hit = depth[depth > 0]
            assert (hit >= z[z > 0.0].min() * (1 - 1e-3)).all()
            assert (hit <= z.max() * (1 + 1e-3)).all()


@for_any
@given(scene=scenes(), views=cameras())
def test_white_before_white_is_white(target: Target, scene: Gaussians, views: Cameras) -> None:
    white = Gaussians(
        **{**scene.params(), "sh0": torch.full_like(scene.sh0, 0.5 / 0.28209479177387814), "shN": scene.shN * 0}
    )
    rgb = target.render(white, views, RasterSettings(background=(1.0, 1.0, 1.0))).rgb
    torch.testing.assert_close(rgb, torch.ones_like(rgb), rtol=0, atol=5 * target.tolerance)


@for_any
@given(scene=scenes(), views=cameras(), factor=numbers(0.01, 100))
def test_length_and_sign_of_quaternions_do_not_matter(
    target: Target, scene: Gaussians, views: Cameras, factor: float
) -> None:
    other = Gaussians(**{**scene.params(), "quats": -factor * scene.quats})
    assert_same_colours(target.render(other, views, ALL), target.render(scene, views, ALL), target)


@for_any
@given(scene=scenes(), views=cameras(), seed=st.integers(0, 1000))
def test_order_of_gaussians_does_not_matter(target: Target, scene: Gaussians, views: Cameras, seed: int) -> None:
    order = torch.randperm(len(scene), generator=torch.Generator().manual_seed(seed))
    a, b = target.render(scene.select(order), views, ALL), target.render(scene, views, ALL)
    assert_same_colours(a, b, target)
    torch.testing.assert_close(a.stats.radii, b.stats.radii[:, order])


@for_any
@given(scene=scenes(), seed=st.integers(0, 1000), motion=sim3s(max_scale=1.0))
def test_moving_world_and_cameras_together_changes_nothing(
    target: Target, scene: Gaussians, seed: int, motion: Sim3
) -> None:
    views = ring_of_cameras(2, seed=seed)
    a = target.render(transform_gaussians(scene, motion), transform_cameras(views, motion), ALL)
    b = target.render(scene, views, ALL)
    # Float32 loses digits when the moved world is farther from its origin.
    assert_same_image(a.rgb, b.rgb, 100 * target.tolerance)
    assert_same_image(a.alpha, b.alpha, 100 * target.tolerance)


def test_normals_turn_with_the_world(target: Target) -> None:
    scene, views = random_gaussians(30), ring_of_cameras(2)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=F64))[0]
    motion = Sim3(rotation * torch.linalg.det(rotation), torch.tensor([1.0, 2.0, -1.0], dtype=F64))
    a = target.render(transform_gaussians(scene, motion), transform_cameras(views, motion), ALL).normals
    b = target.render(scene, views, ALL).normals
    assert a is not None
    assert b is not None
    assert_same_image(a, b @ motion.rotation.T, 100 * target.tolerance)


@for_any
@given(scene=scenes(), seed=st.integers(0, 1000), scale=numbers(0.05, 20))
def test_scaling_the_world_scales_only_depth(target: Target, scene: Gaussians, seed: int, scale: float) -> None:
    views = ring_of_cameras(2, seed=seed)
    scaling = Sim3(torch.eye(3, dtype=F64), torch.zeros(3, dtype=F64), scale)
    usual, scaled = replace(ALL, near=0.01), replace(ALL, near=0.01 * scale)
    a = target.render(transform_gaussians(scene, scaling), transform_cameras(views, scaling), scaled)
    b = target.render(scene, views, usual)
    assert_same_image(a.rgb, b.rgb, 100 * target.tolerance)
    assert a.depth is not None
    assert b.depth is not None
    assert_same_image(a.depth / scale * b.alpha, b.depth * b.alpha, 100 * target.tolerance)


@pytest.mark.parametrize(
    ("mean", "opacity"),
    [((0, 0, -3), 0.9), ((0, 0, 0.005), 0.9), ((0, 0, 60), 0.9), ((0, 0, 4), 0.003), ((500, 0, 4), 0.9)],
    ids=["behind", "too near", "too far", "faint", "beside the image"],
)
def test_culled_gaussians_change_nothing(target: Target, mean: tuple[float, float, float], opacity: float) -> None:
    scene, limits = cat([one_gaussian(), one_gaussian(mean=(0.5, 0.2, 5))]), replace(ALL, far=50.0)
    culled = one_gaussian(mean=mean, opacity=opacity, scales=(0.5, 0.5, 0.5))
    a = target.render(cat([scene, culled]), front_camera(), limits)
    b = target.render(scene, front_camera(), limits)
    assert torch.equal(a.rgb, b.rgb)
    assert a.stats.radii[0, 2] == 0
    assert a.stats.n_culled_nonfinite == 0


def test_no_gaussians_show_the_background(target: Target) -> None:
    render = target.render(random_gaussians(0), ring_of_cameras(2), ALL)
    assert torch.equal(render.rgb, torch.tensor(ALL.background, dtype=target.dtype).double().expand_as(render.rgb))
    assert render.depth is not None
    assert not render.depth.any()
    assert render.stats.radii.shape == (2, 0)


def test_an_image_may_be_one_pixel(target: Target) -> None:
    render = target.render(one_gaussian(opacity=0.7), front_camera(1, 1, focal=1.0))
    assert render.rgb.shape == (1, 1, 1, 3)
    assert render.alpha.item() == pytest.approx(0.7, abs=target.tolerance)


def test_views_of_one_call_equal_views_on_their_own(target: Target) -> None:
    scene, views = random_gaussians(40), ring_of_cameras(3)
    together = target.render(scene, views, ALL)
    for i in range(3):
        alone = target.render(scene, views.select([i]), ALL)
        assert torch.equal(together.rgb[i], alone.rgb[0])
        assert torch.equal(together.stats.radii[i], alone.stats.radii[0])


@pytest.mark.parametrize(("left", "top"), [(1, 0), (5, 3), (16, 16)])
def test_a_crop_equals_that_part_of_the_image(target: Target, left: int, top: int) -> None:
    scene = random_gaussians(60, spread=0.3)  # All centres inside of the image: the clamp of the Jacobian is at rest.
    scene = Gaussians(**{**scene.params(), "means": scene.means + torch.tensor([0.0, 0.0, 4.0], dtype=F64)})
    full = front_camera(50, 44)
    K = full.Ks.clone()
    K[:, 0, 2] -= left
    K[:, 1, 2] -= top
    crop = Cameras(full.viewmats, K, full.sizes - torch.tensor([[left, top]]))
    a, b = target.render(scene, crop, ALL).rgb, target.render(scene, full, ALL).rgb
    assert_same_image(a, b[:, top:, left:], 5 * target.tolerance)


def test_nearly_empty_tiles_and_odd_sizes_are_filled(target: Target) -> None:
    wall = one_gaussian(mean=(0, 0, 1), scales=(50, 50, 0.01), opacity=0.9)
    for width, height in [(1, 40), (40, 1), (15, 17), (16, 16), (33, 31)]:
        alpha = target.render(wall, front_camera(width, height)).alpha
        torch.testing.assert_close(alpha, torch.full_like(alpha, 0.9), rtol=0, atol=1e-3)
