"""Marching cubes: closed, oriented, exact where the field is linear."""

import math

import torch
from mesh_shapes import area_and_volume, dense_grid, edge_counts, euler_number, is_closed, sphere_field, torus_field

from scene3d.core.mesh import vertex_normals
from scene3d.meshing.block_grid import KEY_LIMIT, BlockGrid, extract_surface, pack, unpack
from scene3d.meshing.cubes import EDGES, loops


def test_every_case_uses_each_cut_edge_once():
    for case in range(256):
        cut = [i for i, (a, b) in enumerate(EDGES) if (case >> a & 1) != (case >> b & 1)]
        assert sorted(edge for loop in loops(case) for edge in loop) == cut


def test_a_sphere_is_closed_and_has_its_area_and_volume():
    mesh = extract_surface(dense_grid(sphere_field, 1.0, 0.06))
    area, volume = area_and_volume(mesh)
    assert is_closed(mesh)
    assert euler_number(mesh) == 2
    assert abs(area / (4 * math.pi) - 1) < 0.01
    assert abs(volume / (4 / 3 * math.pi) - 1) < 0.01


def test_faces_look_outwards():
    mesh = extract_surface(dense_grid(sphere_field, 1.0, 0.1))
    outwards = torch.nn.functional.normalize(mesh.vertices, dim=1)
    assert float((vertex_normals(mesh) * outwards).sum(dim=1).min()) > 0.9


def test_a_torus_has_one_hole():
    mesh = extract_surface(dense_grid(torus_field, 1.4, 0.1))
    assert is_closed(mesh)
    assert euler_number(mesh) == 0


def test_noise_gives_a_closed_surface_too():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2, 8, 8, 8, generator=generator) - 0.5
    # A border of outside points closes whatever lies within.
    grid = BlockGrid(torch.tensor([[0, 0, 0], [1, 0, 0]], dtype=torch.int32), values, torch.zeros(3).double(), 1.0)
    for axis in (1, 2):
        grid.values.select(axis, 0).fill_(1.0)
        grid.values.select(axis, 7).fill_(1.0)
    grid.values[0, :, :, 0] = 1.0
    grid.values[1, :, :, 7] = 1.0
    mesh = extract_surface(grid)
    assert mesh.n_faces > 500
    assert bool((edge_counts(mesh) % 2 == 0).all())


def test_a_plane_is_exact():
    mesh = extract_surface(dense_grid(lambda p: p @ torch.tensor([0.6, 0.0, 0.8]) - 0.21, 1.0, 0.1))
    torch.testing.assert_close(
        mesh.vertices @ torch.tensor([0.6, 0.0, 0.8]), torch.full((len(mesh.vertices),), 0.21), atol=1e-5, rtol=0
    )


def test_unknown_points_have_no_surface_around_them():
    grid = dense_grid(sphere_field, 1.0, 0.1)
    half = dense_grid(lambda p: torch.where(p[:, 0] > 0, p.norm(dim=1) - 1, torch.nan), 1.0, 0.1)
    mesh = extract_surface(half)
    assert float(mesh.vertices[:, 0].min()) > 0
    assert 0.35 < mesh.n_faces / extract_surface(grid).n_faces < 0.55


def test_keys_come_back():
    cells = torch.tensor([[0, 0, 0], [-1, 5, -KEY_LIMIT], [KEY_LIMIT - 1, 2, 3]])
    assert torch.equal(unpack(pack(cells)), cells)
