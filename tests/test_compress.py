"""The compress stage: goals are met on views that decided nothing, or it is said that they cannot be."""

import importlib
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_scenes import blob, views_around
from tiny_capture import tiny_capture, tiny_scene

from scene3d.compress.context import PRIOR_SHARE_MADE_UP, Encoder
from scene3d.compress.goal import Goal
from scene3d.compress.judge import MADE_MARGIN_DB, Judge, judge_by_cameras, judge_by_capture, judge_by_synthesis
from scene3d.compress.methods import METHODS
from scene3d.compress.sensitivity import measure_sensitivity, with_prior
from scene3d.core.errors import CaptureError, FormatError, OutputError
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.camera_path import read_cameras
from scene3d.io.registry import read_scene, write_scene
from scene3d.io.s3d_container import container_bytes
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings
from scene3d.stages.compress import Config, run

FOX = Path(__file__).resolve().parents[2] / "shared" / "data" / "splats" / "fox.ply"


@pytest.fixture(scope="module")
def scene():
    return Scene(blob(400), SceneInfo(source="blob"))


def packed(scene, goal, method="context"):
    judge, views = judge_by_cameras(scene, views_around(12, 48))
    return importlib.import_module(METHODS[method].module).compress(scene, goal, judge, views)


@pytest.mark.parametrize("scene_psnr", [24.0, 32.0, 40.0])
def test_a_drop_is_met_by_fidelity(scene, scene_psnr):
    goal = Goal(0.1, scene_psnr=scene_psnr)
    assert goal.fidelity_db == pytest.approx(scene_psnr + 16.3, abs=0.05)
    result = packed(scene, goal)
    assert result.is_met
    assert result.verdict.fidelity_db >= goal.fidelity_db
    # Nothing is given away: no more than the search's own tolerance, and what a step of the tables makes.
    assert result.verdict.fidelity_db < goal.fidelity_db + 2


def test_a_size_is_met(scene):
    sizes = (6000, 4000)
    results = [packed(scene, Goal(target_bytes=size)) for size in sizes]
    assert all(0.9 * size < r.size_bytes <= size for size, r in zip(sizes, results, strict=True))
    assert results[0].verdict.fidelity_db > results[1].verdict.fidelity_db


def test_what_cannot_be_met_is_told(scene):
    result = packed(scene, Goal(target_bytes=300))
    assert not result.is_met
    assert "cannot be as small as 300 bytes" in result.remark


def test_lossless_says_when_a_size_is_out_of_reach(scene):
    result = packed(scene, Goal(target_bytes=300), "lossless")
    assert not result.is_met
    assert result.verdict.fidelity_db == math.inf


def test_sizes_of_attributes_add_up_to_the_file(scene):
    result = packed(scene, Goal())
    assert sum(loss.size_bytes for loss in result.losses) == result.size_bytes == len(container_bytes(result.container))


def test_the_same_scene_gives_the_same_bytes(scene):
    assert container_bytes(packed(scene, Goal()).container) == container_bytes(packed(scene, Goal()).container)


def test_sensitivity_foretells_the_error():
    gaussians, views, settings = blob(60), views_around(8), RasterSettings()
    found = measure_sensitivity(gaussians, views, settings)
    generator = torch.Generator().manual_seed(3)
    base = torch.cat([rasterize(gaussians, views.select([i]), settings).rgb for i in range(8)])
    errors, foretold = [], []
    for _ in range(12):
        noise = 1e-3 * torch.randn(gaussians.log_scales.shape, generator=generator)
        moved = type(gaussians)(**{**gaussians.params(), "log_scales": gaussians.log_scales + noise})
        images = torch.cat([rasterize(moved, views.select([i]), settings).rgb for i in range(8)])
        errors.append(float((images - base).square().mean()))
        foretold.append(float((found.log_scales * noise.square()).sum()))
    # One random probe per view: a third off is far out for 12 x 180 numbers.
    assert sum(foretold) == pytest.approx(sum(errors), rel=0.35)


def test_colours_that_are_cut_off_still_count():
    gaussians = blob(30)
    dark = type(gaussians)(**{**gaussians.params(), "sh0": torch.full_like(gaussians.sh0, -5.0)})
    found = measure_sensitivity(dark, views_around(6), RasterSettings())
    assert float(found.color.sum()) > 0


def test_photos_of_another_scene_or_frame_are_refused():
    scene = tiny_scene()
    capture = tiny_capture(scene)
    judge, _ = judge_by_capture(scene, capture)
    assert judge.scene_psnr() > 30
    moved = Scene(replace(scene.splats(), means=scene.splats().means + 5))
    with pytest.raises(CaptureError, match=r"it gives [\d.]+ dB on them, a single colour"):
        judge_by_capture(moved, capture)


def test_views_to_judge_by_decide_nothing():
    scene = Scene(blob(50))
    for judge, views in (judge_by_synthesis(scene), judge_by_cameras(scene, views_around(9))):
        judged, decided = judge.cameras.centers(), views.centers()
        assert float(torch.cdist(judged, decided).min()) > 1e-3


