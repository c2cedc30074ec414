"""Surface fitting: planes in closed form, losses that know right from wrong, gradients, the fit."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny_capture import tiny_capture, tiny_scene

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.errors import CaptureError
from scene3d.core.gaussians import Gaussians
from scene3d.ops.quaternions import to_rotmat
from scene3d.recon.fit import Hooks, fit
from scene3d.recon.settings import FitSettings
from scene3d.recon.surface import SurfaceSettings, edge_strength, lay_flat, normal_loss, surface_objective
from scene3d.recon.view_pairs import neighbor_table, pair_losses
from scene3d.render.planes import Planes, depth_normals, plane_distances, rays_of, render_planes
from scene3d.render.ray_planes import plane_coefficients, render_ray_planes
from scene3d.render.types import RasterSettings

SIDE = 48


def camera_at(x: float, dtype: torch.dtype = torch.float32) -> Cameras:
    eye = torch.tensor([x, -0.3, -3.0], dtype=dtype)
    viewmat = look_at(eye, torch.zeros(3, dtype=dtype), torch.tensor([0.0, -1.0, 0.0], dtype=dtype))
    K = torch.tensor([[60.0, 0, SIDE / 2], [0, 60, SIDE / 2], [0, 0, 1]], dtype=dtype)
    return Cameras(viewmat[None], K[None], torch.tensor([[SIDE, SIDE]]))


def wall(dtype: torch.dtype = torch.float32) -> Gaussians:
    """Flat, opaque, overlapping discs on the tilted plane z = 0.4 x, far apart compared with their thickness."""
    u, v = torch.meshgrid(torch.arange(-12, 13) * 0.12, torch.arange(-12, 13) * 0.12, indexing="ij")
    u, v = u.reshape(-1), v.reshape(-1)
    along = 1 / math.hypot(1, 0.4)
    means = torch.stack([u * along, v, 0.4 * u * along], dim=1)
    angle = -math.atan2(0.4, 1.0)
    quats = torch.tensor([math.cos(angle / 2), 0, math.sin(angle / 2), 0]).repeat(len(u), 1)
    log_scales = torch.tensor([0.12, 0.12, 1e-3]).log().repeat(len(u), 1)
    n = len(u)
    gaussians = Gaussians(means, quats, log_scales, torch.full((n,), 3.0), torch.zeros(n, 1, 3), torch.zeros(n, 0, 3))
    return gaussians.to(dtype=dtype)


def exact_depth(camera: Cameras, slope: float = 0.4) -> torch.Tensor:
    rays, eye = rays_of(camera, camera.Ks), camera.centers()[0]
    return (slope * eye[0] - eye[2]) / (rays[..., 2] - slope * rays[..., 0])


def exact_planes(camera: Cameras) -> Planes:
    normal = torch.tensor([0.4, 0.0, -1.0], dtype=camera.Ks.dtype)
    normal = normal / normal.norm()
    return Planes(normal.expand(SIDE, SIDE, 3), exact_depth(camera), torch.ones(SIDE, SIDE, dtype=camera.Ks.dtype))


def pattern(camera: Cameras) -> torch.Tensor:
    """A photo of the wall with a smooth pattern painted on it."""
    points = camera.centers()[0] + rays_of(camera, camera.Ks) * exact_depth(camera)[..., None]
    return 0.5 + 0.25 * (9 * points[..., 0]).sin() + 0.25 * (7 * points[..., 1] + 1).cos()


def test_depth_of_flat_splats_is_that_of_their_plane():
    camera = camera_at(0.5)
    planes = render_planes(wall(), camera, RasterSettings())
    inner = (slice(14, 34), slice(14, 34))
    torch.testing.assert_close(planes.depth[inner], exact_depth(camera)[inner], rtol=2e-3, atol=0)
    normals = torch.nn.functional.normalize(planes.normals[inner], dim=-1)
    assert float((normals @ torch.tensor([0.4, 0.0, -1.0]) / math.hypot(1, 0.4)).min()) > 0.999


def test_distances_are_those_of_the_planes():
    camera = camera_at(0.5)
    eye = camera.centers()[0]
    expected = abs(0.4 * float(eye[0]) - float(eye[2])) / math.hypot(1, 0.4)
    torch.testing.assert_close(plane_distances(wall(), camera), torch.full((625,), expected), rtol=1e-4, atol=0)


def test_normals_of_a_plane_are_its_normal_facing_the_camera():
    camera = camera_at(-0.4, torch.float64)
    normals, known = depth_normals(exact_depth(camera), camera)
    expected = torch.tensor([0.4, 0, -1.0], dtype=torch.float64) / math.hypot(1, 0.4)
    assert int(known.sum()) == (SIDE - 2) ** 2
    torch.testing.assert_close(normals[known], expected.expand_as(normals[known]))


def test_planes_are_differentiable_in_the_shape():
    camera = camera_at(0.5).to(dtype=torch.float64)
    gaussians = wall(torch.float64).select(torch.arange(300, 306))
    means, quats = gaussians.means.clone().requires_grad_(), gaussians.quats.clone().requires_grad_()

    def total(means: torch.Tensor, quats: torch.Tensor) -> torch.Tensor:
        planes = render_planes(replace(gaussians, means=means, quats=quats), camera, RasterSettings(), "reference")
        return (planes.depth[20:28, 20:28] * torch.arange(8.0, dtype=torch.float64)).sum()

    total(means, quats).backward()
    for value in (means, quats):
        step = torch.randn(value.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        h = 1e-6
        moved = [total(*(v + s * h * step if v is value else v for v in (means, quats))) for s in (1, -1)]
        assert value.grad is not None
        torch.testing.assert_close(
            (value.grad * step).sum(), (moved[0] - moved[1]).detach() / (2 * h), rtol=1e-4, atol=1e-7
        )


def test_normals_that_agree_with_the_depth_cost_nothing():
    camera = camera_at(0.2, torch.float64)
    planes = exact_planes(camera)
    flat = torch.full((SIDE, SIDE), 0.5, dtype=torch.float64)
    turned = replace(planes, normals=planes.normals.roll(1, dims=-1))
    assert float(normal_loss(planes, camera, flat)) < 1e-12
    assert float(normal_loss(turned, camera, flat)) > 0.1


def test_edges_are_where_the_photo_changes():
    grey = torch.zeros(9, 9)
    grey[:, 5:] = 1.0
    edges = edge_strength(grey)
    assert float(edges[:, 4:6].min()) == 1.0
    assert float(edges[:, :3].max()) == 0.0


def test_true_depth_fits_both_views_and_false_depth_neither():
    one, two = camera_at(-0.5, torch.float64), camera_at(0.5, torch.float64)
    planes = exact_planes(one)

    def losses(factor: float):  # type: ignore[no-untyped-def]
        wrong = replace(planes, depth=planes.depth * factor)
        generator = torch.Generator().manual_seed(0)
        return pair_losses(wrong, one, pattern(one), exact_depth(two), two, pattern(two), 400, generator)

    right, wrong = losses(1.0), losses(1.01)
    assert float(right.geometry) < 1e-3
    assert float(right.photos) < 0.01
    assert float(wrong.geometry) > 0.05
    assert float(wrong.photos) > 3 * float(right.photos)


def test_pair_losses_pull_depth_towards_the_truth():
    one, two = camera_at(-0.5, torch.float64), camera_at(0.5, torch.float64)
    planes = exact_planes(one)
    for factor in (0.996, 1.004):
        scale = torch.tensor(factor, dtype=torch.float64, requires_grad=True)
        generator = torch.Generator().manual_seed(0)
        moved = replace(planes, depth=planes.depth * scale)
        result = pair_losses(moved, one, pattern(one), exact_depth(two), two, pattern(two), 400, generator)
        for loss in (result.geometry, result.photos):
            (gradient,) = torch.autograd.grad(loss, scale, retain_graph=True)
            assert math.copysign(1, float(gradient)) == math.copysign(1, factor - 1)


def test_neighbours_look_the_same_way():
    eyes = [(0.0, 3.0), (0.3, 3.0), (0.7, 3.0), (0.0, -3.0)]
    viewmats = torch.stack(
        [look_at(torch.tensor([x, 0.0, z]), torch.zeros(3), torch.tensor([0.0, 1.0, 0.0])) for x, z in eyes]
    )
    cameras = Cameras(viewmats, torch.eye(3).repeat(4, 1, 1), torch.ones(4, 2, dtype=torch.int64))
    assert neighbor_table(cameras, (0, 1, 2, 3), 2) == {0: [1, 2], 1: [0, 2], 2: [1, 0], 3: []}


def test_fitting_on_surfaces_flattens_splats_and_is_reproducible():
    scene = tiny_scene()
    capture = tiny_capture(scene)
    settings = FitSettings(max_steps=24, surface=True, surface_method="pgsr", sh_degree=0)
    early = SurfaceSettings(normals_from=0.2, pairs_from=0.4, n_pixels=100)
    first = scene.splats().to(dtype=torch.float32)

    def run() -> Gaussians:
        return fit(capture, first, settings, Hooks(objective=surface_objective(capture, settings, early))).gaussians

    result = run()
    plain = fit(capture, first, replace(settings, surface=False)).gaussians
    assert float(result.log_scales.amin(dim=1).mean()) < float(plain.log_scales.amin(dim=1).mean())
    assert torch.equal(result.means, run().means)


def test_poses_cannot_be_refined_at_the_same_time():
    scene = tiny_scene()
    with pytest.raises(CaptureError, match="surface fitting needs fixed poses"):
        surface_objective(tiny_capture(scene), FitSettings(surface=True, pose_opt=True))


def test_planes_of_round_splats_follow_where_rays_peak():
    g = torch.Generator().manual_seed(0)
    n, camera = 20, camera_at(0.4, torch.float64)
    means, quats = 0.4 * torch.randn(n, 3, generator=g).double(), torch.randn(n, 4, generator=g).double()
    log_scales = torch.rand(n, 3, generator=g).double() - 2
    round_ones = Gaussians(means, quats, log_scales, torch.zeros(n), torch.zeros(n, 1, 3), torch.zeros(n, 0, 3))
    round_ones = round_ones.to(dtype=torch.float64)
    found = plane_coefficients(round_ones, camera)
    half = to_rotmat(quats) * log_scales.exp()[:, None]
    rotation = camera.viewmats[0, :3, :3]
    inverse = rotation @ torch.linalg.inv(half @ half.transpose(1, 2)) @ rotation.T
    m = means @ rotation.T + camera.viewmats[0, :3, 3]

    def peak(dx: float, dy: float) -> torch.Tensor:
        rays = m / m[:, 2:] + torch.tensor([dx, dy, 0.0], dtype=torch.float64)
        weighted = torch.einsum("ni,nij->nj", rays, inverse)
        return (weighted * m).sum(dim=1) / (weighted * rays).sum(dim=1)

    h = 1e-6
    slopes = torch.stack([(peak(h, 0) - peak(-h, 0)), (peak(0, h) - peak(0, -h))], dim=1) / (2 * h)
    torch.testing.assert_close(found[:, 1:], slopes, rtol=1e-5, atol=1e-6)
    at_center = found[:, 0] + found[:, 1] * m[:, 0] / m[:, 2] + found[:, 2] * m[:, 1] / m[:, 2]
    torch.testing.assert_close(at_center, m[:, 2])


def test_ray_planes_of_flat_splats_are_the_wall():
    camera = camera_at(0.5)
    planes = render_ray_planes(wall(), camera, RasterSettings())
    inner = (slice(14, 34), slice(14, 34))
    torch.testing.assert_close(planes.depth[inner], exact_depth(camera)[inner], rtol=2e-3, atol=0)
    normals = torch.nn.functional.normalize(planes.normals[inner], dim=-1)
    assert float((normals @ torch.tensor([0.4, 0.0, -1.0]) / math.hypot(1, 0.4)).min()) > 0.999


def test_ray_planes_are_differentiable_in_the_shape():
    camera = camera_at(0.5).to(dtype=torch.float64)
    gaussians = wall(torch.float64).select(torch.arange(300, 306))
    gaussians = replace(gaussians, log_scales=gaussians.log_scales + torch.tensor([0.0, 0, 3.5]))

    def total(means: torch.Tensor, quats: torch.Tensor) -> torch.Tensor:
        planes = render_ray_planes(replace(gaussians, means=means, quats=quats), camera, RasterSettings(), "reference")
        return (planes.depth[20:28, 20:28] * torch.arange(8.0, dtype=torch.float64)).sum() + planes.normals.sum()

    leaves = [gaussians.means.clone().requires_grad_(), gaussians.quats.clone().requires_grad_()]
    total(*leaves).backward()
    for k, leaf in enumerate(leaves):
        step = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        moved = [[t.detach() + (s * 1e-6 * step if i == k else 0) for i, t in enumerate(leaves)] for s in (1, -1)]
        assert leaf.grad is not None
        slope = (total(*moved[0]) - total(*moved[1])) / 2e-6
        torch.testing.assert_close((leaf.grad * step).sum(), slope, rtol=1e-4, atol=1e-7)


def test_discs_begin_and_stay_flat():
    scene = tiny_scene()
    first = lay_flat(scene.splats().to(dtype=torch.float32), "2dgs")
    assert bool((first.log_scales.argmin(dim=1) == 2).all())
    capture = tiny_capture(scene)
    settings = FitSettings(max_steps=12, surface=True, surface_method="2dgs", sh_degree=0)
    early = SurfaceSettings(normals_from=0.4)

    def run() -> Gaussians:
        return fit(capture, first, settings, Hooks(objective=surface_objective(capture, settings, early))).gaussians

    result = run()
    assert not torch.equal(result.log_scales[:, :2].sort().values, first.log_scales[:, :2].sort().values)
    assert bool((result.log_scales.argmin(dim=1) == 2).all())
    assert torch.equal(result.means, run().means)


def test_normals_of_ray_planes_pull_on_plain_splats():
    scene = tiny_scene()
    capture = tiny_capture(scene)
    settings = FitSettings(max_steps=12, surface=True, surface_method="rade", sh_degree=0)
    first = scene.splats().to(dtype=torch.float32)
    hooks = Hooks(objective=surface_objective(capture, settings, SurfaceSettings(normals_from=0.4)))
    result = fit(capture, first, settings, hooks).gaussians
    assert bool(result.is_finite().all())
    assert not torch.equal(result.quats, fit(capture, first, replace(settings, surface=False)).gaussians.quats)
