"""Opacity of places, level sets on lattices and between tetrahedra."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from mesh_shapes import area_and_volume, dense_grid, euler_number, is_closed, ring_cameras, sphere_field
from test_stage_mesh import ball

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.gaussians import Gaussians
from scene3d.core.mesh import Mesh, face_edges
from scene3d.core.scene import Scene
from scene3d.meshing.block_grid import extract_surface
from scene3d.meshing.compare import CompareSettings, compare_meshes
from scene3d.meshing.depth_views import ViewSettings, render_views
from scene3d.meshing.fusion import FusionSettings
from scene3d.meshing.level_set import level_surface
from scene3d.meshing.opacity_field import opacity_function, splat_opacity
from scene3d.meshing.surfaces import SurfaceSettings, find_surface
from scene3d.meshing.tetrahedra import (
    TetraPoints,
    delaunay,
    march_tetrahedra,
    tetra_points,
    tetra_surface,
    without_membranes,
)
from scene3d.ops.quaternions import to_rotmat
from scene3d.render import cpu
from scene3d.render.types import RasterSettings

pytest.importorskip("scipy", reason="tetrahedra need it: pip install scene3d[mesh]")
pytestmark = pytest.mark.skipif(cpu.why_unavailable() is not None, reason=f"native code: {cpu.why_unavailable()}")

SHARP = RasterSettings(eps2d=0.0)


def looking(from_z: float) -> Cameras:
    eye = torch.tensor([0.0, 0.0, from_z])
    K = torch.tensor([[50.0, 0, 32], [0, 50, 32], [0, 0, 1]])
    viewmat = look_at(eye, torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))
    return Cameras(viewmat[None], K[None], torch.tensor([[64, 64]]))


def splats(n: int, seed: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    means, quats = 0.5 * torch.randn(n, 3, generator=g), torch.randn(n, 4, generator=g)
    log_scales = torch.rand(n, 3, generator=g) * 2 - 3.5
    return Gaussians(means, quats, log_scales, torch.randn(n, generator=g), torch.zeros(n, 1, 3), torch.zeros(n, 0, 3))


def gathered(gaussians: Gaussians, eye: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """1 - prod(1 - alpha at the place or at the peak before it), by finding the peak along each ray."""
    g = gaussians.to(dtype=torch.float64)
    half = to_rotmat(g.quats) * g.scales[:, None]
    inverse = torch.linalg.inv(half @ half.transpose(1, 2))
    rays = (places - eye).double()
    offset = g.means - eye
    a = torch.einsum("pi,nij,pj->pn", rays, inverse, rays)
    b = torch.einsum("pi,nij,nj->pn", rays, inverse, offset)
    t = (b / a).clamp_max(1.0)
    gap = rays[:, None] * t[..., None] - offset
    power = torch.einsum("pni,nij,pnj->pn", gap, inverse, gap)
    return 1 - (1 - (g.opacities * torch.exp(-power / 2)).clamp_max(0.999)).prod(dim=1)


def test_light_is_gathered_up_to_the_place_and_no_further():
    camera, scene = looking(-3.0), splats(40)
    places = 0.7 * torch.randn(300, 3, generator=torch.Generator().manual_seed(1))
    found = splat_opacity(scene, camera, places, SHARP)
    seen = found.n_views > 0
    exact = gathered(scene, torch.tensor([0.0, 0.0, -3.0]), places)
    # Splats count within their contour of 1/255, and what is dark to 1 % is not made darker.
    assert int(seen.sum()) > 200
    assert float((found.opacity - exact)[seen].abs().max()) < 0.03


def test_a_place_is_empty_when_one_view_sees_through_to_it():
    one = splats(1)
    one = replace(one, means=torch.zeros(1, 3), log_scales=torch.full((1, 3), -2.0), opacity_logits=torch.tensor([5.0]))
    places = torch.tensor([[0.0, 0.0, 0.8], [0.0, 0.0, 0.0], [0.0, 0.0, -0.8]])
    before, behind = looking(-3.0), looking(3.0)
    hidden = splat_opacity(one, before, places, SHARP).opacity
    assert float(hidden[0]) == pytest.approx(float(one.opacities[0]), abs=1e-3)
    assert float(hidden[2]) < 1e-3
    both = Cameras(*(torch.cat([getattr(before, k), getattr(behind, k)]) for k in ("viewmats", "Ks", "sizes")))
    assert float(splat_opacity(one, both, places, SHARP).opacity[0]) < 1e-3
    assert float(splat_opacity(one, both, places, SHARP).opacity[1]) > 0.95


def test_places_that_no_view_looks_at_are_unknown():
    places = torch.tensor([[0.0, 0.0, -5.0], [9.0, 0.0, 0.0]])
    found = splat_opacity(splats(10), looking(-3.0), places, SHARP)
    assert found.n_views.tolist() == [0, 0]
    assert bool(opacity_function(Scene(splats(10)), looking(-3.0))(places).isnan().all())


def test_every_instruction_set_gathers_the_same():
    places = 0.7 * torch.randn(200, 3, generator=torch.Generator().manual_seed(1))
    native = cpu.native()
    before, found = native.simd_level(), {}
    try:
        for level in native.simd_levels():
            native.set_simd_level(level)
            found[level] = splat_opacity(splats(60), looking(-3.0), places).opacity
    finally:
        native.set_simd_level(before)
    for values in found.values():
        torch.testing.assert_close(values, found["scalar"], atol=2e-5, rtol=0)


def soft_ball(places: torch.Tensor) -> torch.Tensor:
    """An opacity that is anything but straight between lattice points."""
    return torch.sigmoid(-200 * sphere_field(places))


def test_the_level_is_met_exactly_although_opacity_is_a_step():
    truth = extract_surface(dense_grid(sphere_field, 1.1, 0.05))
    views = render_views(ball(), ring_cameras(), ViewSettings("median"))
    mesh = level_surface(soft_ball, views, FusionSettings(0.15))
    assert is_closed(mesh)
    assert euler_number(mesh) == 2
    assert float((mesh.vertices.norm(dim=1) - 1).abs().max()) < 2e-3
    straight = extract_surface(dense_grid(lambda p: 0.5 - soft_ball(p), 1.1, 0.15))
    assert float((straight.vertices.norm(dim=1) - 1).abs().max()) > 0.02
    assert compare_meshes(mesh, truth, CompareSettings((0.01,), 2000)).chamfer < 0.01


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0])
def test_levels_out_of_range_are_refused(level: float):
    views = render_views(ball(), ring_cameras(2), ViewSettings("median"))
    with pytest.raises(ValueError, match="level: expected an opacity between 0 and 1"):
        level_surface(soft_ball, views, FusionSettings(0.15), level)


@pytest.mark.parametrize("method", ["levelset", "tetrahedra"])
def test_a_ball_of_splats_becomes_a_ball(method):  # type: ignore[no-untyped-def]
    scene, cameras = ball(), ring_cameras()
    views = render_views(scene, cameras, ViewSettings("median"))
    mesh = find_surface(scene, views, SurfaceSettings(method, 0.08))
    radii = mesh.vertices.norm(dim=1)
    assert float((radii - 1).abs().mean()) < 0.03
    assert area_and_volume(mesh)[1] > 0.8 * 4 / 3 * math.pi


def test_tetrahedra_give_closed_surfaces_that_face_outwards():
    points = 1.6 * (torch.rand(2500, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    corners = TetraPoints(points, torch.full((2500,), 10.0))

    def is_inside(places: torch.Tensor) -> torch.Tensor:
        return sphere_field(places) < 0

    mesh = march_tetrahedra(corners, delaunay(points), is_inside(points), is_inside)
    assert is_closed(mesh)
    assert euler_number(mesh) == 2
    assert float((mesh.vertices.norm(dim=1) - 1).abs().max()) < 0.01
    assert area_and_volume(mesh)[1] == pytest.approx(4 / 3 * math.pi, rel=0.05)


def test_tetrahedra_too_flat_for_float32_turn_as_their_neighbours_do():
    # Corners of two tetrahedra on a face: one flat, whose volume rounding turns over.
    places = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0.3, 0.3, 1], [0.3, 0.3, 1e-9]])
    inside = torch.tensor([True, False, False, False, False])
    tetrahedra = torch.tensor([[0, 1, 2, 3], [0, 2, 1, 4]])
    mesh = march_tetrahedra(
        TetraPoints(places, torch.full((5,), 10.0)), tetrahedra, inside, lambda at: at.norm(dim=1) < 0.5
    )
    edges = face_edges(mesh.faces)
    assert len(edges) == 6
    assert len(edges.unique(dim=0)) == 6


def test_thin_wires_survive_between_tetrahedra():
    n, radius = 60, 0.01
    means = torch.stack([torch.linspace(-1, 1, n), torch.zeros(n), torch.zeros(n)], dim=1)
    log_scales = torch.tensor([0.02, radius, radius]).log().repeat(n, 1)
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1)
    wire = Gaussians(means, quats, log_scales, torch.full((n,), 6.0), torch.zeros(n, 1, 3), torch.zeros(n, 0, 3))

    def opacity(places: torch.Tensor) -> torch.Tensor:
        return (places[:, 1:].norm(dim=1) < 2 * radius).float() * (places[:, 0].abs() < 1)

    corners = tetra_points(wire, torch.tensor([[-1.5, -1, -1], [1.5, 1, 1.0]]), 0.002)
    mesh = tetra_surface(opacity, corners)
    assert float(mesh.vertices[:, 0].max() - mesh.vertices[:, 0].min()) > 1.9
    lattice = extract_surface(dense_grid(lambda p: 0.5 - opacity(p), 1.2, 0.1))
    assert lattice.n_faces == 0


def test_too_few_and_too_many_points_are_refused():
    few = TetraPoints(torch.zeros(4, 3), torch.ones(4))
    with pytest.raises(ValueError, match="splats: expected opaque ones before the cameras"):
        tetra_surface(soft_ball, few)
    many = TetraPoints(torch.zeros(200_000, 3), torch.ones(200_000))
    with pytest.raises(
        ValueError, match=r"points: 200,000 would take 0\.3 GB, allowed are 0\.1\. Use a larger --voxel-size"
    ):
        tetra_surface(soft_ball, many, max_bytes=100 << 20)


def test_poisson_and_flexicubes_follow_the_fused_surface():
    scene, cameras = ball(), ring_cameras()
    views = render_views(scene, cameras, ViewSettings("median"))
    fused = find_surface(scene, views, SurfaceSettings("tsdf", 0.08))
    smooth = find_surface(scene, views, SurfaceSettings("poisson", 0.08))
    few = find_surface(scene, views, SurfaceSettings("flexicubes", 0.08, resolution=16))
    for mesh in (smooth, few):
        assert compare_meshes(mesh, fused, CompareSettings((0.01,), 2000)).chamfer < 0.04
    assert few.n_faces < fused.n_faces
    with pytest.raises(ValueError, match="resolution: expected 16 to 256 cubes, got 8"):
        SurfaceSettings("flexicubes", resolution=8)


def test_long_triangles_in_mid_air_are_dropped():
    corners = torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 4, 0], [9, 9, 0], [9, 9.5, 0], [9.5, 9, 0]])
    mesh = Mesh(corners, torch.tensor([[0, 1, 2], [3, 5, 4]]))

    def is_solid(places: torch.Tensor) -> torch.Tensor:
        return places[:, 2] < 0

    def is_air(places: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(places), dtype=torch.bool)

    assert without_membranes(mesh, is_solid, 2.0).n_faces == 2
    assert without_membranes(mesh, is_air, 2.0).faces.tolist() == [[0, 2, 1]]
    assert without_membranes(mesh, is_air, 6.0).n_faces == 2
