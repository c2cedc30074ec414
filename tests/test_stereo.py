"""Stereo: planes of a painted wall in closed form, whatever the threads; Gaussians that are placed and drawn by it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_capture import tiny_capture, tiny_scene

from scene3d import _cpu
from scene3d.core.cameras import Cameras, look_at
from scene3d.core.capture import Capture, Photo
from scene3d.core.gaussians import Gaussians
from scene3d.ops.quaternions import to_rotmat
from scene3d.ops.threads import set_threads
from scene3d.recon.fit import Hooks, fit
from scene3d.recon.settings import FitSettings
from scene3d.recon.stereo import (
    StereoView,
    enlarged,
    first_guess,
    match_views,
    partner_views,
    plane_normals,
)
from scene3d.recon.stereo_pull import PullSettings, StereoPull, place_gaussians
from scene3d.recon.surface import begin_on_surfaces
from scene3d.render.planes import rays_of
from scene3d.render.surfels import as_discs

WIDTH, HEIGHT = 96, 64
NORMAL = torch.tensor([0.4, 0.0, -1.0]) / math.hypot(1, 0.4)


def cameras_along(xs: tuple[float, ...]) -> Cameras:
    up = torch.tensor([0.0, -1.0, 0.0])
    viewmats = [look_at(torch.tensor([x, 0.2 * i - 0.3, -3.0]), torch.zeros(3), up) for i, x in enumerate(xs)]
    K = torch.tensor([[90.0, 0, WIDTH / 2], [0, 90, HEIGHT / 2], [0, 0, 1]])
    n = len(xs)
    return Cameras(torch.stack(viewmats), K.repeat(n, 1, 1), torch.tensor([[WIDTH, HEIGHT]]).repeat(n, 1))


def wall_depth(camera: Cameras) -> torch.Tensor:
    """Of the plane z = 0.4 x."""
    rays, eye = rays_of(camera, camera.Ks), camera.centers()[0]
    return (0.4 * eye[0] - eye[2]) / (rays[..., 2] - 0.4 * rays[..., 0])


def wall_photo(camera: Cameras) -> torch.Tensor:
    """What is painted on the wall, [H, W, 3] uint8."""
    points = camera.centers()[0] + rays_of(camera, camera.Ks) * wall_depth(camera)[..., None]
    x, y = points[..., 0], points[..., 1]
    value = 0.5 + 0.2 * (25 * x + 2 * (3 * y).sin()).sin() + 0.2 * (29 * y + 2 * (5 * x).cos()).cos()
    return (255 * value).round().to(torch.uint8)[..., None].expand(-1, -1, 3).contiguous()


def wall_capture() -> Capture:
    cameras = cameras_along((-0.9, -0.4, 0.0, 0.4, 0.9))
    photos = [Photo(wall_photo(cameras.select([i]))) for i in range(5)]
    base = tiny_capture(tiny_scene())
    return replace(base, cameras=cameras, train=(0, 1, 2, 3, 4), test=(), load=lambda i: photos[i])


def wall_points() -> torch.Tensor:
    """Rough ones: up to 5 % off."""
    generator = torch.Generator().manual_seed(3)
    xy = 3 * torch.rand(60, 2, generator=generator) - 1.5
    off = 0.15 * (2 * torch.rand(60, generator=generator) - 1)
    return torch.stack([xy[:, 0], xy[:, 1], 0.4 * xy[:, 0] + off], dim=1)


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


def test_sizes_are_checked():
    grey, K, viewmat = torch.zeros(8, 9, dtype=torch.uint8), torch.eye(3).double(), torch.eye(4).double()
    photo = _cpu.StereoPhoto(grey, K, viewmat)
    with pytest.raises(ValueError, match="expected the size of the photo"):
        _cpu.match_planes(photo, [photo], 1, 0.1, 0.1, 0, torch.zeros(3, 9, 8), torch.zeros(8, 9))
    with pytest.raises(ValueError, match="expected at most 8"):
        _cpu.match_planes(photo, [photo] * 9, 1, 0.1, 0.1, 0, torch.zeros(3, 8, 9), torch.zeros(8, 9))
    with pytest.raises(ValueError, match="4 to 32768 pixels"):
        _cpu.StereoPhoto(torch.zeros(8, 3, dtype=torch.uint8), K, viewmat)


def test_partners_look_from_elsewhere_but_not_from_the_side():
    cameras = cameras_along((0.0, 0.9, 1.4, 9.0)).select([0, 0, 2, 1, 3])
    assert partner_views(cameras, torch.zeros(1, 3))[0] == [3, 2]


def test_guesses_are_the_nearest_points_and_spread():
    camera = cameras_along((0.0,))
    forward, eye = camera.viewmats[0, 2, :3], camera.centers()[0]
    guess = first_guess(torch.stack([eye + 2 * forward, eye + 5 * forward]), camera)
    assert guess.shape == (HEIGHT, WIDTH)
    torch.testing.assert_close(guess, torch.full_like(guess, 0.5))
    assert not first_guess(torch.zeros(0, 3), camera).any()


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
    assert 150 < len(placed) <= 300
    assert torch.equal(placed.means[:3], first.means)
    new = placed.select(torch.arange(3, len(placed)))
    assert float((new.means @ NORMAL).abs().median()) < 6e-3
    assert float((to_rotmat(new.quats)[:, :, 2] @ NORMAL).abs().median()) > 0.99
    assert float((new.log_scales[:, 0] - new.log_scales[:, 2]).exp().min()) > 5


def test_discs_are_the_same_gaussians_with_the_shortest_axis_last():
    generator = torch.Generator().manual_seed(0)
    g = discs_at(torch.randn(20, 3, generator=generator))
    g = replace(g, quats=torch.randn(20, 4, generator=generator), log_scales=torch.randn(20, 3, generator=generator))

    def covariances(x: Gaussians) -> torch.Tensor:
        half = to_rotmat(x.quats) * x.scales[:, None]
        return half @ half.transpose(1, 2)

    discs = as_discs(g)
    assert bool((discs.log_scales.diff(dim=1) <= 0).all())
    torch.testing.assert_close(covariances(discs), covariances(g), rtol=1e-4, atol=1e-5)


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
