"""The shell behind a mesh, and which pixels colours are taken from."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from mesh_shapes import box, dense_grid, is_closed, ring_cameras, sphere_field
from test_stage_mesh import ball as ball_of_splats
from torch import Tensor

from scene3d.core.gaussians import Gaussians
from scene3d.core.mesh import Mesh
from scene3d.core.scene import Scene
from scene3d.meshing.background import N_FACES, Background, background_of, has_outside, joined, without_background
from scene3d.meshing.block_grid import extract_surface
from scene3d.meshing.depth_views import SurfaceViews, ViewSettings
from scene3d.meshing.fusion import DepthImage
from scene3d.ops.depth_edges import near_edges
from scene3d.ops.triangles import closest_on_mesh, view_mesh

pytest.importorskip("scipy", reason="backgrounds need scipy: pip install scene3d[mesh]")
pytest.importorskip("trimesh", reason="backgrounds need trimesh: pip install scene3d[mesh]")

CAMERAS = ring_cameras(10, focal=60.0)
ROOM = box((7.0, 6.0, 5.0))


def ball() -> Mesh:
    return extract_surface(dense_grid(sphere_field, 1.0, 0.2))


def views_of(mesh: Mesh) -> SurfaceViews:
    depths = [view_mesh(mesh, CAMERAS, i).depth for i in range(len(CAMERAS))]
    blank = torch.zeros(96, 96, 3, dtype=torch.uint8)
    return SurfaceViews(CAMERAS, tuple(DepthImage(d, torch.ones_like(d)) for d in depths), (blank,) * len(CAMERAS))


@pytest.fixture(scope="module")
def shell() -> Background:
    return background_of(ball(), views_of(joined(ball(), ROOM)))


def seen_parts(shell: Background) -> Tensor:
    """Middles of the faces that have their full share of texels."""
    radii = shell.packing.norm(dim=1)[shell.mesh.faces].amin(dim=1)
    return shell.mesh.corners().mean(dim=1)[radii > 0.5 * radii.max()]


def test_the_shell_lies_on_the_walls_that_are_seen(shell: Background):
    distances = closest_on_mesh(ROOM, seen_parts(shell)).distances
    assert len(distances) > N_FACES / 3
    # Edges of the room are rounded by the size of a face, a twelfth of the distance.
    assert float(distances.median()) < 0.1
    assert float(distances.quantile(0.95)) < 0.6


def test_the_shell_is_closed_and_faces_inwards(shell: Background):
    _, place = torch.unique(shell.mesh.vertices, dim=0, return_inverse=True)
    assert is_closed(Mesh(torch.unique(shell.mesh.vertices, dim=0), place[shell.mesh.faces]))
    a, b, c = shell.mesh.corners().unbind(dim=1)
    assert bool(((torch.linalg.cross(b - a, c - a) * (a + b + c)).sum(dim=1) < 0).all())


def test_the_shell_hides_nothing_of_the_mesh(shell: Background):
    for i in range(len(CAMERAS)):
        alone, both = view_mesh(ball(), CAMERAS, i), view_mesh(joined(ball(), shell.mesh), CAMERAS, i)
        assert torch.equal(both.depth[alone.hit], alone.depth[alone.hit])
        assert bool(both.hit.all())


def test_a_shell_can_be_taken_off_again(shell: Background):
    rest = without_background(joined(ball(), shell.mesh))
    assert torch.equal(rest.faces, ball().faces)


def test_an_object_in_front_of_nothing_has_no_background():
    with pytest.raises(ValueError, match="background: expected something opaque behind the mesh, found none"):
        background_of(ball(), views_of(ball()))


def test_edges_are_where_depth_jumps_not_where_it_slants():
    x = torch.arange(40.0).expand(30, 40)
    slanted = 1 / (1.0 - 0.02 * x)
    assert not bool(near_edges(slanted).any())
    stepped = torch.where(x < 20, 2.0, 3.0)
    assert torch.equal(near_edges(stepped)[0].nonzero()[:, 0], torch.arange(17, 23))
    beside_nothing = torch.where(x < 20, 2.0, 0.0)
    assert near_edges(beside_nothing)[0].nonzero()[:, 0].tolist() == list(range(17, 23))


def test_rooms_have_an_outside_and_objects_have_none():
    scene = ball_of_splats()
    splats = scene.splats()
    # Six units away, so large that they close the sphere.
    walls = replace(splats, means=6 * splats.means, log_scales=splats.log_scales + math.log(6))
    both = {name: torch.cat([value, walls.params()[name]]) for name, value in splats.params().items()}
    room = Scene(Gaussians(**both))
    assert has_outside(room, CAMERAS, ViewSettings("median", far=5.5))
    assert not has_outside(room, CAMERAS, ViewSettings("median", far=50.0))
    assert not has_outside(scene, CAMERAS, ViewSettings("median", far=5.5))
