"""Depth fusion: the floor of exact depth, frame errors, unknown depth, refusals."""

import math

import pytest
import torch
from mesh_shapes import box, dense_grid, ring_cameras, sphere_field, square

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.mesh import Mesh
from scene3d.meshing import fusion
from scene3d.meshing.block_grid import extract_surface
from scene3d.meshing.consistency import ConsistencySettings, keep_consistent
from scene3d.meshing.depth_views import ViewSettings, depth_image
from scene3d.meshing.fusion import DepthImage, FusionSettings, fuse, suggest_voxel_size
from scene3d.ops.agreement import neighbor_views
from scene3d.ops.triangles import view_mesh

VOXEL = 0.06


def sphere_images(cameras: Cameras) -> list[DepthImage]:
    """Exact depth of the unit sphere, in closed form."""
    images = []
    for i in range(len(cameras)):
        height, width = cameras.height(i), cameras.width(i)
        K, centre = cameras.Ks[i], cameras.viewmats[i, :3, 3]
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        rays = torch.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], torch.ones_like(x)], dim=-1)
        a, b, c = rays.square().sum(dim=-1), rays @ centre, float(centre.square().sum()) - 1
        root = b.square() - a * c
        z = torch.where(root > 0, (b - root.clamp_min(0).sqrt()) / a, 0.0)
        images.append(depth_image(z, (z > 0).float(), cameras.select([i]), ViewSettings()))
    return images


def mean_error(cameras: Cameras, images: list[DepthImage], voxel_size: float = VOXEL) -> float:
    mesh = extract_surface(fuse(images, cameras, FusionSettings(voxel_size)))
    return float(sphere_field(mesh.vertices).abs().mean())


def test_exact_depth_gives_the_sphere_to_a_small_share_of_a_voxel():
    cameras = ring_cameras(16)
    assert mean_error(cameras, sphere_images(cameras)) < 0.05 * VOXEL


def test_half_a_pixel_is_noticed():
    cameras = ring_cameras(16)
    images = sphere_images(cameras)
    shifted = cameras.Ks.clone()
    shifted[:, :2, 2] -= 0.5
    wrong = Cameras(cameras.viewmats, shifted, cameras.sizes)
    assert mean_error(wrong, images) > 2.5 * mean_error(cameras, images)


def test_a_mirrored_frame_is_noticed():
    cameras = ring_cameras(16)
    images = sphere_images(cameras)
    flipped = cameras.viewmats.clone()
    flipped[:, :3, 3] += torch.tensor([0.0, 0.03, 0.0])
    assert mean_error(Cameras(flipped, cameras.Ks, cameras.sizes), images) > 2.5 * mean_error(cameras, images)


def test_unknown_depth_is_left_out():
    cameras = ring_cameras(16)
    images = sphere_images(cameras)
    spoilt = [DepthImage(image.depth.clone(), image.weight) for image in images]
    for image in spoilt:
        image.depth[:, ::7] = torch.nan
        image.depth[::9] = torch.inf
        image.depth[1::11] = -1.0
    mesh = extract_surface(fuse(spoilt, cameras, FusionSettings(VOXEL)))
    assert bool(mesh.vertices.isfinite().all())
    assert float(sphere_field(mesh.vertices).abs().mean()) < 0.06 * VOXEL


def test_thin_sheets_do_not_swell_backwards():
    leaf, floor = square(0.0), square(-1.0, 16.0)
    vertices = torch.cat([leaf.vertices - torch.tensor([0.5, 0.5, 0]), floor.vertices - torch.tensor([8.0, 8.0, 0])])
    scene = Mesh(vertices, torch.cat([leaf.faces, floor.faces + 4]))
    up, n = torch.tensor([0.0, 0.0, 1.0]), 8
    eyes = [torch.tensor([2 * math.cos(2 * math.pi * k / n), 2 * math.sin(2 * math.pi * k / n), 2.5]) for k in range(n)]
    eyes.append(torch.tensor([2.5, 0.0, 0.3]))  # looks past its back
    K = torch.tensor([[110.0, 0, 48], [0, 110, 48], [0, 0, 1]])
    viewmats = torch.stack([look_at(eye, torch.zeros(3), up) for eye in eyes])
    cameras = Cameras(viewmats, K.repeat(n + 1, 1, 1), torch.tensor([[96, 96]]).repeat(n + 1, 1))
    depths = [view_mesh(scene, cameras, i).depth for i in range(n + 1)]
    images = [DepthImage(depth, torch.ones_like(depth)) for depth in depths]
    z = extract_surface(fuse(images, cameras, FusionSettings(0.03))).vertices[:, 2]
    # What is kept behind a surface ends four voxels behind it.
    assert int((z > -0.04).sum()) > 500
    assert float(z[z > -0.7].min()) > -3 * 0.03


