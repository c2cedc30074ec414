"""Votes of views on a mesh: moved to their depths, what they see on behind left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from mesh_shapes import dense_grid, ring_cameras, sphere_field
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.mesh import Mesh, face_normals, vertex_normals
from scene3d.meshing.block_grid import extract_surface
from scene3d.meshing.depth_views import ViewSettings, depth_image
from scene3d.meshing.depth_votes import NEAR_BY, REACHES, ROUGHLY, ask_depths, settle, without_refuted
from scene3d.meshing.fusion import DepthImage
from scene3d.ops import triangles
from scene3d.ops.triangles import view_mesh

pytestmark = pytest.mark.skipif(triangles._cpu is None, reason="the native module is not built")

# At the sphere, of ring_cameras.
PIXEL = 3.0 / 110


def sphere(radius: float, voxel_size: float = 0.1, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mesh:
    mesh = extract_surface(dense_grid(lambda p: sphere_field(p, radius), radius + 0.1, voxel_size))
    # Marching cubes are straight between lattice points.
    return Mesh(radius * torch.nn.functional.normalize(mesh.vertices, dim=1) + torch.tensor(center), mesh.faces)


def depths_of(mesh: Mesh, cameras: Cameras) -> list[DepthImage]:
    found = []
    for i in range(len(cameras)):
        depth = view_mesh(mesh, cameras, i).depth
        found.append(depth_image(depth, (depth > 0).float(), cameras.select([i]), ViewSettings()))
    return found


def joined(a: Mesh, b: Mesh) -> Mesh:
    return Mesh(torch.cat([a.vertices, b.vertices]), torch.cat([a.faces, b.faces + len(a.vertices)]))


@pytest.fixture(scope="module")
def cameras() -> Cameras:
    return ring_cameras(12)


@pytest.fixture(scope="module")
def truth(cameras: Cameras) -> list[DepthImage]:
    return depths_of(sphere(1.0, 0.05), cameras)


@pytest.mark.parametrize("radius", [1 - 1.5 * PIXEL, 1 + 1.5 * PIXEL])
def test_a_swollen_or_shrunk_ball_comes_to_the_depths_of_the_views(
    radius: float, cameras: Cameras, truth: list[DepthImage]
):
    before = sphere(radius)
    moved = settle(before, truth, cameras)
    # No view looks straight enough at the poles.
    assert moved.n_faces > 0.97 * before.n_faces
    assert float((moved.vertices.norm(dim=1) - 1).abs().mean()) < 0.05 * PIXEL
    assert float((moved.vertices.norm(dim=1) - 1).abs().max()) < 0.5 * PIXEL
    outwards = (face_normals(moved) * moved.corners().mean(dim=1)).sum(dim=1)
    assert bool((outwards > 0).all())


def test_what_views_see_through_goes_and_the_rest_stays(cameras: Cameras, truth: list[DepthImage]):
    ball, floater = sphere(1.0), sphere(0.2, center=(0.0, 0.0, 1.5))
    for clean in (settle, without_refuted):
        left = clean(joined(ball, floater), truth, cameras)
        assert left.n_faces > 0.97 * ball.n_faces
        assert float(left.vertices[:, 2].max()) < 1.1


def test_rough_depths_refute_only_what_is_far_from_them(cameras: Cameras, truth: list[DepthImage]):
    ball = sphere(1 + 3 * PIXEL)
    left = without_refuted(ball, truth, cameras)
    assert left.n_faces > 0.9 * ball.n_faces
    assert float((left.vertices.norm(dim=1) - 1 - 3 * PIXEL).abs().max()) < 1e-6
    assert without_refuted(sphere(1 + 8 * PIXEL), truth, cameras).n_faces < 0.1 * ball.n_faces


def asked(mesh: Mesh, depths: list[DepthImage], cameras: Cameras) -> dict[str, Tensor]:
    votes = ask_depths(mesh, vertex_normals(mesh), depths, cameras, REACHES[0], NEAR_BY)
    return {"for": votes.n_for, "against": votes.n_against, "weight": votes.weight}


def test_views_with_something_in_front_say_nothing(cameras: Cameras):
    found = asked(sphere(1.0), depths_of(sphere(1.8), cameras), cameras)
    assert all(float(value.abs().max()) == 0 for value in found.values())


def test_views_are_for_what_they_have_and_only_from_in_front(cameras: Cameras, truth: list[DepthImage]):
    ball = sphere(1.0)
    found = asked(ball, truth, cameras)
    assert float(found["against"].max()) == 0
    assert float(found["for"].median()) > 1
    turned = asked(replace(ball, faces=ball.faces.flip(1)), truth, cameras)
    assert float(turned["for"].max()) == 0


def test_a_plane_knows_its_distance_from_depths_at_a_slant():
    K = torch.tensor([[64.0, 0, 32], [0, 64, 32], [0, 0, 1]])
    camera = Cameras(torch.eye(4)[None], K[None], torch.tensor([[64, 64]]))

    def plane(half: float, offset: float) -> Mesh:
        """z = 2 + x / 2 + offset, towards the camera."""
        x, y = torch.meshgrid(*[torch.linspace(-half, half, 9)] * 2, indexing="xy")
        a = (torch.arange(8)[:, None] * 9 + torch.arange(8)).reshape(-1)
        faces = torch.cat([torch.stack([a, a + 10, a + 1], dim=1), torch.stack([a, a + 9, a + 10], dim=1)])
        return Mesh(torch.stack([x, y, 2 + x / 2 + offset], dim=-1).reshape(-1, 3), faces)

    upper = plane(0.5, 0.0)
    votes = ask_depths(upper, vertex_normals(upper), depths_of(plane(1.5, 0.05), camera), camera, ROUGHLY, ROUGHLY)
    heard = votes.weight > 0
    assert int(heard.sum()) > 40
    distance = (votes.shift / votes.weight)[heard]
    torch.testing.assert_close(distance, torch.full_like(distance, -0.05 / 1.25**0.5), atol=2e-5, rtol=0)
