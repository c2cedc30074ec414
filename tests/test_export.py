"""The export stage and what formats cannot hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from strategies import random_gaussians

from scene3d.core.errors import OutputError
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.capabilities import losses
from scene3d.io.registry import READERS, WRITERS, read_scene, write_scene
from scene3d.stages.export import Config, run


def scene(n: int = 40, sh_degree: int = 3, info: SceneInfo = SceneInfo()) -> Scene:  # noqa: B008 - frozen
    return Scene(random_gaussians(n, sh_degree=sh_degree).to(dtype=torch.float32), info)


@pytest.mark.parametrize("name", ["b.sog", "b.splat", "b.compressed.ply", "b.ply", "b/meta.json"])
def test_suffix_chooses_the_format(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scene(scene(), tmp_path / "a.ply")
    run(Config(tmp_path / "a.ply", tmp_path / name))
    assert len(read_scene(tmp_path / name).payload) == 40
    out = capsys.readouterr().out
    degree = read_scene(tmp_path / name).splats().sh_degree
    assert f"40 Gaussians, spherical harmonics of degree {degree} -> {tmp_path / name}\n" in out
    assert "bytes each" in out


def test_unknown_suffix_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"unknown scene format '.obj'. Choose one of .compressed.ply, .ply, .splat"):
        run(Config(tmp_path / "gone.ply", tmp_path / "b.obj"))


def test_losses_are_named_with_their_size() -> None:
    full = scene(info=SceneInfo(True, (0.0, 1.0, 0.0), "fox", "", ("n",)))
    assert losses(full, Path("a.splat")) == (
        "spherical harmonics (45 coefficients of each Gaussian dropped)",
        "the antialiased mark (viewers will show it too opaque from afar)",
        "the up axis and source and notes",
    )
    assert losses(full, Path("a.ply")) == losses(full, Path("a.sog")) == losses(full, Path("a.unknown")) == ()
    assert losses(scene(sh_degree=0), Path("a.splat")) == ()


def test_losses_reach_the_user(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_scene(scene(), tmp_path / "a.splat")
    assert "a.splat: .splat cannot hold spherical harmonics (45 coefficients of each Gaussian dropped)" in caplog.text


def test_what_is_written_can_be_read() -> None:
    assert set(WRITERS) - set(READERS) == {".spz.glb"}  # .glb reads it
