"""Files of ours in splat-transform, files of its in ours, and whose err less."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from format_files import small_scene

from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.registry import read_scene, write_scene
from scene3d.io.spz import encode_spz
from scene3d.ops import quaternions
from scene3d.ops.edits import parse_edit
from scene3d.report.attribute_errors import attribute_errors

sys.path.insert(0, str(Path(__file__).resolve().parent))
import splat_transform

pytestmark = pytest.mark.skipif(not splat_transform.available(), reason=splat_transform.MISSING)

WRITTEN = ("compressed.ply", "sog", "spz", "splat")
DEGREES = (0, 1, 2, 3)
COUNTS = (1, 255, 256, 257)
# Both decode the same numbers in float32, by other orders of the same steps.
SAME = 2e-5
# Their errors may be smaller than ours by chance where both come from the same rounding.
CHANCE = 1.02
LARGE = 70_000


def scene(n: int, degree: int, antialiased: bool = False) -> Scene:
    return small_scene(n, degree, SceneInfo(antialiased=antialiased))


def angles_deg(a: Tensor, b: Tensor) -> Tensor:
    a, b = (quaternions.normalize(q.double()) for q in (a, b))
    # The arc sine of the half difference keeps the digits of small angles.
    return 2 * torch.minimum((a - b).norm(dim=1), (a + b).norm(dim=1)).div(2).clamp(max=1).asin().mul(2).rad2deg()


def assert_same(a: Gaussians, b: Gaussians, max_angle_deg: float = 0.05) -> None:
    assert (len(a), a.sh_degree) == (len(b), b.sh_degree)
    for name in ("means", "log_scales", "sh0", "shN"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=SAME, rtol=SAME)
    torch.testing.assert_close(a.opacities, b.opacities, atol=2e-3, rtol=0)  # ends of the range: logits differ
    assert len(a) == 0 or float(angles_deg(a.quats, b.quats).max()) < max_angle_deg


def assert_no_worse(truth: Gaussians, ours: Gaussians, theirs: Gaussians) -> None:
    """No attribute of our file errs more than in theirs, neither over all Gaussians alike nor by what is seen."""
    for by_visibility in (False, True):
        own, other = (vars(attribute_errors(truth, found, by_visibility)) for found in (ours, theirs))
        for name, value in own.items():
            assert value <= CHANCE * other[name] + 1e-6, f"{name}: ours {own}, theirs {other}"


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("suffix", WRITTEN)
def test_our_files_mean_the_same_there(suffix: str, degree: int, antialiased: bool, tmp_path: Path) -> None:
    write_scene(scene(60, degree, antialiased), tmp_path / f"ours.{suffix}")
    back = read_scene(splat_transform.convert(tmp_path / f"ours.{suffix}", tmp_path / "back.ply"))
    ours = read_scene(tmp_path / f"ours.{suffix}")
    # Readers of .splat disagree by half a step on what a byte of a quaternion means.
    assert_same(ours.payload, back.payload, 1.0 if suffix == "splat" else 0.05)
    assert back.info.antialiased == (antialiased and suffix != "splat")


@pytest.mark.parametrize("version", [2, 3])
def test_our_older_spz_mean_the_same_there(version: int, tmp_path: Path) -> None:
    path = tmp_path / "ours.spz"
    path.write_bytes(encode_spz(scene(257, 3), path, version))
    back = read_scene(splat_transform.convert(path, tmp_path / "back.ply"))
    assert_same(read_scene(path).payload, back.payload)


def test_our_loose_sog_means_the_same_there(tmp_path: Path) -> None:
    write_scene(scene(60, 2), tmp_path / "meta.json")
    back = read_scene(splat_transform.convert(tmp_path / "meta.json", tmp_path / "back.ply"))
    assert_same(read_scene(tmp_path / "meta.json").payload, back.payload)


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("suffix", ["ply", "compressed.ply", "sog", "spz"])
def test_their_files_mean_the_same_here_and_err_no_less(
    suffix: str, degree: int, antialiased: bool, tmp_path: Path
) -> None:
    truth = scene(257, degree, antialiased)
    write_scene(truth, tmp_path / "truth.ply")
    theirs = splat_transform.convert(tmp_path / "truth.ply", tmp_path / f"theirs.{suffix}")
    here, there = read_scene(theirs), read_scene(splat_transform.convert(theirs, tmp_path / "there.ply"))
    assert_same(here.payload, there.payload)
    assert here.info.antialiased == antialiased
    write_scene(truth, tmp_path / f"ours.{suffix}")
    assert_no_worse(truth.payload, read_scene(tmp_path / f"ours.{suffix}").payload, here.payload)


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("suffix", ["compressed.ply", "sog", "spz"])
def test_any_count_there_and_back(suffix: str, n: int, tmp_path: Path) -> None:
    write_scene(scene(n, 1), tmp_path / f"ours.{suffix}")
    back = read_scene(splat_transform.convert(tmp_path / f"ours.{suffix}", tmp_path / "back.ply"))
    assert_same(read_scene(tmp_path / f"ours.{suffix}").payload, back.payload)
    write_scene(scene(n, 1), tmp_path / "truth.ply")
    theirs = splat_transform.convert(tmp_path / "truth.ply", tmp_path / f"theirs.{suffix}")
    assert len(read_scene(theirs).payload) == n


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["compressed.ply", "sog", "spz"])
def test_many_gaussians_there_and_back(suffix: str, tmp_path: Path) -> None:
    # Their palette of 65,536 takes minutes: large scenes are compared without harmonics.
    truth = scene(LARGE, 0)
    write_scene(truth, tmp_path / "truth.ply")
    write_scene(truth, tmp_path / f"ours.{suffix}")
    back = read_scene(splat_transform.convert(tmp_path / f"ours.{suffix}", tmp_path / "back.ply"))
    ours = read_scene(tmp_path / f"ours.{suffix}").payload
    assert_same(ours, back.payload)
    theirs = splat_transform.convert(tmp_path / "truth.ply", tmp_path / f"theirs.{suffix}")
    assert_no_worse(truth.payload, ours, read_scene(theirs).payload)


@pytest.mark.slow
def test_a_palette_of_65536_means_the_same_there(tmp_path: Path) -> None:
    write_scene(scene(LARGE, 1), tmp_path / "ours.sog")
    back = read_scene(splat_transform.convert(tmp_path / "ours.sog", tmp_path / "back.ply"))
    assert_same(read_scene(tmp_path / "ours.sog").payload, back.payload)


def test_their_streamed_sog_is_read(tmp_path: Path) -> None:
    truth = scene(300, 1)
    write_scene(truth, tmp_path / "truth.ply")
    streamed = splat_transform.convert(tmp_path / "truth.ply", tmp_path / "out" / "lod-meta.json", "-l", "0")
    whole = splat_transform.convert(streamed, tmp_path / "there.ply")
    assert_same(read_scene(streamed).payload, read_scene(whole).payload)


def test_our_large_palette_means_the_same_there(tmp_path: Path) -> None:
    write_scene(scene(3000, 3), tmp_path / "ours.sog")
    back = read_scene(splat_transform.convert(tmp_path / "ours.sog", tmp_path / "back.ply"))
    assert_same(read_scene(tmp_path / "ours.sog").payload, back.payload)


@pytest.mark.parametrize("degree", DEGREES)
def test_their_glb_is_our_scene_turned(degree: int, tmp_path: Path) -> None:
    truth = scene(40, degree)
    write_scene(truth, tmp_path / "truth.ply")
    theirs = read_scene(splat_transform.convert(tmp_path / "truth.ply", tmp_path / "theirs.glb"))
    assert_same(parse_edit("rotate 0 0 180")(theirs).payload, truth.payload)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (["translate 1 2 3"], ["-t", "1,2,3"]),
        (["rotate 10 20 30"], ["-r", "10,20,30"]),
        (["scale 2.5"], ["-s", "2.5"]),
        (["rotate 0 90 0", "translate 1 0 0", "rotate 45 0 0"], ["-r", "0,90,0", "-t", "1,0,0", "-r", "45,0,0"]),
        (["crop-box -1 -2 -3 3 2 1"], ["-B", "-1,-2,-3,3,2,1"]),
        (["crop-sphere 1 0 0 2"], ["-S", "1,0,0,2"]),
        (["sh-degree 1"], ["-H", "1"]),
    ],
)
def test_edits_do_what_theirs_do(ours: list[str], theirs: list[str], tmp_path: Path) -> None:
    truth = scene(200, 3)
    write_scene(truth, tmp_path / "truth.ply")
    there = read_scene(splat_transform.convert(tmp_path / "truth.ply", tmp_path / "there.ply", *theirs))
    here = truth
    # Its numbers are meant in the frame of its engine, which is that of the file turned by 180 degrees about z.
    for text in ["rotate 0 0 180", *ours, "rotate 0 0 180"]:
        here = parse_edit(text)(here)
    assert_same(here.payload, there.payload)
