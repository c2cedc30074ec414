"""OpenUSD scenes of Gaussians."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from format_files import small_scene

from scene3d.core.errors import FormatError
from scene3d.core.scene import SceneInfo
from scene3d.io.registry import read_scene, write_scene
from scene3d.ops import quaternions
from scene3d.ops.edits import parse_edit

pytest.importorskip("pxr.UsdVol", reason="usd-core is not installed")


@pytest.mark.parametrize("degree", [0, 2, 3])
@pytest.mark.parametrize("name", ["a.usdc", "a.usda"])
def test_a_round_trip_is_exact_but_for_activations(name: str, degree: int, tmp_path: Path) -> None:
    truth = small_scene(20, degree).splats()
    write_scene(small_scene(20, degree), tmp_path / name)
    back = read_scene(tmp_path / name).splats()
    for attribute in ("means", "sh0", "shN"):
        torch.testing.assert_close(getattr(back, attribute), getattr(truth, attribute), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(back.quats, quaternions.normalize(truth.quats), atol=1e-6, rtol=0)
    torch.testing.assert_close(back.log_scales, truth.log_scales, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(back.opacity_logits, truth.opacity_logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("n", [0, 1])
def test_none_and_one(n: int, tmp_path: Path) -> None:
    write_scene(small_scene(n, 1), tmp_path / "a.usdc")
    assert len(read_scene(tmp_path / "a.usdc").splats()) == n


def test_facts_survive(tmp_path: Path) -> None:
    info = SceneInfo(True, (0.0, 0.0, 1.0), "fox", "a trainer", ("a note",))
    write_scene(small_scene(2, info=info), tmp_path / "a.usdc")
    assert read_scene(tmp_path / "a.usdc").info == info


def test_transforms_are_applied(tmp_path: Path) -> None:
    write_scene(small_scene(6, 1), tmp_path / "a.usda")
    text = (tmp_path / "a.usda").read_text()
    moved = "matrix4d xformOp:transform = ( (0, 2, 0, 0), (-2, 0, 0, 0), (0, 0, 2, 0), (1, 2, 3, 1) )"
    order = 'uniform token[] xformOpOrder = ["xformOp:transform"]'
    at = text.index("{", text.index("ParticleField3DGaussianSplat")) + 1
    (tmp_path / "b.usda").write_text(f"{text[:at]}\n    {moved}\n    {order}\n{text[at:]}")
    back, truth = read_scene(tmp_path / "b.usda").splats(), small_scene(6, 1)
    for edit in ("rotate 0 0 90", "scale 2", "translate 1 2 3"):
        truth = parse_edit(edit)(truth)
    torch.testing.assert_close(back.means, truth.splats().means, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(back.shN, truth.splats().shN, atol=1e-5, rtol=1e-4)


def test_cut_files_are_refused_or_sound(tmp_path: Path) -> None:
    write_scene(small_scene(10, 0), tmp_path / "a.usdc")
    whole = (tmp_path / "a.usdc").read_bytes()
    for size in range(0, len(whole), max(1, len(whole) // 5)):
        path = tmp_path / f"cut{size}.usdc"
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError):
            read_scene(path)


def test_a_stage_without_gaussians_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.usda").write_text('#usda 1.0\ndef Xform "Nothing"\n{\n}\n')
    with pytest.raises(FormatError, match="holds no ParticleField3DGaussianSplat"):
        read_scene(tmp_path / "a.usda")
