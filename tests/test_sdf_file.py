"""Surfaces as files of signed distances: round trips, damage, and the command both ways."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scene3d.core.errors import FormatError, OutputError
from scene3d.core.mesh import Mesh
from scene3d.io.mesh_files import read_mesh, write_mesh
from scene3d.io.s3d_container import read_container, write_container
from scene3d.meshing.mosaic import mosaic_of_mesh
from scene3d.meshing.radial_sdf import RadialSdf, fit_radial_sdf
from scene3d.meshing.sdf_file import Sdf, read_sdf, surface_mesh, write_sdf
from scene3d.ops.radial_grid import RadialGridSettings
from scene3d.ops.triangles import closest_on_mesh
from scene3d.stages import sdf as stage

pytest.importorskip("trimesh")

SETTINGS = RadialGridSettings(n_numbers=6000, n_steps=40, n_points=2048)


@functools.cache
def octahedron() -> Mesh:
    corners = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    faces = [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
    return Mesh(corners, torch.tensor(faces))


@functools.cache
def surface(name: str) -> Sdf:
    return mosaic_of_mesh(octahedron(), 40) if name == "mosaic" else fit_radial_sdf(octahedron(), SETTINGS)


@pytest.mark.parametrize("name", ["mosaic", "radial"])
def test_surfaces_come_back_and_have_meshes(name: str, tmp_path: Path):
    path = tmp_path / "a.sdf"
    write_sdf(surface(name), path)
    back = read_sdf(path)
    points = octahedron().vertices[:4] * 0.9
    torch.testing.assert_close(back.distance(points), surface(name).distance(points), rtol=0, atol=5e-3)
    mesh = surface_mesh(back, 0.08)
    assert mesh.n_faces > 100
    assert float(closest_on_mesh(octahedron(), mesh.vertices).distances.mean()) < 0.1


@pytest.mark.parametrize("name", ["mosaic", "radial"])
def test_damaged_surfaces_are_refused(name: str, tmp_path: Path):
    path = tmp_path / "a.sdf"
    write_sdf(surface(name), path)
    whole = path.read_bytes()
    for size in (0, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError):
            read_sdf(path)


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path):
    path = tmp_path / "a.sdf"
    write_sdf(surface("radial"), path)
    container = read_container(path)
    for name, value in (
        ("grids", [[1 << 20, 1 << 20, 4, 4]]),
        ("grids", "none"),
        ("rows", [-1, 3]),
        ("layers", []),
        ("low", [0.0, 1.0]),
        ("size", -1.0),
        ("waves", ["a", 2]),
    ):
        meta = {**json.loads(json.dumps(container.meta)), name: value}
        write_container(replace(container, meta=meta), path)
        with pytest.raises(FormatError, match="is no whole surface"):
            read_sdf(path)
    write_container(replace(container, kind="splats"), path)
    with pytest.raises(FormatError, match="expected a surface"):
        read_sdf(path)


def test_bases_are_kept(tmp_path: Path):
    one = surface("radial")
    assert isinstance(one, RadialSdf)
    assert one.model.bases is not None
    write_sdf(one, tmp_path / "a.sdf")
    back = read_sdf(tmp_path / "a.sdf")
    assert isinstance(back, RadialSdf)
    assert back.model.bases is not None
    assert len(back.model.bases) == len(one.model.bases)
    assert back.model.bases.waves == one.model.bases.waves


def test_the_command_goes_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_mesh(octahedron(), tmp_path / "a.ply")
    stage.run(stage.Config(tmp_path / "a.ply", tmp_path / "a.sdf", cells=40))
    assert "on the wrong side" in capsys.readouterr().out
    stage.run(stage.Config(tmp_path / "a.sdf", tmp_path / "b.ply", voxel_size=0.1))
    assert "triangles" in capsys.readouterr().out
    assert read_mesh(tmp_path / "b.ply").n_faces > 100
    with pytest.raises(OutputError, match=r"a mesh becomes an .sdf file"):
        stage.run(stage.Config(tmp_path / "a.ply", tmp_path / "b.glb"))
