"""Meshes against pixels and points: closed forms, brute force, cracks."""

import pytest
import torch
from mesh_shapes import dense_grid, ring_cameras, sphere_field, square

from scene3d.core.cameras import Cameras
from scene3d.core.mesh import Mesh, vertex_normals
from scene3d.meshing.block_grid import extract_surface
from scene3d.ops.triangles import blend_pictures, closest_on_mesh, n_views_seeing, sample_surface, view_mesh


def front_camera(side: int = 8) -> Cameras:
    K = torch.tensor([[side, 0, 0], [0, side, 0], [0, 0, 1.0]])
    return Cameras(torch.eye(4)[None], K[None], torch.tensor([[side, side]]))


def test_a_square_before_the_camera_fills_its_pixels_without_cracks():
    seen = view_mesh(square(1.0), front_camera())
    assert bool(seen.hit.all())
    torch.testing.assert_close(seen.depth, torch.ones(8, 8))
    torch.testing.assert_close(seen.weights.sum(dim=-1), torch.ones(8, 8))


def test_weights_give_back_the_place_seen():
    mesh = Mesh(torch.tensor([[-1.0, -2, 1], [3, -1, 4], [0, 5, 2]]), torch.tensor([[0, 1, 2]]))
    seen = view_mesh(mesh, front_camera(16))
    rows, columns = seen.hit.nonzero(as_tuple=True)
    assert len(rows) > 20
    points = (seen.weights[rows, columns][:, :, None] * mesh.corners()[0]).sum(dim=1)
    torch.testing.assert_close(points[:, 2], seen.depth[rows, columns])
    torch.testing.assert_close(points[:, 0] / points[:, 2] * 16, columns + 0.5)


def test_the_nearer_of_two_faces_is_seen_and_parts_behind_the_camera_are_not():
    both = Mesh(
        torch.cat([square(2.0, 2.0).vertices, square(1.0, 0.5).vertices, square(-1.0, 4.0).vertices]),
        torch.cat([square(0.0).faces + 4 * k for k in range(3)]),
    )
    seen = view_mesh(both, front_camera())
    assert seen.depth[1, 1] == 1.0
    assert seen.depth[6, 6] == 2.0


def test_a_face_through_the_camera_plane_is_seen_in_front_only():
    floor = Mesh(torch.tensor([[-50.0, 1, -50], [50, 1, -50], [0, 1, 100]]), torch.tensor([[0, 1, 2]]))
    seen = view_mesh(floor, front_camera())
    rows = (torch.arange(8) + 0.5) / 8
    torch.testing.assert_close(seen.depth[:, 4], 1 / rows, rtol=1e-5, atol=0)


def test_closest_points_are_those_of_brute_force():
    generator = torch.Generator().manual_seed(1)
    vertices = torch.randn(60, 3, generator=generator)
    faces = torch.randint(0, 60, (70, 3), generator=generator)
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    mesh = Mesh(vertices, faces)
    queries = 2 * torch.randn(40, 3, generator=generator)
    found = closest_on_mesh(mesh, queries)
    u = torch.linspace(0, 1, 41)
    weights = torch.stack(torch.meshgrid(u, u, indexing="ij"), dim=-1).reshape(-1, 2)
    weights = weights[weights.sum(dim=1) <= 1 + 1e-6]
    weights = torch.cat([weights, 1 - weights.sum(dim=1, keepdim=True)], dim=1)
    dense = torch.einsum("wk,fkc->fwc", weights, mesh.corners()).reshape(-1, 3)
    brute = torch.cdist(queries, dense).amin(dim=1)
    assert bool((found.distances <= brute + 1e-5).all())
    assert bool((found.distances >= brute - 0.1).all())
    torch.testing.assert_close((found.points(mesh) - queries).norm(dim=1), found.distances, rtol=1e-4, atol=1e-5)
    assert float(found.weights.min()) >= -1e-6


def test_closest_point_refuses_an_empty_mesh_and_nan():
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="mesh: expected at least one face"):
        closest_on_mesh(empty, torch.zeros(1, 3))
    with pytest.raises(ValueError, match="queries: expected finite"):
        closest_on_mesh(square(0.0), torch.tensor([[float("nan"), 0, 0]]))


def test_samples_lie_evenly_on_the_surface():
    points, faces = sample_surface(square(3.0), 4000)
    assert bool((points[:, 2] == 3.0).all())
    torch.testing.assert_close(points[:, :2].mean(dim=0), torch.tensor([0.5, 0.5]), atol=0.02, rtol=0)
    assert abs(float((faces == 0).double().mean()) - 0.5) < 0.01


def test_a_mesh_without_area_cannot_be_sampled():
    flat = Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))
    with pytest.raises(ValueError, match="expected some area"):
        sample_surface(flat, 10)


def test_each_side_of_a_sphere_is_seen_by_the_views_before_it():
    mesh = extract_surface(dense_grid(sphere_field, 1.0, 0.1))
    cameras = ring_cameras(8)
    points, _ = sample_surface(mesh, 500)
    rays = cameras.centers()[None] - points[:, None]
    facing = (torch.nn.functional.normalize(rays, dim=-1) * points[:, None]).sum(dim=-1)
    count = n_views_seeing(mesh, points, cameras)
    assert bool((count >= (facing > 0.3).sum(dim=1)).all())
    assert bool((count <= (facing > -0.3).sum(dim=1)).all())


def test_blended_colors_are_those_of_the_pictures():
    mesh = extract_surface(dense_grid(sphere_field, 1.0, 0.1))
    cameras = ring_cameras(8)
    pictures = [torch.full((96, 96, 3), 10 * i, dtype=torch.uint8) for i in range(8)]
    colors, weight = blend_pictures(mesh, mesh.vertices, vertex_normals(mesh), cameras, pictures, 3.0)
    seen = weight > 0
    assert float(seen.double().mean()) > 0.9
    assert float(colors[seen].min()) >= 0
    assert float(colors.max()) <= 70.001
    towards = torch.nn.functional.normalize(cameras.centers()[5], dim=0)
    best = int((mesh.vertices @ towards).argmax())
    assert abs(float(colors[best, 0]) - 50) < 12
