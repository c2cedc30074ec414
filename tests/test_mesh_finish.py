"""Finish: specks, holes, fewer triangles; comparison with the truth; texture and files."""

from __future__ import annotations

import math
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mesh_shapes import area_and_volume, box, dense_grid, is_closed, ring_cameras, sphere_field, square

from scene3d.core.errors import FormatError, OutputError
from scene3d.core.mesh import Mesh, edge_counts, face_areas, face_edges, unique_edges, vertex_normals
from scene3d.io.mesh_files import read_mesh, upright, write_mesh
from scene3d.meshing.block_grid import extract_surface
from scene3d.meshing.compare import CompareSettings, compare_meshes, compare_parts, pixel_footprint
from scene3d.meshing.finish import (
    FinishSettings,
    boundary_loops,
    close_holes,
    decimate,
    finish,
    remove_specks,
    unforked,
    unpaired,
)
from scene3d.meshing.picture import mesh_picture
from scene3d.meshing.preview import turntable
from scene3d.meshing.texture import bake_texture, color_vertices, fill_unknown, split_faces, unwrap

pytest.importorskip("scipy", reason="finishing meshes needs scipy: pip install scene3d[mesh]")
SETTINGS = CompareSettings(thresholds=(0.01, 0.2), n_samples=4000)


def sphere(voxel_size: float = 0.1) -> Mesh:
    return extract_surface(dense_grid(sphere_field, 1.0, voxel_size))


def joined(a: Mesh, b: Mesh) -> Mesh:
    return Mesh(torch.cat([a.vertices, b.vertices]), torch.cat([a.faces, b.faces + len(a.vertices)]))


def test_specks_go_and_the_rest_stays():
    ball = sphere()
    speck = Mesh(0.02 * ball.vertices + 3, ball.faces)
    cleaned = remove_specks(joined(ball, speck), 1e-2)
    assert torch.equal(cleaned.vertices, ball.vertices)
    assert cleaned.n_faces == ball.n_faces


def test_small_holes_are_closed_and_large_ones_stay():
    ball = sphere()
    away = torch.ones(ball.n_faces, dtype=torch.bool)
    away[:1] = False
    away[(ball.corners().mean(dim=1) - ball.corners().mean(dim=1)[500]).norm(dim=1) < 0.15] = False
    top = ball.corners().mean(dim=1)[:, 2] > 0.8
    open_ball = ball.with_faces(away & ~top)
    sizes = sorted(len(loop) for loop in boundary_loops(open_ball))
    assert sizes[0] == 3
    assert len(sizes) == 3
    assert [len(loop) for loop in boundary_loops(close_holes(open_ball, sizes[1]))] == [sizes[2]]
    closed = close_holes(open_ball, sizes[2])
    assert is_closed(closed)
    assert area_and_volume(closed)[1] > 0.9 * 4 / 3 * math.pi


def test_decimation_keeps_the_budget_and_the_shape():
    pytest.importorskip("fast_simplification", reason="decimation needs it: pip install scene3d[mesh]")
    small = finish(sphere(0.06), FinishSettings(max_faces=800))
    assert small.n_faces <= 800
    assert small.normals is not None
    assert float(sphere_field(small.vertices).abs().max()) < 0.03
    assert abs(area_and_volume(small)[1] / (4 / 3 * math.pi) - 1) < 0.02


def test_edges_of_two_triangles_are_five():
    pair = Mesh(torch.zeros(5, 3), torch.tensor([[3, 1, 0], [0, 1, 4]]))
    assert face_edges(pair.faces).tolist() == [[3, 1], [0, 1], [1, 0], [1, 4], [0, 3], [4, 0]]
    assert unique_edges(pair).tolist() == [[0, 1], [0, 3], [0, 4], [1, 3], [1, 4]]
    assert edge_counts(pair).tolist() == [2, 1, 1, 1, 1]
    assert unique_edges(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))).shape == (0, 2)


