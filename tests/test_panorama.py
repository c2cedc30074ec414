"""Panoramas against views of the same scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from strategies import one_gaussian, random_gaussians
from tiny_capture import tiny_scene, write_tiny_capture

from scene3d.core.cameras import Cameras
from scene3d.core.scene import Scene
from scene3d.io.registry import write_scene
from scene3d.render.frames import FrameSettings
from scene3d.render.panorama import panoramas
from scene3d.stages.render import Config, run

Z_UP = torch.tensor([0.0, 0.0, 1.0])


def ahead_x() -> Cameras:
    """At the origin, looking along +x, z up: +y is left."""
    viewmat = torch.eye(4)
    viewmat[:3, :3] = torch.tensor([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    return Cameras(viewmat[None], torch.eye(3)[None] * 20, torch.tensor([[128, 64]]))


def panorama_of(scene: Scene, mode: str = "rgb") -> np.ndarray:
    return next(panoramas(scene, ahead_x(), Z_UP, 128, FrameSettings(mode=mode)))


@pytest.mark.parametrize(
    ("direction", "row", "column"),
    [((1, 0, 0), 32, 64), ((0, -1, 0), 32, 96), ((0, 1, 0), 32, 32), ((0, 0, 1), 0, None), ((0, 0, -1), 63, None)],
)
def test_things_are_where_they_belong(direction: tuple[float, float, float], row: int, column: int | None):
    ball = one_gaussian(mean=tuple(4.0 * c for c in direction), scales=(0.3, 0.3, 0.3), rgb=(1, 1, 1))
    picture = panorama_of(Scene(ball.to(dtype=torch.float32)))[..., 0].astype(float)
    assert picture.max() > 150
    rows, columns = np.unravel_index(picture.argmax(), picture.shape)
    assert abs(rows - row) <= 1
    assert column is None or abs(columns - column) <= 1


def test_what_is_behind_meets_at_the_edges():
    ball = one_gaussian(mean=(-4, 0, 0), scales=(0.3, 0.3, 0.3), rgb=(1, 1, 1)).to(dtype=torch.float32)
    picture = panorama_of(Scene(ball)).astype(int)
    assert picture[32, 0, 0] > 150
    assert np.abs(picture[:, 0] - picture[:, -1]).max() <= 3


def test_a_shell_is_even_everywhere():
    directions = torch.nn.functional.normalize(random_gaussians(6000, seed=3).means, dim=1)
    one = one_gaussian(scales=(0.25, 0.25, 0.25), opacity=0.9, rgb=(0.8, 0.8, 0.8))
    shell = one.select(torch.zeros(6000, dtype=torch.long))
    shell = type(shell)(**{**shell.params(), "means": 5 * directions}).to(dtype=torch.float32)
    assert abs(panorama_of(Scene(shell)).astype(int) - 204).max() <= 4
    depth = panorama_of(Scene(shell), "depth").astype(int)
    assert depth.reshape(-1, 3).std(axis=0).max() < 12


def test_odd_widths_are_refused():
    with pytest.raises(ValueError, match="width: expected an even number of at least 8 pixels, got 9"):
        next(panoramas(tiny_scene(), ahead_x(), Z_UP, 9, FrameSettings()))


def test_the_stage_writes_one_panorama(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    scene = tiny_scene()
    write_scene(scene, tmp_path / "a.ply")
    capture = write_tiny_capture(tmp_path / "capture", scene)
    out = tmp_path / "around.png"
    run(Config(tmp_path / "a.ply", out, capture, path="all", only=2, lens="panorama", width=64))
    assert Image.open(out).size == (64, 32)
    assert "1 frames of 64x32 (all_panorama, rgb)" in capsys.readouterr().out


def test_views_that_are_not_there_are_refused(tmp_path: Path):
    write_scene(tiny_scene(), tmp_path / "a.ply")
    with pytest.raises(ValueError, match="only: expected 0 to 7, the views of the path, got 8"):
        run(Config(tmp_path / "a.ply", tmp_path / "a.png", seconds=1.0, fps=8.0, only=8))
    with pytest.raises(ValueError, match="expected a panorama twice as wide as high, got 64 x 30"):
        run(Config(tmp_path / "a.ply", tmp_path / "a.png", lens="panorama", width=64, height=30))
