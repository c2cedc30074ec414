"""Facts about scenes and captures, and the info stage."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from strategies import random_gaussians
from tiny_capture import tiny_capture, tiny_scene, write_tiny_capture

from scene3d.core.errors import CaptureError, FormatError
from scene3d.core.mesh import Mesh
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.mesh_files import write_mesh
from scene3d.io.ply import write_ply
from scene3d.io.s3d import write_s3d
from scene3d.report.facts import capture_facts, scene_facts, scene_text, size_text
from scene3d.report.mesh_facts import mesh_facts, mesh_text
from scene3d.stages.info import Config, run


def test_counts_bounds_and_bytes_of_a_scene() -> None:
    facts = scene_facts(tiny_scene(50), 1234)
    gaussians = tiny_scene(50).payload
    assert facts.n_gaussians == 50
    assert facts.sh_degree == 1
    assert facts.bounds["0%"] == pytest.approx(gaussians.means.amin(dim=0).tolist())
    assert facts.bounds["100%"] == pytest.approx(gaussians.means.amax(dim=0).tolist())
    assert facts.bytes_per_attribute["shN"] == 50 * 3 * 3 * 4
    assert sum(facts.opacity_histogram.counts) == sum(facts.scale_histogram.counts) == 50


def test_nan_and_transparent_gaussians_are_counted() -> None:
    gaussians = random_gaussians(10)
    gaussians.means[3, 1] = float("nan")
    gaussians.opacity_logits[:] = 2.0
    gaussians.opacity_logits[:2] = -9.0
    facts = scene_facts(Scene(gaussians), 0)
    assert facts.n_nonfinite == 1
    assert facts.n_transparent == 2
    assert facts.bounds["100%"][1] == pytest.approx(float(gaussians.means[:, 1].nan_to_num(-99).max()))


def test_empty_scene_has_facts() -> None:
    facts = scene_facts(Scene(random_gaussians(0)), 0)
    assert facts.n_gaussians == 0
    assert "Gaussians     0" in scene_text(facts)


def test_scale_histogram_has_round_edges_around_all_scales() -> None:
    facts = scene_facts(tiny_scene(), 0)
    largest = tiny_scene().payload.scales.amax(dim=1)
    assert facts.scale_histogram.edges[0] <= float(largest.min())
    assert facts.scale_histogram.edges[-1] >= float(largest.max())


def test_text_shows_tags_and_histograms() -> None:
    info = SceneInfo(antialiased=True, up=(0.0, 0.0, 1.0), made_by="a trainer")
    text = scene_text(scene_facts(replace(tiny_scene(), info=info), 5_000_000))
    for words in ("antialiased   yes", "up            0.0, 0.0, 1.0", "made_by       a trainer", "5.0 MB", "####"):
        assert words in text


def test_facts_of_a_capture() -> None:
    facts = capture_facts(tiny_capture(tiny_scene()))
    assert (facts.n_photos, facts.n_train, facts.n_test) == (4, 3, 1)
    assert facts.sizes == {"32x24": 4}
    assert facts.protocol == "made for tests"


@pytest.mark.parametrize(("size", "text"), [(12, "12 bytes"), (1500, "1.5 kB"), (7.9e6, "7.9 MB"), (2e9, "2.0 GB")])
def test_sizes_read_well(size: float, text: str) -> None:
    assert size_text(size) == text


def test_stage_prints_json_of_scene_and_capture(tmp_path: Path, capsys) -> None:
    scene = tiny_scene()
    write_ply(scene, tmp_path / "scene.ply")
    run(Config(tmp_path / "scene.ply", json=True))
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["n_gaussians"]) == ("scene", 30)
    run(Config(write_tiny_capture(tmp_path / "capture", scene), json=True, test_every=2))
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["n_photos"], found["n_test"]) == ("capture", 4, 2)


def test_stage_finds_the_scene_of_a_run(tmp_path: Path, capsys) -> None:
    (tmp_path / "fit").mkdir()
    write_ply(tiny_scene(), tmp_path / "fit" / "scene.ply")
    run(Config(tmp_path))
    assert "Gaussians     30" in capsys.readouterr().out


def test_bytes_of_a_container_add_up_to_the_file(tmp_path: Path, capsys) -> None:
    write_s3d(tiny_scene(), tmp_path / "scene.s3d")
    run(Config(tmp_path / "scene.s3d", json=True))
    parts = json.loads(capsys.readouterr().out)["bytes_in_file"]
    assert sum(parts.values()) == (tmp_path / "scene.s3d").stat().st_size
    assert {"means", "sh0", "header"} <= set(parts)
    run(Config(tmp_path / "scene.s3d"))
    shown = capsys.readouterr().out
    assert "in the file\n" in shown
    assert all(f"  {name} " in shown and f"{n} bytes" in shown for name, n in parts.items())


def test_missing_path_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no such file or folder"):
        run(Config(tmp_path / "nothing.ply"))


def test_percentiles_of_one_value_are_that_value() -> None:
    gaussians = random_gaussians(1).map(lambda value: torch.full_like(value, 0.25))
    facts = scene_facts(Scene(gaussians), 0)
    assert set(facts.bounds.values()) == {(0.25, 0.25, 0.25)}


def _tetrahedron() -> Mesh:
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    return Mesh(corners, torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))


def test_edges_and_area_of_a_mesh_are_told() -> None:
    closed = mesh_facts(_tetrahedron(), 99)
    assert (closed.n_faces, closed.n_open_edges, closed.n_forked_edges) == (4, 0, 0)
    assert closed.area == pytest.approx(1.5 + math.sqrt(3) / 2)
    assert closed.bounds == [[0, 0, 0], [1, 1, 1]]
    assert "watertight" in mesh_text(closed)
    cut = Mesh(_tetrahedron().vertices, _tetrahedron().faces[1:])
    assert mesh_facts(cut, 99).n_open_edges == 3
    seam = Mesh(cut.corners().flatten(0, 1), torch.arange(9).view(3, 3))
    assert mesh_facts(seam, 99).n_open_edges == 3


@pytest.mark.parametrize("name", ["mesh.ply", "mesh.obj", "mesh.glb"])
def test_info_of_a_mesh(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    pytest.importorskip("trimesh", reason="trimesh is not installed")
    write_mesh(_tetrahedron(), tmp_path / name)
    run(Config(tmp_path / name))
    assert "mesh          4 triangles, 4 vertices" in capsys.readouterr().out


def test_a_damaged_splat_file_is_not_taken_for_a_mesh(tmp_path: Path) -> None:
    write_ply(tiny_scene(), tmp_path / "scene.ply")
    whole = (tmp_path / "scene.ply").read_bytes()
    (tmp_path / "scene.ply").write_bytes(whole[:-10])
    with pytest.raises(FormatError, match=r"scene\.ply"):
        run(Config(tmp_path / "scene.ply"))