def test_no_splat_starves_for_not_being_seen():
    gaussians = blob(60)
    found = measure_sensitivity(gaussians, views_around(2), RasterSettings())
    unseen = replace(found, color=found.color.clone(), log_opacity=found.log_opacity.clone())
    unseen.color[:20] = 0
    unseen.log_opacity[:20] = 0
    floored = with_prior(unseen, gaussians, 0.2)
    assert float(floored.color[:20].min()) > 0
    assert float(floored.log_opacity[:20].min()) > 0
    assert torch.equal(with_prior(found, gaussians, 0.0).color, found.color)


def test_made_up_views_keep_their_promise_to_real_cameras():
    if not FOX.is_file():
        pytest.skip(f"{FOX} is not there")
    scene = read_scene(FOX)
    judge, views = judge_by_synthesis(scene)
    sensitivity = measure_sensitivity(scene.splats(), views.select(range(0, len(views), 3)), judge.settings)
    encoder = Encoder(scene, with_prior(sensitivity, scene.splats(), PRIOR_SHARE_MADE_UP), judge)
    trial = encoder(1.5e-11)
    cameras = read_cameras(FOX.with_name("fox-cameras.json"))
    real = Judge(scene, cameras.select(range(0, len(cameras), 8))).verdict(trial.gaussians)
    assert real.fidelity_db > trial.verdict.fidelity_db - MADE_MARGIN_DB


def test_the_worst_views_count_where_views_are_made_up():
    scene, views = Scene(blob(80)), views_around(8)
    worse = type(scene.payload)(**{**scene.payload.params(), "means": scene.payload.means + 0.01})
    every, worst = (Judge(scene, views, worst_share=share).verdict(worse).fidelity_db for share in (1.0, 0.25))
    assert worst < every


def test_tuning_makes_up_for_what_is_lost():
    scene = Scene(blob(300))
    judge, views = judge_by_cameras(scene, views_around(12, 48))
    plain, tuned = (
        importlib.import_module(METHODS["context"].module).compress(scene, Goal(tune_steps=n), judge, views)
        for n in (0, 60)
    )
    assert tuned.is_met
    assert tuned.size_bytes <= plain.size_bytes


def test_photos_give_a_drop():
    scene, views = Scene(blob(80)), views_around(3)
    photos = [(rasterize(scene.payload, views.select([i])).rgb[0].clamp(0, 1) * 0.9, None) for i in range(3)]
    judge = Judge(scene, views, photos)
    assert judge.verdict(scene.payload).drop_db == 0
    worse = type(scene.payload)(**{**scene.payload.params(), "sh0": scene.payload.sh0 + 0.5})
    assert judge.verdict(worse).drop_db > 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_drop_db": 0.0}, "max_drop_db: expected more than 0"),
        ({"target_bytes": 0}, "target_mb: expected more than 0"),
        ({"target_bytes": 9, "is_lossless": True}, "expected one of them"),
        ({"scene_psnr": -1.0}, "scene_psnr: expected a PSNR"),
    ],
)
def test_goals_out_of_range_are_told(values, message):
    with pytest.raises(ValueError, match=message):
        Goal(**values)


def test_the_stage_writes_a_file_and_says_what_it_cost(tmp_path, capsys, scene):
    write_scene(scene, tmp_path / "a.ply")
    run(Config(tmp_path / "a.ply", tmp_path / "b.s3d", max_drop_db=0.5, report=tmp_path / "report.html"))
    out = capsys.readouterr().out
    assert len(read_scene(tmp_path / "b.s3d").payload) <= 400
    assert read_scene(tmp_path / "b.s3d").info.source == "blob"
    for word in ("positions", "scales and rotations", "color", "header", f"-> {tmp_path / 'b.s3d'}"):
        assert word in out
    page = (tmp_path / "report.html").read_text()
    assert out.splitlines()[1] in page
    for name in (".ply", ".compressed.ply", ".spz", ".sog", "b.s3d"):
        assert f"<td>{name}</td>" in page


def test_the_stage_keeps_every_bit_where_asked(tmp_path, scene):
    write_scene(scene, tmp_path / "a.ply")
    run(Config(tmp_path / "a.ply", tmp_path / "b.s3d", lossless=True))
    back = read_scene(tmp_path / "b.s3d").payload
    assert torch.equal(back.means.sort(dim=0).values, scene.payload.means.sort(dim=0).values)


def test_an_empty_scene_is_told_unless_nothing_may_be_lost(tmp_path):
    write_scene(Scene(blob(0)), tmp_path / "a.ply")
    with pytest.raises(FormatError, match="holds no splats that can be drawn"):
        run(Config(tmp_path / "a.ply", tmp_path / "b.s3d"))
    assert not (tmp_path / "b.s3d").exists()
    run(Config(tmp_path / "a.ply", tmp_path / "b.s3d", lossless=True))
    assert len(read_scene(tmp_path / "b.s3d").payload) == 0


def test_other_suffixes_and_methods_are_told_before_any_work(tmp_path):
    with pytest.raises(OutputError, match=r"ends in \.s3d"):
        run(Config(tmp_path / "a.ply", tmp_path / "b.sog"))
    with pytest.raises(ValueError, match="method: expected one of context"):
        run(Config(tmp_path / "a.ply", tmp_path / "b.s3d", method="magic"))
