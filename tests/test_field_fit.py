"""Fits of fields on a small made capture: they learn it, repeat and resume to the bit, and never lose the scene."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_capture import tiny_scene, write_tiny_capture
from torch import Tensor

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.capture import Capture, Photo
from scene3d.core.errors import CaptureError, FormatError
from scene3d.core.fields import HARMONIC_FEATURES
from scene3d.core.scene import Scene
from scene3d.io.field_codec import decode_field, encode_field
from scene3d.io.registry import read_scene, write_scene
from scene3d.io.s3d_container import Container, container_bytes
from scene3d.ops.occupancy import is_occupied
from scene3d.ops.threads import available_threads, set_threads
from scene3d.recon.field_fit import FieldFitResult, FieldHooks, fit_field
from scene3d.recon.field_mask import find_occupied
from scene3d.recon.field_settings import HARMONIC_RATE, FieldFitSettings, field_preset
from scene3d.recon.validate import Validation, ViewScore
from scene3d.render import field_cpu

if not field_cpu.is_available():
    pytest.skip("the native module is not built", allow_module_level=True)

SIDE, FOCAL = 48, 60.0
SETTINGS = FieldFitSettings(
    max_steps=80,
    batch_rays=512,
    color_rank=16,
    n_features=16,
    hidden=32,
    first_voxels=20**3,
    last_voxels=32**3,
    grow_at=(0.3, 0.6),
    mask_at=(0.25, 0.7),
    mask_after=20,
    lr_factors=0.04,
    lr_decoder=5e-3,
)


LEAF_SETTINGS = replace(SETTINGS, kind="trivec", leaf_nodes=5, last_voxels=40**3)


def ball_photo(camera: Cameras) -> Photo:
    """A ball of radius 0.6 around the origin, coloured by the place on it; alpha outside is 0."""
    row, column = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    rays = torch.stack([(column - SIDE / 2) / FOCAL, (row - SIDE / 2) / FOCAL, torch.ones(SIDE, SIDE)], dim=2)
    directions = torch.nn.functional.normalize(rays @ camera.viewmats[0, :3, :3], dim=2)
    center = camera.centers()[0]
    along = directions @ center
    inside = along**2 - (center @ center - 0.36)
    hit: Tensor = inside > 0
    t = -along - inside.clamp_min(0).sqrt()
    normal = (center + directions * t[..., None]) / 0.6
    rgb = torch.where(hit[..., None], 0.5 + 0.4 * normal, torch.zeros(1))
    return Photo((rgb * 255).round().to(torch.uint8), hit.to(torch.uint8) * 255)


@functools.cache
def ball_capture() -> Capture:
    """20 views of the ball; 0, 5, 10 and 15 are held out."""
    eyes = []
    for i in range(20):
        z, angle = 1 - 2 * (i + 0.5) / 20, i * math.pi * (3 - 5**0.5)
        ring = math.sqrt(1 - z * z)
        eyes.append(3 * torch.tensor([ring * math.cos(angle), ring * math.sin(angle), z]))
    up = torch.tensor([0.0, 0.1, 1.0])
    viewmats = torch.stack([look_at(eye, torch.zeros(3), up) for eye in eyes])
    K = torch.tensor([[FOCAL, 0, SIDE / 2], [0, FOCAL, SIDE / 2], [0, 0, 1]])
    cameras = Cameras(viewmats, K.repeat(20, 1, 1), torch.tensor([[SIDE, SIDE]]).repeat(20, 1))
    photos = [ball_photo(cameras.select([i])) for i in range(20)]
    test = (0, 5, 10, 15)
    train = tuple(i for i in range(20) if i not in test)
    return Capture(cameras, photos.__getitem__, train=train, test=test, source=Path("ball"), has_alpha=True)


@functools.cache
def fitted() -> FieldFitResult:
    return fit_field(ball_capture(), SETTINGS)


def same(a: FieldFitResult, b: FieldFitResult) -> bool:
    tensors = [(*r.field.factors(), *r.field.decoder.tensors(), r.field.occupancy, r.field.box) for r in (a, b)]
    return all(torch.equal(x, y) for x, y in zip(*tensors, strict=True))


def test_a_short_fit_learns_the_ball():
    result = fitted()
    assert result.is_finished
    assert result.validation is not None
    assert result.validation.psnr > 24
    assert result.n_bad == 0


def test_cp_learns_it_too():
    result = fit_field(ball_capture(), replace(SETTINGS, kind="cp", density_rank=32, color_rank=48))
    assert result.validation is not None
    assert result.validation.psnr > 20


@pytest.mark.parametrize("kind", ["vm", "trivec"])
def test_further_losses_change_the_fit_and_keep_it_sound(kind: str):
    base = replace(SETTINGS if kind == "vm" else LEAF_SETTINGS, max_steps=60)
    plain = fit_field(ball_capture(), base)
    for name, strength in (("s3im", 0.2), ("distortion", 0.01), ("tv", 3e-4)):
        result = fit_field(ball_capture(), replace(base, **{name: strength}))
        assert result.validation is not None
        assert result.validation.psnr > 20
        assert not torch.equal(result.field.decoder.basis, plain.field.decoder.basis)
    with pytest.raises(ValueError, match="s3im: expected 0 or more, got -1"):
        replace(base, s3im=-1)


@pytest.mark.parametrize("leaves", ["one", "two", "cover"])
def test_leaves_learn_it_too(leaves: str):
    result = fit_field(ball_capture(), replace(LEAF_SETTINGS, leaves=leaves))
    field = result.field
    assert result.validation is not None
    assert result.validation.psnr > 22
    assert [level.nodes for level in field.levels] == [5] * (1 if leaves == "one" else 2)
    # Leaves are where the ball is: some cubes of the box have none.
    assert 0 < field.levels[0].n_leaves < field.levels[0].taken.numel()
    assert field.is_finite()


def test_a_stopped_fit_of_leaves_goes_on_to_the_same_bits(tmp_path: Path):
    whole = fit_field(ball_capture(), replace(LEAF_SETTINGS, max_steps=50))
    for stop_at in (10, 40):
        path, steps = tmp_path / f"{stop_at}.pt", iter(range(1, 100))
        hooks = FieldHooks(should_stop=lambda: next(steps) == stop_at, checkpoint=path)  # noqa: B023
        assert not fit_field(ball_capture(), replace(LEAF_SETTINGS, max_steps=50), hooks).is_finished
        rest = fit_field(ball_capture(), replace(LEAF_SETTINGS, max_steps=50), FieldHooks(checkpoint=path))
        assert same(whole, rest)


def test_the_mask_shrinks_the_box_and_keeps_the_ball():
    field = fitted().field
    low, high = field.box
    assert (low > -0.85).all()
    assert (high < 0.85).all()
    assert (low < -0.5).all()
    assert (high > 0.5).all()
    assert field.occupancy is not None
    shell = 0.55 * torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    held = torch.minimum(torch.maximum(shell, low), high)
    assert is_occupied(field.occupancy, field.box, held).float().mean() > 0.99
    assert field.occupancy.float().mean() < 0.8


def test_threads_do_not_change_the_result():
    short = replace(SETTINGS, max_steps=12)
    try:
        results = []
        for n_threads in (1, 3):
            set_threads(n_threads)
            results.append(fit_field(ball_capture(), short))
    finally:
        set_threads(available_threads())
    assert same(*results)


@pytest.mark.parametrize("stop", [3, 40])
def test_a_resumed_fit_gives_the_same_bytes(tmp_path: Path, stop: int):
    steps = []
    path = tmp_path / "checkpoint.pt"
    counting = FieldHooks(checkpoint=path, should_stop=lambda: steps.append(0) or len(steps) == stop)
    assert not fit_field(ball_capture(), SETTINGS, counting).is_finished
    resumed = fit_field(ball_capture(), SETTINGS, FieldHooks(checkpoint=path))
    assert same(resumed, fitted())
    with pytest.raises(FormatError, match="seed was 0, now 1"):
        fit_field(ball_capture(), replace(SETTINGS, seed=1), FieldHooks(checkpoint=path))


def test_an_empty_field_keeps_its_densest_cells(caplog: pytest.LogCaptureFixture):
    field = fitted().field
    nothing = replace(field, occupancy=None, density=tuple(value * 0 for value in field.density))
    cells = find_occupied(nothing, keep_cells=0.01)
    assert bool(cells.any())
    assert "the field is nearly empty" in caplog.text


def test_what_no_field_can_be_fitted_to_is_refused():
    capture = ball_capture()
    with pytest.raises(CaptureError, match=r"no photo looks at the box of the field. Check --field.box"):
        fit_field(capture, replace(SETTINGS, box=(100.0, 0.0, 0.0, 101.0, 1.0, 1.0)))
    empty = Photo(torch.zeros(SIDE, SIDE, 3, dtype=torch.uint8), torch.zeros(SIDE, SIDE, dtype=torch.uint8))
    with pytest.raises(CaptureError, match="all training photos are transparent everywhere"):
        fit_field(replace(capture, load=lambda index: empty), SETTINGS)
    with pytest.raises((CaptureError, ValueError), match=r"use a smaller --field.lr-factors"):
        fit_field(capture, replace(SETTINGS, max_steps=30, lr_factors=1e30))


def test_a_perfect_picture_has_no_word_in_json():
    view = ViewScore("a", math.inf, 30.0)
    data = Validation(1, 0.5, 0, math.inf, 30.0, (view,), "").as_json()
    assert json.dumps(data, allow_nan=False)
    assert data["psnr"] is None
    assert data["views"][0] == {"name": "a", "psnr": None, "cc_psnr": 30.0}


def test_a_box_that_misses_the_scene_is_refused():
    with pytest.raises(CaptureError, match="the box of the field lies outside of all silhouettes"):
        fit_field(ball_capture(), replace(SETTINGS, box=(5.0, 5.0, 5.0, 6.0, 6.0, 6.0)))
    with pytest.raises(ValueError, match="each first below its second"):
        fit_field(ball_capture(), replace(SETTINGS, box=(0.0, 0.0, 0.0, 1.0, 0.0, 1.0)))


def test_settings_out_of_range_are_refused():
    for change, words in (
        ({"density_rank": 12}, "multiple of 16, got 12"),
        ({"last_voxels": 10**12}, "first <= last"),
        ({"batch_rays": 0}, "batch_rays: expected at least 1"),
        ({"keep_cells": 0.0}, "keep_cells: expected more than 0"),
        ({"box": (0.0, 0.0, math.nan, 1.0, 1.0, 1.0)}, "box: expected x0 y0 z0 x1 y1 z1 with each first below"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(SETTINGS, **change)
    assert field_preset("fast", "vm", 7).max_steps == 7


def test_photos_without_alpha_are_fitted_on_black():
    capture = ball_capture()
    flat = replace(
        capture,
        has_alpha=False,
        load=lambda i: Photo(capture.load(i).rgb),
        points=torch.randn(500, 3, generator=torch.Generator().manual_seed(0)).clamp(-0.8, 0.8),
        point_colors=torch.full((500, 3), 128, dtype=torch.uint8),
    )
    result = fit_field(flat, replace(SETTINGS, space="box"))
    assert result.validation is not None
    assert result.validation.psnr > 16


def test_a_scene_file_gives_the_same_bits(tmp_path: Path):
    scene = Scene(fitted().field)
    write_scene(scene, tmp_path / "a.s3d")
    back = read_scene(tmp_path / "a.s3d").field()
    for a, b in zip(
        (*scene.field().factors(), *scene.field().decoder.tensors()),
        (*back.factors(), *back.decoder.tensors()),
        strict=True,
    ):
        assert torch.equal(a, b)
    assert torch.equal(back.occupancy, scene.field().occupancy)
    assert (back.step, back.density_scale) == (scene.field().step, scene.field().density_scale)


def test_damaged_scene_files_are_refused(tmp_path: Path):
    container = encode_field(Scene(fitted().field))
    data = container_bytes(container)
    path = tmp_path / "b.s3d"
    for size in range(0, len(data), len(data) // 25):
        path.write_bytes(data[:size])
        with pytest.raises(FormatError):
            read_scene(path)
    for name, value, words in (
        ("nodes", [10**9, 2, 2], "nodes: expected 1 to"),
        ("nodes", [4, 5], "nodes: expected 3 integers"),
        ("cells", [16000, 16000, 16000], "cells of 'occupancy'"),
        ("box", [[0, 0, 0]], "two corners"),
        ("step", -1.0, "step, density_scale: expected positive"),
        ("kind", "voxels", "expected one of vm, cp, trivec, rbf, hash, mlp"),
        ("ranks", [16, 32], "bytes of 'color_xy'"),
    ):
        broken = replace(container, meta={**json.loads(json.dumps(container.meta)), name: value})
        with pytest.raises(FormatError, match=words):
            decode_field(broken, path)
    missing = Container(container.kind, container.codec, 1, {}, container.info, container.meta)
    with pytest.raises(FormatError, match="the chunk 'occupancy' is missing"):
        decode_field(missing, path)


def test_the_stage_refuses_options_of_splats(tmp_path: Path):
    from scene3d.stages.fit import Config, _field_order
    from scene3d.stages.fit_field import FieldConfig, field_settings, refuse_field_options, refuse_splat_options

    refuse_splat_options(Config(tmp_path, kind="vm"))
    with pytest.raises(ValueError, match="--sh-degree, --pose-opt: only --kind gaussians knows it"):
        refuse_splat_options(Config(tmp_path, kind="vm", sh_degree=2, pose_opt=True))
    refuse_field_options(FieldConfig())
    with pytest.raises(ValueError, match=r"--field\.last-voxels: Gaussians know no such thing"):
        refuse_field_options(FieldConfig(last_voxels=1000))
    order = _field_order(Config(tmp_path, kind="vm", field=FieldConfig(leaf_nodes=5)), ball_capture())
    with pytest.raises(ValueError, match=r"--field\.leaf-nodes: only --kind trivec knows it, got vm"):
        field_settings(order)
    order = _field_order(Config(tmp_path, kind="vm", field=FieldConfig(coloring="harmonics")), ball_capture())
    settings = field_settings(order)
    assert (settings.n_features, settings.lr_decoder) == (HARMONIC_FEATURES, HARMONIC_RATE)


def test_the_stage_writes_a_scene_that_info_and_evaluate_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from scene3d.cli import main

    capture = write_tiny_capture(tmp_path / "capture", tiny_scene())
    options = ["--kind", "vm", "--max-steps", "5", "--field.last-voxels", "8000", "--field.batch-rays", "64"]
    fit = ["fit", str(capture), "--out", str(tmp_path / "run" / "fit"), "--test-every", "2", *options]
    assert main(fit) == 0
    scene = str(tmp_path / "run" / "fit" / "scene.s3d")
    assert "a vm field of" in capsys.readouterr().out
    assert main(["info", str(tmp_path / "run")]) == 0
    assert "ranks       16 for density, 48 for colour" in capsys.readouterr().out
    assert main(["evaluate", scene, str(capture), "--test-every", "2", "--no-pictures"]) == 0
    assert main(["export", scene, str(tmp_path / "a.ply")]) == 1
    assert "takes Gaussian splats, the scene holds a vm field" in capsys.readouterr().err
    assert not (tmp_path / "a.ply").exists()