def test_borders_keep_their_place_while_triangles_go():
    pytest.importorskip("fast_simplification", reason="decimation needs it: pip install scene3d[mesh]")
    ball = sphere(0.04)
    strip = ball.with_faces(ball.corners().mean(dim=1)[:, 2].abs() < 0.3)
    fewer = decimate(strip, strip.n_faces // 3)
    assert fewer.n_faces == strip.n_faces // 3
    rim, left = (
        torch.cat([mesh.vertices[torch.tensor(loop)] for loop in boundary_loops(mesh)]) for mesh in (strip, fewer)
    )
    assert float(torch.cdist(rim.double(), left.double()).min(dim=1).values.max()) < 1e-6
    assert len(boundary_loops(decimate(strip, 200, keep_borders=False))[0]) < len(boundary_loops(fewer)[0])
    # Rims alone are more than that.
    assert decimate(strip, 100).n_faces <= 100


def test_planes_at_a_slant_keep_the_budget():
    pytest.importorskip("fast_simplification", reason="decimation needs it: pip install scene3d[mesh]")
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    cube = extract_surface(dense_grid(lambda p: (p @ turn).abs().amax(dim=1) - 0.8, 1.5, 0.06))
    fewer = decimate(cube, 1000)
    assert fewer.n_faces <= 1000
    assert is_closed(fewer)


def test_closed_meshes_stay_closed_when_triangles_go():
    fewer = decimate(sphere(0.04), 3000)
    assert fewer.n_faces == 3000
    assert is_closed(fewer)


def n_same_direction(mesh: Mesh) -> int:
    edges = face_edges(mesh.faces)
    return len(edges) - len(edges.unique(dim=0))


def test_a_third_sheet_along_an_edge_gives_way_to_larger_ones():
    sheets = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 3, 0], [0, -2, 0], [0, 0, 1]])
    mesh = Mesh(sheets, torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]]))
    kept = unforked(mesh)
    assert int(edge_counts(kept).max()) == 2
    assert sorted(kept.vertices[:, 1].tolist()) == [-2, 0, 0, 3]
    assert unforked(kept) is kept


def test_a_triangle_that_is_turned_over_is_turned_back():
    ball = extract_surface(dense_grid(sphere_field, 1.2, 0.2))
    smallest = int(face_areas(ball).argmin())
    faces = ball.faces.clone()
    faces[smallest] = faces[smallest].flip(0)
    turned = Mesh(ball.vertices, faces)
    assert n_same_direction(turned) == 3
    mended = unforked(turned)
    assert n_same_direction(mended) == 0
    assert is_closed(mended)
    assert area_and_volume(mended)[1] == pytest.approx(area_and_volume(ball)[1])
    assert unforked(turned, can_close=False).n_faces == ball.n_faces - 1


def test_triangles_back_to_back_go():
    ball = extract_surface(dense_grid(sphere_field, 1.2, 0.4))
    n = len(ball.vertices)
    pair = torch.tensor([[0, 1, 2], [2, 1, 0]]) + n
    both = Mesh(torch.cat([ball.vertices, 5 + torch.eye(3)]), torch.cat([ball.faces, pair]))
    assert torch.equal(unpaired(both).faces, ball.faces)


