"""Two scenes compared: pictures, sizes, and what is printed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_capture import HEIGHT, WIDTH, tiny_cameras, tiny_scene, write_tiny_capture

from scene3d.core.errors import FormatError
from scene3d.core.mesh import Mesh
from scene3d.core.scene import Scene
from scene3d.io.mesh_files import write_mesh
from scene3d.io.registry import write_scene
from scene3d.render.rasterize import rasterize
from scene3d.report.comparison import compare, comparison_text
from scene3d.stages.compare import Config, run


def brighter(scene: Scene) -> Scene:
    gaussians = scene.splats()
    params = {**gaussians.params(), "sh0": gaussians.sh0 + 0.1}
    return Scene(type(gaussians)(**params), scene.info)


def test_a_scene_equals_itself():
    result = compare(tiny_scene(), tiny_scene(), tiny_cameras())
    assert result.psnr is None
    assert all(view.psnr is None and view.flip == 0 for view in result.views)
    assert [view.ssim for view in result.views] == pytest.approx([1.0] * 4)
    assert "PSNR          equal" in comparison_text(result)


def test_psnr_pools_the_pixels_of_all_views():
    a, b = tiny_scene(), brighter(tiny_scene())
    cameras = tiny_cameras()
    images = [rasterize(scene.splats(), cameras).rgb.clamp(0, 1) for scene in (a, b)]
    expected = -10 * math.log10(float((images[0] - images[1]).double().square().mean()))
    result = compare(a, b, cameras)
    assert result.psnr == pytest.approx(expected, abs=1e-3)
    assert min(view.psnr for view in result.views if view.psnr) == result.views[result.worst()[0]].psnr


def test_pictures_of_every_view_can_be_kept():
    a, b = tiny_scene(), brighter(tiny_scene())
    kept: dict[int, dict[str, np.ndarray]] = {}
    compare(a, b, tiny_cameras(), keep=kept.__setitem__)
    assert sorted(kept) == [0, 1, 2, 3]
    expected = (rasterize(a.splats(), tiny_cameras().select([1])).rgb[0].clamp(0, 1) * 255).round().byte()
    assert np.array_equal(kept[1]["truth"], expected)
    assert kept[1]["error"].shape == (HEIGHT, WIDTH, 3)
    assert kept[1]["error"].std() > 0


def test_the_stage_compares_from_the_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    scene = tiny_scene()
    capture = write_tiny_capture(tmp_path / "capture", scene)
    write_scene(scene, tmp_path / "a.ply")
    write_scene(brighter(scene), tmp_path / "b.splat")
    run(Config(tmp_path / "a.ply", tmp_path / "b.splat", capture, out=tmp_path / "worst"))
    out = capsys.readouterr().out
    assert "a.ply: 30 Gaussians" in out
    assert "% of the bytes" in out
    assert "views         1\n" in out
    assert Image.open(tmp_path / "worst" / "eval" / "views" / "00000_error.jpg").size == (WIDTH, HEIGHT)
    page = (tmp_path / "worst" / "report.html").read_text(encoding="utf-8")
    assert "<h1>b.splat against a.ply</h1>" in page
    assert "a.ply and b.splat</h2>" in page
    assert "Curves" not in page


def test_the_stage_makes_views_where_there_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_scene(tiny_scene(), tmp_path / "a.ply")
    run(Config(tmp_path / "a.ply", tmp_path / "a.ply", json=True))
    data = json.loads(capsys.readouterr().out)
    assert len(data["views"]) == 18
    assert data["psnr"] is None
    assert torch.tensor([view["ssim"] for view in data["views"]]).min() > 0.9999


@pytest.mark.parametrize("as_json", [False, True])
def test_meshes_are_compared_by_their_distance(tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool):
    pytest.importorskip("trimesh", reason="trimesh is not installed")
    square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    write_mesh(Mesh(square, faces), tmp_path / "a.ply")
    write_mesh(Mesh(square + torch.tensor([0.0, 0, 0.002]), faces), tmp_path / "b.obj")
    run(Config(tmp_path / "a.ply", tmp_path / "b.obj", json=as_json))
    out = capsys.readouterr().out
    if as_json:
        data = json.loads(out)
        assert data["chamfer"] == pytest.approx(0.002, abs=1e-6)
        assert data["f_scores"] == [0.0, 1.0, 1.0]
    else:
        assert "B to A        0.002 scene units in the mean (accuracy), 0.002 at most" in out
        assert "F             1.000 within 0.002828 (0.20%): 100.0% of B near A, 100.0% of A near B" in out
        run(Config(tmp_path / "a.ply", tmp_path / "b.obj", thresholds=(0.001,)))
        assert "F             0.000 within 0.001 (0.07%): 0.0% of B near A" in capsys.readouterr().out


def test_a_scene_is_not_compared_with_a_mesh(tmp_path: Path):
    pytest.importorskip("trimesh", reason="trimesh is not installed")
    corners = torch.eye(3)
    write_mesh(Mesh(corners, torch.tensor([[0, 1, 2]])), tmp_path / "mesh.ply")
    write_scene(tiny_scene(), tmp_path / "scene.ply")
    with pytest.raises(
        FormatError, match=r"mesh\.ply: is a mesh, the other one a scene. Make a mesh of the scene first"
    ):
        run(Config(tmp_path / "scene.ply", tmp_path / "mesh.ply"))
