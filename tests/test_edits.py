"""Edits of scenes, one after the other, and the convert stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from format_files import small_scene
from strategies import front_camera, one_gaussian

from scene3d.core.gaussians import Gaussians, cat
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.registry import read_scene, write_scene
from scene3d.ops.decimate import decimate
from scene3d.ops.edits import EDITS, parse_edit
from scene3d.ops.floaters import is_floater
from scene3d.ops.rigid import Sim3, transform_cameras
from scene3d.render.rasterize import rasterize
from scene3d.stages.convert import Config, run


def edited(scene: Scene, *texts: str) -> Scene:
    for text in texts:
        scene = parse_edit(text)(scene)
    return scene


def test_order_matters_and_is_kept() -> None:
    scene = small_scene(5)
    moved_first = edited(scene, "translate 1 0 0", "rotate 0 0 90").payload.means
    turned_first = edited(scene, "rotate 0 0 90", "translate 1 0 0").payload.means
    x, y, z = scene.payload.means.unbind(dim=1)
    torch.testing.assert_close(moved_first, torch.stack([-y, x + 1, z], dim=1))
    torch.testing.assert_close(turned_first, torch.stack([1 - y, x, z], dim=1))


def test_rotation_is_about_x_then_y_then_z_of_the_world() -> None:
    scene = small_scene(8)
    at_once = edited(scene, "rotate 20 30 40").payload
    stepwise = edited(scene, "rotate 20 0 0", "rotate 0 30 0", "rotate 0 0 40").payload
    for name, value in at_once.params().items():
        torch.testing.assert_close(value, stepwise.params()[name], atol=1e-5, rtol=1e-5)


def test_a_turned_scene_looks_the_same_from_a_turned_camera() -> None:
    far = edited(small_scene(30, 3), "translate 0 0 9")
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    camera = front_camera().to(dtype=torch.float32)
    turned_camera = transform_cameras(camera, Sim3(turn, torch.zeros(3, dtype=torch.float64)))
    before = rasterize(far.payload, camera).rgb
    after = rasterize(edited(far, "rotate 0 0 90").payload, turned_camera).rgb
    torch.testing.assert_close(before, after, atol=1e-4, rtol=0)


def test_the_up_axis_turns_along() -> None:
    scene = Scene(small_scene(2).payload, SceneInfo(up=(0.0, 1.0, 0.0)))
    assert edited(scene, "rotate 90 0 0").info.up == pytest.approx((0, 0, 1), abs=1e-12)
    assert edited(scene, "scale 2").info.up == (0.0, 1.0, 0.0)


def test_crops_keep_what_is_inside() -> None:
    scene = small_scene(200)
    box = edited(scene, "crop-box -1 -1 -1 1 2 3").payload.means
    sphere = edited(scene, "crop-sphere 1 0 0 2").payload.means
    means = scene.payload.means
    assert len(box) == int(((means >= -1) & (means <= torch.tensor([1, 2, 3]))).all(dim=1).sum()) > 0
    assert len(sphere) == int(((means - torch.tensor([1.0, 0, 0])).norm(dim=1) <= 2).sum()) > 0


def test_filters_drop_what_they_name() -> None:
    scene = small_scene(50)
    scene.payload.means[4, 1] = torch.nan
    scene.payload.quats[7] = 0
    assert len(edited(scene, "filter-nan").payload) == 48
    faint = edited(scene, "filter-opacity 0.5").payload.opacities
    assert len(faint) > 0
    assert float(faint.min()) >= 0.5


def test_floaters_are_those_far_from_all() -> None:
    scene = small_scene(400)
    scene.payload.means[10] = 300.0
    scene.payload.means[20] = torch.tensor([0.0, -90.0, 0.0])
    found = is_floater(scene.payload)
    assert found[10]
    assert found[20]
    assert int(found.sum()) < 8
    assert not is_floater(small_scene(2).payload).any()


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_sh_degree_cuts_from_above(degree: int) -> None:
    scene = small_scene(3, 2)
    found = edited(scene, f"sh-degree {degree}").payload
    assert found.sh_degree == min(degree, 2)
    assert torch.equal(found.shN, scene.payload.shN[:, : found.shN.shape[1]])


@pytest.mark.parametrize(
    ("text", "count"), [("decimate 60", 60), ("decimate 25%", 50), ("decimate 900", 200), ("decimate 1", 1)]
)
def test_decimation_reaches_its_count(text: str, count: int) -> None:
    found = edited(small_scene(200, 2), text).payload
    assert len(found) == count
    assert bool(found.is_finite().all())


def test_two_equal_gaussians_merge_into_one_of_the_same_shape() -> None:
    one = one_gaussian(mean=(1.0, 2.0, 3.0), scales=(0.1, 0.3, 0.2), quat=(0.5, 0.5, 0.1, -0.2)).to(dtype=torch.float32)
    merged = decimate(cat([one, one]), 1)
    torch.testing.assert_close(merged.means, one.means)
    torch.testing.assert_close(merged.scales.sort().values, one.scales.sort().values, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(merged.sh0, one.sh0)
    torch.testing.assert_close(merged.opacities, one.opacities)


def test_decimation_keeps_the_centre_of_mass() -> None:
    payload = small_scene(100).payload
    # Of one size and opacity all masses are equal, and opacities do not saturate when little is merged.
    same = Gaussians(
        **{**payload.params(), "log_scales": torch.full((100, 3), -5.0), "opacity_logits": torch.zeros(100)}
    )
    found = decimate(same, 99)
    merged = found.means[-1]
    gone = [m for m in same.means if not (found.means == m).all(dim=1).any()]
    torch.testing.assert_close(merged, torch.stack(gone).mean(dim=0))


def test_gaussians_in_one_place_can_be_merged() -> None:
    payload = small_scene(1).payload
    assert len(decimate(payload.select(torch.zeros(500, dtype=torch.long)), 5)) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected one of translate, rotate, .*, got 'nothing'"),
        ("spin 3", "expected one of translate, rotate, .*, got 'spin'"),
        ("rotate 1 2", "expected 'rotate X Y Z', got 2 numbers"),
        ("filter-nan 1", "expected 'filter-nan', got 1 numbers"),
        ("crop-sphere 0 0 0 1 2", "expected 'crop-sphere X Y Z RADIUS', got 5 numbers"),
        ("scale nan", "expected 'scale FACTOR', got 'nan', which is no number"),
        ("scale 50%", "got '50%', which is no number"),
    ],
)
def test_wrong_edits_are_told(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_edit(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scale -1", "scale: expected a positive factor, got -1"),
        ("crop-box 1 0 0 0 1 1", "crop-box: expected the lower corner first"),
        ("sh-degree 4", "sh-degree: expected 0, 1, 2 or 3, got 4"),
        ("decimate 0", "decimate: expected a count of at least 1, got 0"),
        ("filter-floaters 0", "filter-floaters: expected a positive factor, got 0"),
    ],
)
def test_numbers_out_of_range_are_told(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        edited(small_scene(), text)


@pytest.mark.parametrize("name", list(EDITS))
def test_every_edit_takes_an_empty_scene(name: str) -> None:
    numbers = {"crop-box": "0 0 0 1 1 1", "decimate": "50%", "sh-degree": "0"}.get(name)
    numbers = numbers if numbers is not None else " ".join("1" for _ in range(EDITS[name].n_required))
    assert len(edited(small_scene(0), f"{name} {numbers}").payload) == 0


def test_stage_applies_edits_and_prints_what_they_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scene(small_scene(100), tmp_path / "a.ply")
    run(Config(tmp_path / "a.ply", tmp_path / "b.ply", ("decimate 40", "scale 2")))
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["decimate", "40", "100", "->", "40", "Gaussians"]
    assert out[1].split() == ["scale", "2", "done"]
    assert out[2].startswith("40 Gaussians, ")
    assert len(read_scene(tmp_path / "b.ply").payload) == 40


def test_wrong_edits_stop_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        run(Config(tmp_path / "gone.ply", tmp_path / "b.ply", ("spin 3",)))