@pytest.mark.parametrize("max_faces", [0, 300])
def test_finished_meshes_have_no_forks_and_one_winding(max_faces: int):
    # Two balls that share an edge, one of them cut open: decimated as an open mesh.
    ball = extract_surface(dense_grid(sphere_field, 1.2, 0.15))
    n, a, b = len(ball.vertices), *ball.faces[0, :2].tolist()
    again = ball.faces + n
    again = torch.where(again == a + n, a, torch.where(again == b + n, b, again))
    other = ball.vertices + (ball.vertices[a] + ball.vertices[b])
    mesh = Mesh(torch.cat([ball.vertices, other]), torch.cat([ball.faces, again[: len(again) * 3 // 4]]))
    assert int(edge_counts(mesh).max()) == 4
    done = finish(mesh, FinishSettings(max_faces=max_faces))
    assert int(edge_counts(done).max()) == 2
    assert n_same_direction(done) == 0
    assert done.n_faces > (max_faces or mesh.n_faces) * 0.95


def test_corners_at_one_place_move_apart():
    one = sphere(0.5)
    far = one.vertices[:, 0].argmax()
    other = Mesh(
        one.vertices * torch.tensor([-1.0, 1, 1]) + torch.tensor([2.0, 0, 0]) * one.vertices[far], one.faces.flip(1)
    )
    both = joined(one, other)
    assert len(torch.unique(both.vertices, dim=0)) < len(both.vertices)
    apart = decimate(both, both.n_faces)
    assert is_closed(apart)
    assert len(torch.unique(apart.vertices, dim=0)) == len(apart.vertices)
    assert float((apart.vertices - both.vertices).abs().amax()) < 1e-2


def test_parallel_squares_are_their_distance_apart():
    result = compare_meshes(square(0.05), square(0.0), SETTINGS)
    assert result.accuracy == pytest.approx(0.05, abs=1e-6)
    assert result.chamfer == pytest.approx(0.05, abs=1e-6)
    assert result.f_scores == (0.0, 1.0)
    assert result.normal_consistency == pytest.approx(1.0, abs=1e-6)


def test_what_is_missing_lowers_completeness_and_recall_only():
    half = Mesh(square(0.0).vertices * torch.tensor([0.5, 1, 1]), square(0.0).faces)
    result = compare_meshes(half, square(0.0), SETTINGS)
    assert result.accuracy < 1e-6
    assert result.completeness == pytest.approx(0.125, rel=0.02)
    assert result.precision == (1.0, 1.0)
    assert result.recall[1] == pytest.approx(0.7, abs=0.02)


def test_parts_of_the_truth_are_measured_each_by_what_is_nearest_to_it():
    truth = joined(square(0.0), square(2.0))
    part = torch.arange(truth.n_faces) // square(0.0).n_faces
    results = compare_parts(joined(square(0.02), square(1.9)), truth, part, SETTINGS)
    assert results[0].chamfer == pytest.approx(0.02, abs=1e-6)
    assert results[1].chamfer == pytest.approx(0.1, abs=1e-6)
    assert list(compare_parts(square(0.02), truth, part, SETTINGS)) == [0]


def test_hidden_parts_do_not_count_where_views_are_given():
    cameras = ring_cameras(8)
    ball = sphere()
    core = Mesh(0.5 * ball.vertices, ball.faces)
    everything = compare_meshes(ball, joined(ball, core), SETTINGS)
    seen = compare_meshes(ball, joined(ball, core), SETTINGS, cameras)
    assert everything.completeness > 0.05
    assert seen.completeness < 1e-6


def test_the_footprint_is_distance_over_focal_length():
    footprint = pixel_footprint(sphere(), ring_cameras(4, distance=4.0, focal=110.0))
    assert footprint == pytest.approx(3.2 / 110, rel=0.05)


def test_a_mesh_elsewhere_is_refused():
    far = Mesh(square(0.0).vertices + 100, square(0.0).faces)
    with pytest.raises(ValueError, match="mesh: nothing of it is inside of the box of the truth"):
        compare_meshes(far, square(0.0), SETTINGS)


def position_pictures(mesh: Mesh, cameras) -> list[torch.Tensor]:  # type: ignore[no-untyped-def]
    """Pictures in which the colour of every point tells where it is."""
    colored = Mesh(mesh.vertices, mesh.faces, colors=((mesh.vertices * 0.4 + 0.5) * 255).round().byte())
    images = [mesh_picture(colored, cameras, i, oversampling=1)[0] for i in range(len(cameras))]
    return [(image * 255).round().byte() for image in images]


def test_texture_shows_what_the_pictures_show():
    pytest.importorskip("xatlas", reason="unwrapping needs it: pip install scene3d[mesh]")
    mesh, cameras = sphere(0.15), ring_cameras(12)
    mesh = Mesh(mesh.vertices, mesh.faces, normals=vertex_normals(mesh))
    pictures = position_pictures(mesh, cameras)
    baked = bake_texture(unwrap(mesh, 256), cameras, pictures, 256)
    assert baked.uvs is not None
    assert 0 <= float(baked.uvs.min()) <= float(baked.uvs.max()) <= 1
    again, alpha = mesh_picture(baked, cameras, 5, oversampling=1)
    error = (again - pictures[5].float() / 255).abs().mean(dim=-1)[alpha > 0.5]
    assert float(error.mean()) < 0.02


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_few_triangles_take_nothing_away_from_meshes_of_any_size(size: float):
    pytest.importorskip("fast_simplification", reason="decimation needs it: pip install scene3d[mesh]")
    mesh = sphere(0.04)
    fewer = decimate(Mesh(mesh.vertices * size, mesh.faces), 100)
    assert fewer.n_faces <= 100
    assert is_closed(fewer)
    at_corners, within = fewer.vertices.norm(dim=1) / size, fewer.corners().mean(dim=1).norm(dim=1) / size
    assert 1.0 < float(at_corners.min()) <= float(at_corners.max()) < 1.1
    assert 0.85 < float(within.min()) <= float(within.max()) < 1.0


@pytest.mark.parametrize("size", [2.0**-16, 2.0**16])
def test_meshes_of_all_sizes_are_unwrapped_alike(size: float):
    pytest.importorskip("xatlas", reason="unwrapping needs it: pip install scene3d[mesh]")
    mesh = sphere(0.15)
    found, expected = unwrap(Mesh(mesh.vertices * size, mesh.faces), 256), unwrap(mesh, 256)
    assert found.uvs is not None
    assert expected.uvs is not None
    assert torch.equal(found.faces, expected.faces)
    assert torch.equal(found.uvs, expected.uvs)


def test_vertices_that_no_picture_shows_take_the_colors_of_their_neighbours():
    mesh, cameras = sphere(0.15), ring_cameras(12).select([0])
    pictures = [torch.full((96, 96, 3), 200, dtype=torch.uint8)]
    colored = color_vertices(mesh, cameras, pictures)
    assert colored.colors is not None
    assert int(colored.colors.min()) >= 199


def test_turntables_show_all_of_a_long_thing():
    mast = box((0.15, 0.15, 2.0))
    white = Mesh(mast.vertices, mast.faces, colors=torch.full((8, 3), 255, dtype=torch.uint8))
    tiles = turntable(white, (0.0, 0.0, 1.0)).reshape(4, 320, 6, 320, 3).float()
    assert float(tiles.amax(dim=1).amax(dim=2).min()) > 200
    assert float(torch.cat([tiles[:, :4], tiles[:, -4:]], dim=1).max()) < 60
    assert float(tiles[:, 60:260].amax(dim=(2, 3, 4)).min(dim=1).values.min()) > 60


def test_holes_in_a_texture_are_filled_from_around():
    image = torch.zeros(33, 17, 3)
    image[:, :9] = 10.0
    image[:, 9:] = 50.0
    known = torch.rand(33, 17, generator=torch.Generator().manual_seed(0)) < 0.3
    filled = fill_unknown(image * known[..., None], known)
    assert torch.equal(filled[known], image[known])
    assert 10 <= float(filled.min()) <= float(filled.max()) <= 50.001
    assert float(filled[:, :5].mean()) < 20


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_files_keep_shape_frame_and_colors(tmp_path: Path, suffix: str):
    pytest.importorskip("trimesh", reason="mesh files need it: pip install scene3d[mesh]")
    mesh = sphere(0.3)
    colors = torch.randint(0, 255, mesh.vertices.shape, dtype=torch.uint8)
    mesh = Mesh(mesh.vertices + torch.tensor([5.0, 6, 7]), mesh.faces, vertex_normals(mesh), colors)
    path = tmp_path / f"mesh{suffix}"
    write_mesh(mesh, path, up=(0.0, 0.0, 1.0))
    again = read_mesh(path)
    torch.testing.assert_close(again.vertices, mesh.vertices, rtol=1e-5, atol=1e-5)
    assert torch.equal(again.faces, mesh.faces)
    assert again.colors is not None
    assert int((again.colors.int() - colors.int()).abs().max()) <= 1


@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_textures_come_back(tmp_path: Path, suffix: str):
    pytest.importorskip("trimesh", reason="mesh files need it: pip install scene3d[mesh]")
    uvs = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    texture = torch.zeros(64, 64, 3, dtype=torch.uint8)
    texture[:32, :, 0] = 200
    mesh = Mesh(square(0.0).vertices, square(0.0).faces, uvs=uvs, texture=texture)
    write_mesh(mesh, tmp_path / f"square{suffix}")
    again = read_mesh(tmp_path / f"square{suffix}")
    assert again.uvs is not None
    assert again.texture is not None
    torch.testing.assert_close(again.uvs, uvs)
    assert int((again.texture.int() - texture.int()).abs().amax()) < 12


def test_usdz_holds_aligned_files(tmp_path: Path):
    uvs = torch.zeros(4, 2)
    mesh = Mesh(square(0.0).vertices, square(0.0).faces, uvs=uvs, texture=torch.zeros(8, 8, 3, dtype=torch.uint8))
    write_mesh(mesh, tmp_path / "a.usdz", up=(0.0, 0.0, 1.0))
    data = (tmp_path / "a.usdz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.usdz") as archive:
        assert archive.namelist() == ["mesh.usda", "texture.jpg"]
        text = archive.read("mesh.usda").decode()
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            name, extra = (int.from_bytes(data[info.header_offset + k :][:2], "little") for k in (26, 28))
            assert (info.header_offset + 30 + name + extra) % 64 == 0
    assert "int[] faceVertexIndices = [0, 1, 2, 0, 2, 3]" in text


def test_usdz_passes_the_validators_of_openusd(tmp_path: Path):
    usd = pytest.importorskip("pxr.Usd", reason="usd-core is not installed")
    validation = pytest.importorskip("pxr.UsdValidation", reason="usd-core is older than 25.2")
    mesh = Mesh(square(0.0).vertices, square(0.0).faces, uvs=torch.rand(4, 2))
    mesh = replace(mesh, normals=vertex_normals(mesh), texture=torch.zeros(8, 8, 3, dtype=torch.uint8))
    write_mesh(mesh, tmp_path / "textured.usdz")
    write_mesh(replace(mesh, texture=None, colors=torch.zeros(4, 3, dtype=torch.uint8)), tmp_path / "colored.usdz")
    context = validation.ValidationContext(validation.ValidationRegistry().GetOrLoadAllValidators())
    for path in sorted(tmp_path.iterdir()):
        errors = context.Validate(usd.Stage.Open(str(path)))
        assert [error.GetMessage() for error in errors] == []


def test_normals_are_unit_whatever_the_faces():
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1e-8, 0, 5], [0, 1e-8, 5], [0, 0, 5], [9, 9, 9]])
    # A face and its back, a face of next to no area, one of none, and a vertex of no face.
    faces = torch.tensor([[0, 1, 2], [0, 2, 1], [5, 3, 4], [4, 4, 3]])
    normals = vertex_normals(Mesh(corners, faces))
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(7))
    assert bool((normals[:3, 2].abs() == 1).all())
    torch.testing.assert_close(normals[3:6], torch.tensor([[0.0, 0, 1]] * 3))


