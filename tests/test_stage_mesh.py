"""The mesh stage from the command line, on a small ball of splats."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mesh_shapes import is_closed, ring_cameras
from PIL import Image
from tiny_capture import write_tiny_capture

from scene3d.cli import main
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.io.camera_path import cameras_json
from scene3d.io.mesh_files import read_mesh
from scene3d.io.registry import write_scene
from scene3d.meshing.background import without_background
from scene3d.meshing.held_out import HeldOutScore
from scene3d.meshing.surfaces import SurfaceSettings
from scene3d.stages.mesh import Config, _betters_depth, _score_text

for package in ("scipy", "trimesh", "xatlas", "fast_simplification"):
    pytest.importorskip(package, reason="the mesh stage needs it: pip install scene3d[mesh]")


def ball(n: int = 900, opacity_logit: float = 6.0) -> Scene:
    """Flat splats all over the unit sphere, each facing outwards."""
    k = torch.arange(n) + 0.5
    z, angle = 1 - 2 * k / n, k * 2.399963
    ring = (1 - z.square()).sqrt()
    means = torch.stack([ring * angle.cos(), ring * angle.sin(), z], dim=1)
    # The rotation that takes +z to the mean: half way between both.
    quats = torch.stack([1 + means[:, 2], -means[:, 1], means[:, 0], torch.zeros(n)], dim=1)
    log_scales = torch.tensor([0.08, 0.08, 0.003]).log().repeat(n, 1)
    sh0 = (means[:, None] * 0.4) / 0.2820948
    return Scene(Gaussians(means, quats, log_scales, torch.full((n,), opacity_logit), sh0, torch.zeros(n, 0, 3)))


@pytest.fixture(scope="module")
def scene_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ball") / "scene.ply"
    write_scene(ball(), path)
    return path


def test_a_bare_scene_becomes_a_textured_mesh_in_its_frame(scene_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ["--max-size", "96", "--texture-size", "256", "--max-faces", "3000", "--max-views", "24"]
    assert main(["mesh", str(scene_path), *options]) == 0
    mesh = read_mesh(scene_path.with_name("mesh.glb"))
    radii = mesh.vertices.norm(dim=1)
    assert mesh.n_faces <= 3000
    # Depth at the centres of splats seen from the side lies inwards or outwards by a share of their size, 0.08.
    assert float((radii - 1).abs().mean()) < 0.04
    assert mesh.texture is not None
    assert mesh.texture.shape == (256, 256, 3)
    assert "texture of 256 texels" in capsys.readouterr().out
    with Image.open(scene_path.with_name("mesh_turntable.jpg")) as turntable:
        tiles = np.asarray(turntable).reshape(4, 320, 6, 320, 3)
    # The ball, brighter than what is behind it, is in the middle of every view; the edges show no ball.
    assert (tiles[:, 150:170, :, 150:170].mean(axis=(1, 3)).max(axis=-1) > 40).all()
    assert (tiles[:, :8].std(axis=(1, 3)) < 3).all()
    with Image.open(scene_path.with_name("mesh_beside.jpg")) as picture:
        rows = np.asarray(picture).astype(float)
    # Three views of scene, mesh and normals: the first two show the same ball.
    scene_part, mesh_part, normals = np.split(rows, 3, axis=1)
    covered = scene_part.max(axis=-1) > 40
    assert covered.mean() > 0.02
    assert ((mesh_part.max(axis=-1) > 40) == covered).mean() > 0.9
    assert normals[covered].std() > 20
    assert json.loads(scene_path.with_name("mesh_facts.json").read_text())["n_faces"] == mesh.n_faces


def test_a_capture_gives_the_views(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    scene = ball()
    write_scene(scene, tmp_path / "scene.ply")
    capture = write_tiny_capture(tmp_path / "capture", scene)
    out = tmp_path / "mesh.ply"
    options = ["--capture", str(capture), "--min-agree", "1", "--tolerance", "0.05", "--min-weight", "0.2"]
    assert main(["mesh", str(tmp_path / "scene.ply"), "--out", str(out), *options]) == 0
    mesh = read_mesh(out)
    assert mesh.colors is not None
    assert float((mesh.vertices.norm(dim=1) - 1).abs().mean()) < 0.1
    told = capsys.readouterr().out
    assert "1 held-out photos: mesh " in told
    assert "where the mesh is, " in told
    assert json.loads((tmp_path / "mesh_facts.json").read_text())["held_out"]["scene_psnr"] > 40


def test_scores_of_a_mesh_without_its_room_say_so():
    score = HeldOutScore(7.66, 31.4, 5, 0.62, 27.1, 33.2)
    alone = _score_text(score, is_subject_alone=True)
    assert "where the mesh is, 62 % of their pixels: mesh 27.10 dB, scene 33.20 dB" in alone
    assert "--background on" in alone
    assert "--background on" not in _score_text(score, is_subject_alone=False)
    assert "--background on" not in _score_text(replace(score, mesh_psnr=27.0), is_subject_alone=True)
    for told in (replace(score, covered=1.0), HeldOutScore(7.66, 31.4, 5, 0.0, None, None)):
        assert _score_text(told, is_subject_alone=True) == "5 held-out photos: mesh 7.66 dB, scene 31.40 dB"


def test_watertight_meshes_are_closed(scene_path: Path, tmp_path: Path):
    out = tmp_path / "closed.ply"
    options = ["--max-size", "96", "--max-views", "12", "--watertight", "--closed-resolution", "64", "--max-faces", "0"]
    assert main(["mesh", str(scene_path), "--out", str(out), *options]) == 0
    assert is_closed(read_mesh(out))


def test_backgrounds_close_the_picture(scene_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    inner, walls = ball().splats(), ball().splats()
    walls = replace(walls, means=9 * walls.means, log_scales=walls.log_scales + math.log(9))
    both = {name: torch.cat([value, walls.params()[name]]) for name, value in inner.params().items()}
    write_scene(Scene(Gaussians(**both)), tmp_path / "room.ply")
    capture = write_tiny_capture(tmp_path / "capture", ball())
    out = tmp_path / "room.glb"
    options = ["--capture", str(capture), "--min-agree", "0", "--min-weight", "0.2", "--far", "5", "--background", "on"]
    assert main(["mesh", str(tmp_path / "room.ply"), "--out", str(out), "--texture-size", "256", *options]) == 0
    mesh = read_mesh(out)
    radii = without_background(mesh).vertices.norm(dim=1)
    assert float(radii.max()) < 1.5
    assert float((mesh.vertices.norm(dim=1) > 5).float().mean()) > 0.2
    assert b'"doubleSided":false' in out.read_bytes()
    empty = ["--max-size", "96", "--max-views", "24", "--background", "on", "--texture-size", "64"]
    assert main(["mesh", str(scene_path), "--out", str(tmp_path / "none.glb"), *empty]) == 1
    assert "background: expected something opaque behind the mesh" in capsys.readouterr().err
    assert not (tmp_path / "none.glb").exists()


def test_meshes_for_pictures_are_a_little_thick(scene_path: Path, tmp_path: Path):
    out = tmp_path / "mesh.ply"
    options = ["--preset", "pictures", "--max-size", "96", "--max-views", "12", "--max-faces", "2000"]
    assert main(["mesh", str(scene_path), "--out", str(out), "--min-agree", "0", "--no-turntable", *options]) == 0
    mesh = read_mesh(out)
    radii = mesh.vertices.norm(dim=1)
    assert mesh.n_faces <= 2000
    # A surface at a level of 0.4 is thicker than one at a half.
    assert float(radii.max()) < 1.3
    assert 1.0 < float(radii.mean()) < 1.05


def test_a_transparent_scene_says_so_and_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_scene(ball(opacity_logit=-6.0), tmp_path / "faint.ply")
    assert main(["mesh", str(tmp_path / "faint.ply"), "--max-size", "64", "--max-views", "6"]) == 1
    assert "expected a surface in some view, got none" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["faint.ply"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--voxel-size", "1e-5"], "Use "),
        (["--voxel-size", "100", "--max-memory-gb", "1"], "expected a surface, got none. Leave --voxel-size"),
        (["--max-memory-gb", "0"], "max_memory_gb: expected at least 0.001, got 0.0"),
        (["--max-memory-gb", "nan"], "max_memory_gb: expected at least"),
        (["--min-weight", "nan"], "min_weight: expected 0 or more, got nan"),
        (["--max-views", "0"], "max_views: expected at least 1, got 0"),
        (["--max-size", "0"], "max_size: expected at least 1, got 0"),
        (["--far", "0"], "far: expected a distance above 0"),
        (["--method", "levelset", "--voxel-size", "nan"], "voxel_size: expected a length above 0, got nan"),
        (["--voxel-size", "0"], "voxel_size: expected a length above 0"),
        (["--out", "mesh.stl"], "unknown mesh format"),
        (["--colors-from", "photos"], "colors_from: photos need --capture"),
        (["--photo-depth", "on"], "photo_depth: photos need --capture"),
        (["--capture", "c", "--cameras", "c.json"], "expected --capture or --cameras, got both"),
        (["--texture-size", "7"], "texture_size: expected"),
    ],
)
def test_bad_options_are_told_in_one_line(
    scene_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
):
    few = ["--max-size", "64", "--max-views", "6", "--max-memory-gb", "0.001"]
    assert main(["mesh", str(scene_path), *few, *options]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_rooms_without_photos_are_told_to_bring_them(
    scene_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    splats = ball().splats()
    far = torch.where(torch.arange(len(splats.means))[:, None] % 20 == 0, 30 * splats.means, splats.means)
    write_scene(Scene(replace(splats, means=far)), tmp_path / "room.ply")
    options = ["--max-size", "64", "--max-views", "6", "--min-agree", "0", "--no-turntable", "--texture-size", "64"]
    main(["mesh", str(scene_path), "--out", str(tmp_path / "ball.glb"), *options])
    assert "made up" not in caplog.text
    main(["mesh", str(tmp_path / "room.ply"), *options])
    assert "views are made up near the splats, photos were taken elsewhere. Give --cameras or --capture" in caplog.text


def test_cameras_give_the_views(scene_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    file, out = tmp_path / "cameras.json", tmp_path / "mesh.ply"
    views = ring_cameras(10)
    file.write_text(cameras_json(views))
    assert main(["mesh", str(scene_path), "--out", str(out), "--cameras", str(file), "--no-turntable"]) == 0
    assert f"10 views of {file}" in caplog.text
    assert float((read_mesh(out).vertices.norm(dim=1) - 1).abs().mean()) < 0.05
    caplog.clear()
    copy = tmp_path / "scene.ply"
    copy.write_bytes(scene_path.read_bytes())
    assert main(["mesh", str(copy), "--out", str(out), "--no-turntable"]) == 0
    assert f"10 views of {file}" in caplog.text


def test_empty_scenes_and_splats_that_are_no_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    splats = ball().splats()
    write_scene(Scene(splats.select(torch.zeros(0, dtype=torch.int64))), tmp_path / "empty.ply")
    few = ["--max-size", "96", "--max-views", "12", "--no-turntable"]
    assert main(["mesh", str(tmp_path / "empty.ply"), *few]) == 1
    assert "expected a surface in some view, got none" in capsys.readouterr().err
    means = splats.means.clone()
    means[::9] = torch.nan
    write_scene(Scene(replace(splats, means=means)), tmp_path / "odd.ply")
    assert main(["mesh", str(tmp_path / "odd.ply"), "--out", str(tmp_path / "odd_mesh.ply"), *few]) == 0
    mesh = read_mesh(tmp_path / "odd_mesh.ply")
    assert float((mesh.vertices.norm(dim=1) - 1).abs().mean()) < 0.05
    assert not (tmp_path / "mesh.glb").exists()


@pytest.mark.parametrize("method", ["levelset", "tetrahedra", "poisson"])
def test_every_method_writes_a_mesh(scene_path: Path, tmp_path: Path, method: str):
    out = tmp_path / "mesh.ply"
    options = ["--method", method, "--max-size", "96", "--max-views", "16", "--max-faces", "2000", "--min-agree", "0"]
    assert main(["mesh", str(scene_path), "--out", str(out), *options]) == 0
    mesh = read_mesh(out)
    assert 200 < mesh.n_faces <= 2000
    assert float((mesh.vertices.norm(dim=1) - 1).abs().mean()) < 0.05
    assert mesh.colors is not None


def test_levels_and_fields_that_do_not_fit_are_refused(
    scene_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "mesh.ply"
    options = ["--max-size", "64", "--max-views", "8", "--out", str(out)]
    assert main(["mesh", str(scene_path), "--method", "levelset", "--level", "1.5", *options]) != 0
    assert "level: expected an opacity between 0 and 1, got 1.5" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("size", ["1e-6", "100"])
def test_voxels_far_from_pixels_are_refused_by_tetrahedra(
    size: str, scene_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "mesh.ply"
    options = ["--max-size", "64", "--max-views", "8", "--out", str(out), "--voxel-size", size]
    assert main(["mesh", str(scene_path), "--method", "tetrahedra", *options]) != 0
    words = capsys.readouterr().err
    assert f"voxel_size: {float(size):.4g} is far from pixels. Use " in words
    assert "is usual" in words
    assert not out.exists()


def test_photos_better_depth_where_surfaces_lie_by_it():
    flat = ball()
    round_ = Scene(replace(flat.splats(), log_scales=torch.full((900, 3), -3.0)))
    config, drawn = Config(Path("a.ply"), capture=Path("photos")), SurfaceSettings("tetrahedra", as_drawn=True)
    assert _betters_depth(config, flat, SurfaceSettings())
    assert _betters_depth(config, flat, replace(drawn, method="tsdf"))
    assert not _betters_depth(config, flat, drawn)
    assert not _betters_depth(config, round_, SurfaceSettings())
    assert not _betters_depth(replace(config, capture=None), flat, SurfaceSettings())
    assert _betters_depth(replace(config, photo_depth="on"), flat, drawn)