def wobbling_lines(cameras: Cameras) -> list[DepthImage]:
    """A needle a pixel wide before a wall, in every other view a pixel beside where it belongs."""
    needle = Mesh(0.02 * box().vertices * torch.tensor([1.0, 1.0, 60.0]), box().faces)
    images = []
    for i in range(len(cameras)):
        depth = view_mesh(needle, cameras, i).depth
        depth = torch.roll(depth, i % 2, dims=1)
        images.append(DepthImage(torch.where(depth > 0, depth, 9.0), torch.ones_like(depth)))
    return images


def test_lines_are_not_carved_away_by_looks_a_pixel_beside(monkeypatch: pytest.MonkeyPatch):
    cameras = ring_cameras(16)
    images = wobbling_lines(cameras)

    def height_found() -> int:
        z = extract_surface(fuse(images, cameras, FusionSettings(0.02))).vertices
        z = z[z.norm(dim=1) < 1.5]
        return len((z[:, 2] / 0.05).floor().unique())

    kept = height_found()
    assert kept > 0.9 * 2 * 1.2 / 0.05
    monkeypatch.setattr(fusion, "_thin_parts", lambda depth, weight: (depth, weight))
    assert height_found() < 0.7 * kept


def test_absurd_voxels_are_refused_with_the_number_to_use():
    cameras = ring_cameras(4)
    images = sphere_images(cameras)
    with pytest.raises(ValueError, match=r"voxel_size: 0\.0001 would take .* GB, allowed are .*Use ([\d.]+)") as caught:
        fuse(images, cameras, FusionSettings(1e-4, max_bytes=20_000_000))
    better = float(str(caught.value).split("Use ")[1].split(" ")[0])
    fuse(images, cameras, FusionSettings(better, max_bytes=20_000_000))
    with pytest.raises(ValueError, match="more points than can be numbered"):
        fuse(images, cameras, FusionSettings(1e-9))
    with pytest.raises(ValueError, match="voxel_size: expected a length above 0"):
        FusionSettings(float("nan"))


def test_a_scene_without_surface_is_refused():
    cameras = ring_cameras(2)
    nothing = DepthImage(torch.zeros(96, 96), torch.ones(96, 96))
    with pytest.raises(ValueError, match="expected a surface in some view, got none"):
        fuse([nothing, nothing], cameras, FusionSettings(0.1))
    with pytest.raises(ValueError, match="expected a surface in some view"):
        suggest_voxel_size([nothing], cameras)


def test_images_of_another_size_are_refused():
    cameras = ring_cameras(1)
    with pytest.raises(ValueError, match="expected the size of camera 0"):
        fuse([DepthImage(torch.ones(5, 5), torch.ones(5, 5))], cameras, FusionSettings(0.1))


def test_voxels_follow_the_pixels():
    cameras = ring_cameras(4)
    assert suggest_voxel_size(sphere_images(cameras), cameras) == pytest.approx(1.6 * 3.2 / 110, rel=0.1)


def test_depths_that_others_see_through_are_dropped():
    cameras = ring_cameras(12)
    images = sphere_images(cameras)
    floater = images[3].depth.clone()
    floater[40:50, 40:50] = 1.5
    images[3] = DepthImage(floater, images[3].weight)
    kept = keep_consistent(images, cameras, ConsistencySettings(n_neighbors=6, tolerance=0.02))
    assert float(kept[3].depth[40:50, 40:50].max()) == 0
    before = sum(float(image.is_known().sum()) for image in images)
    assert sum(float(image.is_known().sum()) for image in kept) > 0.75 * before


def test_neighbours_are_the_nearest_views():
    cameras = ring_cameras(12)
    nearest = neighbor_views(cameras, 4)
    gaps = [{min((j - i) % 12, (i - j) % 12) for j in nearest[i].tolist()} for i in range(12)]
    assert all(gap <= {1, 2} for gap in gaps)
    assert neighbor_views(cameras.select([0, 1]), 8).tolist() == [[1], [0]]


def test_depth_from_renders_and_from_a_mesh_agree():
    cameras = ring_cameras(2)
    mesh = extract_surface(dense_grid(sphere_field, 1.0, 0.05))
    seen = view_mesh(mesh, cameras, 0).depth
    exact = sphere_images(cameras)[0]
    inside = exact.is_known() & (seen > 0)
    assert float((seen - exact.depth)[inside].abs().mean()) < 2e-3
    assert math.isclose(float(inside.double().mean()), float(exact.is_known().double().mean()), rel_tol=0.02)
