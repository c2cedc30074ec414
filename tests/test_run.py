"""scene3d run: the chain from a posed capture to a report, what it skips and what it does again."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.errors import CaptureError
from scene3d.core.gaussians import Gaussians
from scene3d.render.rasterize import rasterize
from scene3d.report.run_folder import read_run
from scene3d.stages import run as stage
from scene3d.stages.fit import SceneKind
from scene3d.stages.fit_field import FieldConfig
from scene3d.stages.run import Config, FitOptions, MeshOptions, RenderOptions

WIDTH, HEIGHT, N_VIEWS = 48, 32, 9


def known_gaussians(n: int = 60) -> Gaussians:
    generator = torch.Generator().manual_seed(3)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator) * 2 - 1

    log_scales, opacity_logits = torch.full((n, 3), math.log(0.2)), torch.full((n,), 3.0)
    return Gaussians(uniform(n, 3), uniform(n, 4), log_scales, opacity_logits, uniform(n, 1, 3), uniform(n, 0, 3))


def ring() -> Cameras:
    angles = [2 * math.pi * i / N_VIEWS for i in range(N_VIEWS)]
    eyes = [torch.tensor([4 * math.cos(a), 4 * math.sin(a), 1.0]) for a in angles]
    up = torch.tensor([0.0, 0.0, 1.0])
    viewmats = torch.stack([look_at(eye, torch.zeros(3), up) for eye in eyes])
    Ks = torch.tensor([[50.0, 0.0, WIDTH / 2], [0.0, 50.0, HEIGHT / 2], [0.0, 0.0, 1.0]]).repeat(N_VIEWS, 1, 1)
    return Cameras(viewmats, Ks, torch.tensor([[WIDTH, HEIGHT]] * N_VIEWS))


def write_tiny_capture(folder: Path) -> Path:
    """A transforms.json capture of known Gaussians."""
    gaussians, cameras = known_gaussians(), ring()
    images = (rasterize(gaussians, cameras).rgb.clamp(0, 1) * 255).round().to(torch.uint8)
    (folder / "images").mkdir(parents=True)
    frames = []
    for i, image in enumerate(images):
        name = f"images/{i:02d}.png"
        Image.fromarray(image.numpy()).save(folder / name)
        # OpenGL axes: y up, z towards the viewer.
        pose = torch.linalg.inv(cameras.viewmats[i]) @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
        frames.append({"file_path": name, "transform_matrix": pose.tolist()})
    lens = {"fl_x": 50.0, "fl_y": 50.0, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT}
    write_points(folder / "points.ply", gaussians.means)
    points = {"ply_file_path": "points.ply"}
    (folder / "transforms.json").write_text(json.dumps({**lens, **points, "frames": frames}))
    return folder


def write_points(path: Path, points: torch.Tensor) -> None:
    header = f"ply\nformat ascii 1.0\nelement vertex {len(points)}\n"
    names = "".join(f"property float {axis}\n" for axis in "xyz") + "".join(
        f"property uchar {color}\n" for color in ("red", "green", "blue")
    )
    rows = "".join(f"{x} {y} {z} 128 128 128\n" for x, y, z in points.tolist())
    path.write_text(f"{header}{names}end_header\n{rows}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A whole run with few steps."""
    folder = tmp_path_factory.mktemp("run")
    config = Config(
        capture=write_tiny_capture(folder / "tiny"),
        out=folder / "out",
        fit=FitOptions(max_steps=30),
        render=RenderOptions(seconds=0.2, fps=10.0),
    )
    stage.run(config)
    return config


