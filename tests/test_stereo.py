"""Stereo: planes of a painted wall in closed form, whatever the threads; Gaussians that are placed and drawn by it."""

from __future__ import annotations

import pytest
import torch
from painted_wall import HEIGHT, NORMAL, WIDTH, cameras_along, wall_capture, wall_depth, wall_points
from tiny_capture import tiny_capture, tiny_scene

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.ops.quaternions import to_rotmat
from scene3d.ops.threads import set_threads
from scene3d.recon.fit import Hooks, fit
from scene3d.recon.settings import FitSettings
from scene3d.recon.stereo import StereoView, first_guess, match_views
from scene3d.recon.stereo_pull import PullSettings, StereoPull, place_gaussians
from scene3d.recon.surface import begin_on_surfaces


@pytest.fixture(scope="module")
def wall_views() -> dict[int, StereoView]:
    return match_views(wall_capture(), wall_points())


def test_stereo_finds_the_wall_and_trusts_it(wall_views: dict[int, StereoView]):
    for view, found in wall_views.items():
        truth = wall_depth(cameras_along((-0.9, -0.4, 0.0, 0.4, 0.9)).select([view]))
        trusted = found.trust > 0
        assert float(trusted[8:-8, 12:-12].float().mean()) > 0.8  # the rest is seen by few
        gap = (found.depth / truth - 1)[trusted].abs()
        assert float(gap.median()) < 1e-3
        assert float((gap < 5e-3).float().mean()) > 0.95
        assert float((found.normals.float()[trusted] @ NORMAL).median()) > 0.995


def test_stereo_does_not_depend_on_threads(wall_views: dict[int, StereoView]):
    set_threads(3)
    again = match_views(wall_capture(), wall_points())
    set_threads(None)
    for view, found in wall_views.items():
        assert torch.equal(found.depth, again[view].depth)
        assert torch.equal(found.trust, again[view].trust)


def test_guesses_are_the_nearest_points_and_spread():
    camera = cameras_along((0.0,))
    forward, eye = camera.viewmats[0, 2, :3], camera.centers()[0]
    guess = first_guess(torch.stack([eye + 2 * forward, eye + 5 * forward]), camera)
    assert guess.shape == (HEIGHT, WIDTH)
    torch.testing.assert_close(guess, torch.full_like(guess, 0.5))
    assert not first_guess(torch.zeros(0, 3), camera).any()


def discs_at(points: torch.Tensor) -> Gaussians:
    n = len(points)
    quats = torch.tensor([1.0, 0.1, 0.0, 0.0]).repeat(n, 1)
    log_scales = torch.tensor([0.05, 0.05, 0.005]).log().repeat(n, 1)
    return Gaussians(points, quats, log_scales, torch.zeros(n), torch.zeros(n, 1, 3), torch.zeros(n, 0, 3))


def true_view(camera: Cameras) -> StereoView:
    normals = NORMAL.expand(HEIGHT, WIDTH, 3).half()
    return StereoView(camera, wall_depth(camera), normals, torch.ones(HEIGHT, WIDTH).half())


def test_gaussians_are_drawn_into_the_wall_and_floating_ones_fade():
    camera = cameras_along((0.0,))
    on_wall = torch.tensor([[0.1, 0.1, 0.04]])
    # A pixel is 1/30 wide there: before the wall, behind it, far before it, far behind it.
    points = torch.cat([on_wall + step * NORMAL for step in (0.05, -0.05, 1.0, -1.0)])
    discs = discs_at(points).map(lambda value: value.clone().requires_grad_())
    pull = StereoPull({0: true_view(camera)}, PullSettings(1.0, 1.0, 1.0))
    pull.penalty(discs, torch.ones(4, dtype=torch.bool), 0).backward()
    across = discs.means.grad @ NORMAL
    assert float(across[0]) > 0
    assert float(across[1]) < 0
    assert across[2:].tolist() == [0, 0]
    assert discs.opacity_logits.grad is not None
    assert [value > 0 for value in discs.opacity_logits.grad.tolist()] == [False, False, True, False]
    assert discs.log_scales.grad is not None
    assert [bool(row.any()) for row in discs.log_scales.grad] == [True, True, False, False]
    before = (to_rotmat(discs.quats)[:2, :, 2] @ NORMAL).abs().sum()
    after = (to_rotmat(discs.quats - 1e-3 * discs.quats.grad)[:2, :, 2] @ NORMAL).abs().sum()
    assert bool(after > before)


def test_gaussians_are_placed_on_the_wall_flat_and_not_too_many(wall_views: dict[int, StereoView]):
    first = discs_at(torch.zeros(3, 3))
    placed = place_gaussians(wall_views, wall_capture(), first, 500, 0)
    sure = sum(float(view.trust.float().square().mean()) for view in wall_views.values()) / len(wall_views)
    assert 175 * sure < len(placed) - 3 <= 350 * sure
    assert torch.equal(placed.means[:3], first.means)
    new = placed.select(torch.arange(3, len(placed)))
    assert float((new.means @ NORMAL).abs().median()) < 6e-3
    assert float((to_rotmat(new.quats)[:, :, 2] @ NORMAL).abs().median()) > 0.99
    assert float((new.log_scales[:, 0] - new.log_scales[:, 2]).exp().min()) > 5


def test_first_gaussians_leave_room_for_those_on_surfaces(wall_views: dict[int, StereoView]):
    few, many = (discs_at(torch.arange(float(n))[:, None].expand(n, 3).contiguous()) for n in (3, 400))
    n_placed = len(place_gaussians(wall_views, wall_capture(), few, 500, 0)) - len(few)
    mixed = place_gaussians(wall_views, wall_capture(), many, 500, 0)
    kept = mixed.means[: len(mixed) - n_placed, 0]
    assert n_placed > 100
    assert len(mixed) <= 375  # three quarters: the rest is for growth
    assert bool((kept.diff() > 0).all())
    assert set(kept.tolist()) <= set(many.means[:, 0].tolist())


def test_fits_by_stereo_are_reproducible():
    scene = tiny_scene()
    capture = tiny_capture(scene)
    settings = FitSettings(max_steps=12, surface=True, surface_method="stereo", sh_degree=0)
    first = scene.splats().to(dtype=torch.float32)

    def run() -> Gaussians:
        placed, objective = begin_on_surfaces(capture, first, settings)
        return fit(capture, placed, settings, Hooks(objective=objective)).gaussians

    result = run()
    assert bool(result.is_finite().all())
    assert torch.equal(result.means, run().means)
