"""FlexiCubes and mosaics of signed distances: closed, differentiable, sharp, small."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from mesh_shapes import (
    area_and_volume,
    box,
    bracket_field,
    dense_grid,
    edge_counts,
    euler_number,
    is_closed,
    ring_cameras,
    sphere_field,
    tilt,
    torus_field,
)

from scene3d.core.cameras import Cameras
from scene3d.core.mesh import Mesh
from scene3d.meshing.block_grid import extract_surface
from scene3d.meshing.compare import CompareSettings, compare_meshes
from scene3d.meshing.flexi_fit import FlexSettings, fit_flexicubes, fit_open_surface, grid_around
from scene3d.meshing.flexi_views import TargetView, fit_to_views, view_loss
from scene3d.meshing.flexicubes import extract, start_grid
from scene3d.meshing.hash_sdf import HashSdfSettings, active_levels, fit_hash_sdf
from scene3d.meshing.mosaic import MosaicSdf, mesh_of_mosaic, mosaic_of_mesh, pack_mosaic, unpack_mosaic
from scene3d.ops.triangles import sample_surface, signed_distance, view_mesh

SETTINGS = CompareSettings(thresholds=(0.01,), n_samples=4000)


def bracket(voxel_size: float) -> Mesh:
    return extract_surface(dense_grid(lambda p: bracket_field(p @ tilt()), 1.7, voxel_size))


@pytest.mark.parametrize(("field", "euler"), [(sphere_field, 2), (torus_field, 0)])
def test_neutral_weights_give_closed_surfaces_of_the_right_kind(field, euler: int):  # type: ignore[no-untyped-def]
    mesh = extract(grid_around(extract_surface(dense_grid(field, 1.4, 0.1)), 24, field)).mesh()
    assert is_closed(mesh)
    assert euler_number(mesh) == euler
    assert area_and_volume(mesh)[1] > 0


def test_a_fine_sphere_has_its_area_and_volume():
    mesh = extract(grid_around(box(), 48, sphere_field)).mesh()
    area, volume = area_and_volume(mesh)
    assert abs(area / (4 * math.pi) - 1) < 0.01
    assert abs(volume / (4 / 3 * math.pi) - 1) < 0.01


def test_any_signs_give_edges_of_exactly_two_faces():
    sdf = torch.rand(13, 13, 13, generator=torch.Generator().manual_seed(0)) - 0.5
    for axis in range(3):
        sdf.select(axis, 0).fill_(1.0)
        sdf.select(axis, 12).fill_(1.0)
    for with_centers in (False, True):
        surface = extract(start_grid(sdf, torch.zeros(3), 1.0), with_centers)
        assert bool((edge_counts(surface.mesh()) == 2).all())


def test_the_surface_is_differentiable_in_everything():
    generator = torch.Generator().manual_seed(1)
    neutral = grid_around(box(), 8, sphere_field)
    noise = {k: 0.2 * torch.randn(v.shape, generator=generator).double() for k, v in neutral.learnable().items()}
    grid = replace(neutral, low=neutral.low.double(), **{**noise, "sdf": neutral.sdf.double() + 0.03})

    def total(**moved: torch.Tensor) -> torch.Tensor:
        surface = extract(replace(grid, **moved), with_centers=True)
        return (surface.vertices * torch.arange(3.0, dtype=torch.float64)).square().sum() + surface.deviation

    for name, value in grid.learnable().items():
        leaf = value.clone().requires_grad_()
        total(**{name: leaf}).backward()
        step = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        ahead, behind = (float(total(**{name: value + h * step})) for h in (1e-6, -1e-6))
        assert leaf.grad is not None
        assert float((leaf.grad * step).sum()) == pytest.approx((ahead - behind) / 2e-6, rel=1e-4, abs=1e-6), name


def test_a_tilted_cube_keeps_its_edges():
    cube = box(turn=tilt())
    settings = FlexSettings(resolution=16, n_steps=40, n_samples=1500)
    fitted = fit_flexicubes(cube, settings)
    grid = grid_around(cube, 16, lambda points: signed_distance(cube, points))
    marched = extract_surface(dense_grid(lambda points: signed_distance(cube, points), 1.8, grid.cell))
    ours, theirs = compare_meshes(fitted, cube, SETTINGS), compare_meshes(marched, cube, SETTINGS)
    assert is_closed(fitted)
    assert ours.chamfer < 0.45 * theirs.chamfer
    assert fitted.n_faces < 1.2 * marched.n_faces


def test_a_mechanical_part_keeps_its_edges():
    truth = bracket(0.04)
    fitted = fit_flexicubes(truth, FlexSettings(resolution=16, n_steps=40, n_samples=2000))
    marched = bracket(grid_around(truth, 16, sphere_field).cell)
    assert is_closed(fitted)
    assert fitted.n_faces < 1.2 * marched.n_faces
    ours, theirs = compare_meshes(fitted, truth, SETTINGS), compare_meshes(marched, truth, SETTINGS)
    assert ours.chamfer < 0.65 * theirs.chamfer


def test_signed_distances_of_a_box_are_exact():
    points = 1.5 * torch.randn(300, 3, generator=torch.Generator().manual_seed(2))
    gap = (points @ tilt()).abs() - torch.tensor([1.0, 0.5, 0.7])
    exact = gap.clamp_min(0).norm(dim=1) + gap.amax(dim=1).clamp_max(0)
    torch.testing.assert_close(signed_distance(box((1.0, 0.5, 0.7), tilt()), points), exact, rtol=1e-4, atol=1e-5)


def test_a_mosaic_gives_back_its_mesh():
    truth = extract_surface(dense_grid(torus_field, 1.4, 0.1))
    data = pack_mosaic(mosaic_of_mesh(truth, 150))
    again = mesh_of_mosaic(unpack_mosaic(data))
    assert len(data) < 150 * (3 + 343) * 2 + 40
    assert is_closed(again)
    assert euler_number(again) == 0
    assert compare_meshes(again, truth, SETTINGS).chamfer < 0.006


def test_more_cells_are_more_exact():
    truth = extract_surface(dense_grid(sphere_field, 1.0, 0.1))
    errors = [compare_meshes(mesh_of_mosaic(mosaic_of_mesh(truth, n)), truth, SETTINGS).chamfer for n in (30, 100)]
    assert errors[1] < 0.8 * errors[0]


def test_a_mosaic_knows_nothing_away_from_its_cells():
    mosaic = MosaicSdf(torch.zeros(1, 3), 0.5, torch.zeros(1, 7, 7, 7))
    distances = mosaic.distance(torch.tensor([[0.0, 0, 0], [0.4, 0, 0], [0.6, 0, 0]]))
    assert distances.isnan().tolist() == [False, False, True]


@pytest.mark.parametrize("cut", [0, 20, 60])
def test_damaged_mosaics_are_refused(cut: int):
    data = pack_mosaic(MosaicSdf(torch.zeros(1, 3), 0.5, torch.randn(1, 7, 7, 7)))
    with pytest.raises(ValueError, match="mosaic: "):
        unpack_mosaic(data[:cut])
    with pytest.raises(ValueError, match="mosaic: "):
        unpack_mosaic(data[:8] + b"\xff\xff\x00\x00" + data[12:])


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="resolution: expected 4 to 256"):
        FlexSettings(resolution=2)
    with pytest.raises(ValueError, match="n_cells: expected 1 to"):
        mosaic_of_mesh(box(), 0)


def test_open_surfaces_stay_open_and_get_few_triangles():
    truth = extract_surface(dense_grid(sphere_field, 1.1, 0.05))
    bowl = truth.with_faces(truth.corners().mean(dim=1)[:, 2] < 0.3)
    fitted = fit_open_surface(bowl, FlexSettings(resolution=20, n_steps=25, n_samples=2000))
    result = compare_meshes(fitted, bowl, SETTINGS)
    assert result.accuracy < 0.01
    assert result.chamfer < 0.012
    assert not is_closed(fitted)
    assert fitted.n_faces < bowl.n_faces / 4


def test_cubes_beyond_the_memory_are_refused():
    with pytest.raises(
        ValueError, match=r"resolution: 256 cubes a side would take 1\.9 GB, allowed are 1\.0\. Use 207 or"
    ):
        fit_open_surface(box(), FlexSettings(resolution=256), max_bytes=1 << 30)


def views_of(mesh: Mesh, cameras: Cameras) -> list[TargetView]:
    seen = [view_mesh(mesh, cameras, i) for i in range(len(cameras))]
    return [TargetView(one.depth, ~one.hit) for one in seen]


def test_images_alone_turn_a_ball_into_a_box():
    truth, cameras = box((0.8, 0.5, 0.6), tilt()), ring_cameras(12)
    start = grid_around(box((1.1, 1.1, 1.1)), 16, lambda p: sphere_field(p, 0.7))
    fitted = fit_to_views(start, views_of(truth, cameras), cameras, FlexSettings(16, n_steps=40, lr=0.06))
    before, after = (compare_meshes(m, truth, SETTINGS).chamfer for m in (extract(start).mesh(), fitted))
    assert is_closed(fitted)
    assert after < 0.25 * before
    assert after < 0.2 * start.cell


def test_a_mesh_that_looks_right_costs_nothing():
    cameras, generator = ring_cameras(2), torch.Generator().manual_seed(0)
    grid = grid_around(box(), 16, sphere_field)
    grid = replace(grid, sdf=grid.sdf / grid.cell)
    surface = extract(grid)
    view = views_of(surface.mesh(), cameras)[0]
    assert float(view_loss(surface, grid, view, cameras.select([0]), generator)) < 1e-5
    smaller = replace(view, depth=torch.zeros_like(view.depth), empty=torch.ones_like(view.empty))
    assert float(view_loss(surface, grid, smaller, cameras.select([0]), generator)) > 0.1


def test_a_hash_grid_learns_distances_that_flexicubes_can_take():
    truth = bracket(0.06)
    settings = HashSdfSettings(n_levels=6, n_row_bits=11, n_steps=70, n_points=1000)
    learned = fit_hash_sdf(truth, lambda p: bracket_field(p @ tilt()), settings)
    points, _ = sample_surface(truth, 2000, 5)
    assert float(learned(points).abs().mean()) < 0.02
    grid = grid_around(truth, 24, learned)
    result = compare_meshes(extract(grid).mesh(), truth, SETTINGS)
    assert result.completeness < 0.7 * grid.cell


def test_levels_are_switched_on_one_after_the_other():
    settings = HashSdfSettings(n_levels=8, first_levels=2, all_from=0.5)
    levels = [active_levels(settings, f) for f in (0.0, 0.1, 0.25, 0.5, 1.0)]
    assert levels == [2, 3, 5, 8, 8]
    with pytest.raises(ValueError, match="first_levels: expected 1 to n_levels"):
        HashSdfSettings(n_levels=4, first_levels=5)