def out_of(config: Config) -> Path:
    assert config.out is not None
    return config.out


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages that a run really calls; they do their work as ever."""
    names: list[str] = []
    for name in ("pose", "fit", "evaluate", "render", "mesh", "report"):
        module = getattr(stage, name)

        def noted(config, name=name, honest=module.run):
            names.append(name)
            honest(config)

        monkeypatch.setattr(module, "run", noted)
    return names


@pytest.mark.parametrize("kind", ["vm", "trivec", "rbf"])
def test_a_field_goes_through_the_same_chain_less_the_page(
    kind: SceneKind, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    caplog.set_level("INFO", logger="scene3d")
    leaf_nodes = 5 if kind == "trivec" else None
    field = FieldConfig(last_voxels=20**3, batch_rays=256, color_rank=16, leaf_nodes=leaf_nodes)
    config = Config(
        capture=write_tiny_capture(tmp_path / "tiny"),
        out=tmp_path / "out",
        kind=kind,
        fit=FitOptions(max_steps=30, field=field),
        render=RenderOptions(seconds=0.2, fps=10.0),
    )
    stage.run(config)
    for name in ("fit/scene.s3d", "fit/cameras.json", "eval/metrics.json", "renders/video.mp4", "report.html"):
        assert (out_of(config) / name).exists()
    assert not (out_of(config) / "page.html").exists()
    assert f"page: web pages show Gaussians only, none is made of a {kind} field" in caplog.text
    assert "scene.s3d" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["fit/scene.ply", "eval/metrics.json", "renders/video.mp4", "renders/depth", "page.html", "report.html"]
)
def test_run_leaves_every_result(name: str, finished: Config):
    assert (out_of(finished) / name).exists()


def test_report_finds_the_curve_that_the_fit_wrote(finished: Config):
    log = read_run(out_of(finished)).log
    assert log[-1].step == 30
    assert log[-1].n_gaussians > 0
    assert log[-1].seconds > 0
    assert log[-1].psnr is not None


def test_second_run_does_nothing_again_and_says_so(
    finished: Config, called: list[str], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    caplog.set_level("INFO", logger="scene3d")
    stage.run(finished)
    assert called == []
    assert "fit: done already" in caplog.text
    out = capsys.readouterr().out
    assert "PSNR" in out
    assert str(out_of(finished) / "report.html") in out


def test_changed_render_setting_redoes_only_what_depends_on_it(
    finished: Config, called: list[str], caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", logger="scene3d")
    stage.run(replace(finished, render=replace(finished.render, fps=5.0)))
    assert called == ["render", "render", "report"]
    assert "render video.mp4: setting fps changed: 10.0 -> 5.0" in caplog.text
    stage.run(finished)


def test_changed_fit_setting_redoes_fit_and_what_follows(
    finished: Config, called: list[str], caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", logger="scene3d")
    stage.run(replace(finished, fit=replace(finished.fit, max_steps=20)))
    assert called == ["fit", "evaluate", "render", "render", "report"]
    assert "fit: setting max_steps changed: 30 -> 20" in caplog.text
    stage.run(finished)


def test_missing_output_is_made_again(finished: Config, called: list[str]):
    (out_of(finished) / "report.html").unlink()
    stage.run(finished)
    assert called == ["report"]


def test_changed_photo_redoes_the_fit(finished: Config, called: list[str], caplog: pytest.LogCaptureFixture):
    assert finished.capture is not None
    photo = finished.capture / "images" / "01.png"
    before = photo.read_bytes()
    Image.new("RGB", (WIDTH, HEIGHT)).save(photo)
    caplog.set_level("INFO", logger="scene3d")
    stage.run(finished)
    photo.write_bytes(before)
    assert called[0] == "fit"
    assert "fit: input capture changed" in caplog.text


def test_interrupted_fit_is_resumed_only_with_the_same_settings(
    tmp_path: Path, finished: Config, monkeypatch: pytest.MonkeyPatch
):
    resumed: list[bool] = []

    def interrupted(config):
        resumed.append(config.resume)
        raise KeyboardInterrupt

    monkeypatch.setattr(stage.fit, "run", interrupted)
    config = replace(finished, out=tmp_path / "out")
    for max_steps in (30, 30, 40):
        with pytest.raises(KeyboardInterrupt):
            stage.run(replace(config, fit=replace(config.fit, max_steps=max_steps)))
    assert resumed == [False, True, False]


def test_photos_without_poses_go_through_pose_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "photos").mkdir()
    seen: list[Path] = []

    def pose(config):
        seen.extend([config.photos, config.out])
        raise CaptureError(config.photos, "stop here")

    monkeypatch.setattr(stage.pose, "run", pose)
    with pytest.raises(CaptureError, match="stop here"):
        stage.run(Config(tmp_path / "photos", tmp_path / "out"))
    assert seen == [tmp_path / "photos", tmp_path / "out" / "pose"]


def test_capture_that_is_not_there_is_told_before_anything_is_made(tmp_path: Path):
    with pytest.raises(CaptureError, match="nowhere: no such file or folder"):
        stage.run(Config(tmp_path / "nowhere", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_every_stage_fits_evaluates_and_renders_at_one_size():
    shared = stage._shared(Config(preset="fast", data_factor=None))
    assert shared.fit.max_size == shared.evaluate.max_size == shared.max_size == stage.MAX_SIZES["fast"]
    factored = stage._shared(Config(data_factor=4))
    assert (factored.fit.data_factor, factored.render.data_factor, factored.max_size) == (4, 4, None)


def test_a_mesh_is_made_where_it_is_asked_for(finished: Config, called: list[str], capsys: pytest.CaptureFixture[str]):
    for package in ("scipy", "trimesh", "fast_simplification"):
        pytest.importorskip(package, reason="the mesh stage needs it: pip install scene3d[mesh]")
    meshing = MeshOptions(voxel_size=0.1, min_agree=0, texture_size=0)
    stage.run(replace(finished, mesh=True, meshing=meshing))
    assert called[-2:] == ["mesh", "report"]
    assert [mesh.name for mesh in read_run(out_of(finished)).meshes] == ["mesh.glb"]
    assert f"{out_of(finished) / 'mesh.glb'} (" in capsys.readouterr().out


def test_surface_is_an_option_of_the_fit():
    assert stage._shared(Config(surface=True)).fit.surface
