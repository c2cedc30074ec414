"""PlayCanvas' compressed PLY, written and read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from strategies import random_gaussians

from scene3d.core.errors import FormatError
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.ply_table import read_header
from scene3d.io.registry import read_scene, write_scene
from scene3d.ops import morton, quaternions


def scene(n: int, sh_degree: int = 1, info: SceneInfo = SceneInfo()) -> Scene:  # noqa: B008 - frozen
    return Scene(random_gaussians(n, sh_degree=sh_degree, spread=3.0).to(dtype=torch.float32), info)


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 1000])
def test_any_count_comes_back_in_morton_order(n: int, tmp_path: Path) -> None:
    write_scene(scene(n), tmp_path / "a.compressed.ply")
    truth = scene(n).payload
    truth = truth.select(morton.order(truth.means))
    back = read_scene(tmp_path / "a.compressed.ply").payload
    assert len(back) == n
    torch.testing.assert_close(back.means, truth.means, atol=0.02, rtol=0)
    torch.testing.assert_close(back.log_scales, truth.log_scales, atol=0.01, rtol=0)
    torch.testing.assert_close(back.opacities, truth.opacities, atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(back.sh0, truth.sh0, atol=0.02, rtol=0)
    torch.testing.assert_close(back.shN, truth.shN, atol=4 / 256 + 1e-6, rtol=0)
    dots = (back.quats * quaternions.normalize(truth.quats)).sum(dim=1).abs()
    assert n == 0 or float(dots.min()) > 1 - 1e-5


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_size_is_16_bytes_and_one_a_coefficient(degree: int, tmp_path: Path) -> None:
    path = tmp_path / "a.compressed.ply"
    write_scene(scene(512, degree), path)
    n_rest = 3 * ((degree + 1) ** 2 - 1)
    assert path.stat().st_size - read_header(path).data_offset == 2 * 18 * 4 + 512 * (16 + n_rest)


def test_facts_survive(tmp_path: Path) -> None:
    info = SceneInfo(True, (0.0, 1.0, 0.0), "fox", "a trainer", ("a note",))
    write_scene(scene(3, info=info), tmp_path / "a.compressed.ply")
    assert read_scene(tmp_path / "a.compressed.ply").info == info


def test_coefficients_beyond_the_range_are_clamped(tmp_path: Path) -> None:
    loud = scene(2)
    loud.payload.shN[:] = torch.tensor([9.0, -9.0, 0.0])
    write_scene(loud, tmp_path / "a.compressed.ply")
    assert read_scene(tmp_path / "a.compressed.ply").payload.shN[0, 0].tolist() == [4, -4, 4 / 256]


def test_truncation_anywhere_is_a_format_error(tmp_path: Path) -> None:
    write_scene(scene(300), tmp_path / "a.compressed.ply")
    whole = (tmp_path / "a.compressed.ply").read_bytes()
    for size in range(0, len(whole), 61):
        (tmp_path / "b.compressed.ply").write_bytes(whole[:size])
        with pytest.raises(FormatError):
            read_scene(tmp_path / "b.compressed.ply")