@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, -2.0, 0.0), (0.3, -0.5, 0.2), (0.0, 1.0, 0.0)])
def test_upright_turns_up_to_y(up: tuple[float, float, float]):
    turn = upright(up)[:3, :3]
    np.testing.assert_allclose(turn @ np.asarray(up) / np.linalg.norm(up), [0, 1, 0], atol=1e-9)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(turn) > 0


def test_unknown_and_damaged_files_are_refused(tmp_path: Path):
    with pytest.raises(OutputError, match=r"unknown mesh format '\.stl'. Choose one of \.glb"):
        write_mesh(square(0.0), tmp_path / "a.stl")
    (tmp_path / "bad.ply").write_bytes(b"ply\nformat binary_little_endian 1.0\nelement vertex 9999\n")
    with pytest.raises(FormatError, match=r"bad\.ply"):
        read_mesh(tmp_path / "bad.ply")
    with pytest.raises(FormatError, match="no such file"):
        read_mesh(tmp_path / "none.ply")


def test_indices_out_of_range_are_refused():
    with pytest.raises(ValueError, match="faces: expected indices from 0 to 2"):
        Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 3]]))


def test_faces_are_parted_into_small_parts_of_neighbours():
    centers = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([8.0, 1, 1])
    parts = split_faces(centers, 150)
    assert max(len(part) for part in parts) <= 150
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(1000))
    assert max(float(centers[part, 0].max() - centers[part, 0].min()) for part in parts) < 1.5
    assert [len(part) for part in split_faces(torch.zeros(5, 3), 2)] == [2, 1, 2]
