"""Which way is up in mesh files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch

from scene3d.core.mesh import Mesh
from scene3d.io.mesh_files import read_mesh, write_mesh
from scene3d.io.mesh_up import mesh_up

pytest.importorskip("trimesh", reason="mesh files are read by it: pip install scene3d[mesh]")

# Of a float32 rotation.
CLOSE = 1e-5


def tetrahedron() -> Mesh:
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    return Mesh(corners, torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))


@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (0.0, 1.0, 0.0), (0.6, 0.0, -0.8)])
@pytest.mark.parametrize("name", ["a.glb", "a.ply", "a.obj"])
def test_a_written_mesh_says_which_way_is_up_in_its_frame(tmp_path: Path, name: str, up: tuple[float, float, float]):
    write_mesh(tetrahedron(), tmp_path / name, up)
    found = mesh_up(tmp_path / name)
    assert found.is_said
    assert found.direction == pytest.approx(up, abs=CLOSE)
    torch.testing.assert_close(read_mesh(tmp_path / name).vertices, tetrahedron().vertices)


@pytest.mark.parametrize(("name", "usual"), [("a.ply", (0, 0, 1)), ("a.obj", (0, 1, 0)), ("a.stl", (0, 0, 1))])
def test_files_that_say_nothing_have_the_usual_axis(tmp_path: Path, name: str, usual: tuple[float, float, float]):
    if name == "a.stl":
        (tmp_path / name).write_bytes(b"\0" * 80 + struct.pack("<I", 0))
    else:
        write_mesh(tetrahedron(), tmp_path / name)
    found = mesh_up(tmp_path / name)
    assert (found.direction, found.is_said) == (usual, False)


def test_y_is_up_in_gltf_of_others(tmp_path: Path):
    nodes = [{"name": "scene3d_upright"}, {"mesh": 0, "matrix": [1, 0, 0, 0, 0, 0, -1, 0, 0, 1, 0, 0, 0, 0, 0, 1]}]
    (tmp_path / "a.gltf").write_text(json.dumps({"asset": {"version": "2.0"}, "nodes": nodes}))
    assert mesh_up(tmp_path / "a.gltf").direction == (0.0, 1.0, 0.0)


def test_a_comment_that_is_no_direction_says_nothing(tmp_path: Path):
    (tmp_path / "a.ply").write_text("ply\nformat ascii 1.0\ncomment Vertical axis: 0 0 nan\nend_header\n")
    assert not mesh_up(tmp_path / "a.ply").is_said
