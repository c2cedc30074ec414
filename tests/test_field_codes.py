"""Codebooks of fields: importance, round trips, files that end early, and damaged ones."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from field_scenes import random_field, random_rays
from small_scenes import views_around

from scene3d.compress import field_codes
from scene3d.compress.field_codes import code_field, tune
from scene3d.compress.field_importance import plane_importance
from scene3d.compress.field_order import OrderedField, order_ranks
from scene3d.compress.field_pack import pack_field
from scene3d.compress.goal import Goal
from scene3d.core.cameras import Cameras
from scene3d.core.errors import FormatError
from scene3d.core.fields import Field
from scene3d.core.scene import Scene
from scene3d.io.field_codes import EMPTY, ROW, CodedPlane, decode_codes, encode_codes
from scene3d.io.field_places import used_nodes
from scene3d.io.field_steps import Steps, strongest_first
from scene3d.io.registry import read_scene
from scene3d.io.s3d_container import Container, container_bytes, write_container
from scene3d.render import field_cpu
from scene3d.render.field import render_field
from scene3d.render.field_cpu import NativeField
from scene3d.render.scene_view import render_scene

if not field_cpu.is_available():
    pytest.skip("the native module is not built", allow_module_level=True)

FINE = Steps(1e-3, 1e-3)
PATH = Path("x.s3d")


@functools.cache
def foggy() -> Field:
    return random_field(has_occupancy=True, nodes=(30, 24, 36)).to(dtype=torch.float32)


def views() -> Cameras:
    return views_around(5, 24)


def planes_of(field: Field, classes: int) -> tuple[CodedPlane, ...]:
    planes = []
    for name, value in zip(("xy", "xz", "yz"), field.color, strict=False):
        n = int(used_nodes(field.occupancy, value.shape[:-1], name).sum())
        nothing = torch.zeros(0, value.shape[-1])
        planes.append(CodedPlane(torch.full((n,), classes), torch.zeros(0, dtype=torch.long), nothing))
    return tuple(planes)


@functools.cache
def ordered() -> OrderedField:
    return order_ranks(foggy(), views())


def coded_container(steps: Steps = FINE) -> Container:
    coded = code_field(ordered().field, views(), steps)
    return encode_codes(Scene(coded.field), coded.planes, steps, ordered().heads)


def test_importance_sums_to_the_opacity_of_all_rays():
    field, cameras = foggy(), views()
    total = sum(float(render_field(field, cameras.select([c])).alpha.sum()) for c in range(len(cameras)))
    for plane in plane_importance(field, cameras):
        assert float(plane.sum()) == pytest.approx(total, rel=1e-3)


def test_the_order_of_ranks_changes_no_image():
    field = foggy()
    origins, directions, _ = (value.float() for value in random_rays(200))
    one, two = (
        NativeField(f).march(origins, directions, None).features @ f.decoder.basis
        for f in (field, strongest_first(field))
    )
    assert torch.allclose(one, two, atol=1e-4)


def test_rows_of_their_own_come_back_within_half_a_step():
    field = strongest_first(foggy())
    back = decode_codes(encode_codes(Scene(field), planes_of(field, ROW), FINE), PATH)
    cameras = views().select([0])
    # The decoder is rounded too, to a 64th of its numbers.
    back = replace(back, decoder=field.decoder)
    assert float((render_field(back, cameras).rgb - render_field(field, cameras).rgb).abs().max()) < 5e-3


def test_codes_and_pruned_nodes_come_back():
    field = strongest_first(foggy())
    empty = decode_codes(encode_codes(Scene(field), planes_of(field, EMPTY), FINE), PATH)
    assert all(float(value.abs().max()) == 0 for value in empty.color[:3])
    coded = code_field(ordered().field, views(), FINE)
    back = decode_codes(encode_codes(Scene(coded.field), coded.planes, FINE), PATH)
    assert any(len(plane.book) for plane in coded.planes)
    for kept, value in zip(coded.field.color[:3], back.color[:3], strict=True):
        assert float((kept - value).abs().max()) < 0.05 * float(kept.abs().max())


def test_tuning_brings_renders_nearer(monkeypatch):
    monkeypatch.setattr(field_codes, "TUNE_RAYS", 1024)
    field, steps = foggy(), Steps(0.3, 0.6)
    coded = code_field(field, views(), steps)
    rounded = decode_codes(encode_codes(Scene(coded.field), coded.planes, steps), PATH)
    tuned = tune(coded, rounded, field, views(), 25)
    after = decode_codes(encode_codes(Scene(tuned.field), tuned.planes, steps), PATH)
    truth, one, two = (render_field(f, views()).rgb for f in (field, rounded, after))
    assert (two - truth).square().mean() < 0.95 * (one - truth).square().mean()


def test_packing_with_codes_meets_the_goal(tmp_path: Path):
    scene = Scene(foggy())
    packed = pack_field(scene, Goal(max_drop_db=0.5, scene_psnr=20.0, tune_steps=5), views(), has_codes=True)
    assert packed.fidelity_db >= Goal(max_drop_db=0.5, scene_psnr=20.0).fidelity_db
    write_container(packed.container, tmp_path / "a.s3d")
    assert read_scene(tmp_path / "a.s3d").kind == "vm"
    small = pack_field(scene, Goal(target_bytes=40_000), views(), has_codes=True)
    assert small.size_bytes <= 40_000


def test_fields_with_bases_are_coded_and_tuned(monkeypatch):
    monkeypatch.setattr(field_codes, "TUNE_RAYS", 512)
    field, steps = random_field("rbf", nodes=(20, 16, 18), has_occupancy=True).to(dtype=torch.float32), Steps(0.2, 0.4)
    coded = code_field(field, views(), steps)
    back = decode_codes(encode_codes(Scene(coded.field), coded.planes, steps), PATH)
    tuned = tune(coded, back, field, views(), 20)
    after = decode_codes(encode_codes(Scene(tuned.field), tuned.planes, steps), PATH)
    assert after.bases is not None
    truth, one, two = (render_field(f, views()).rgb for f in (field, back, after))
    assert (two - truth).square().mean() < (one - truth).square().mean() < 0.05


def test_codebooks_are_for_planes():
    with pytest.raises(ValueError, match="codebooks are for vm and rbf fields"):
        pack_field(Scene(random_field("cp").to(dtype=torch.float32)), Goal(), views(), has_codes=True)


def test_a_file_that_ends_early_renders_coarser(tmp_path: Path, caplog):
    container = coded_container(Steps(0.02, 0.02))
    data, truth = container_bytes(container), render_field(foggy(), views().select([0])).rgb
    first = len(data) - sum(len(part) for key, part in container.chunks.items() if key.endswith(".1"))
    errors = []
    for size in (len(data), (first + len(data)) // 2, first, first - 10):
        path = tmp_path / "cut.s3d"
        path.write_bytes(data[:size])
        image = render_scene(read_scene(path), views().select([0])).rgb
        errors.append(float((image - truth).square().mean()))
    assert 0 < errors[0] < errors[1] < errors[2] < errors[3] < 0.2
    assert "parts are rounded more coarsely" in caplog.text
    assert "8 of 32 ranks of colour are missing" in caplog.text
    path.write_bytes(data[: len(data) // 5])
    with pytest.raises(FormatError, match="missing"):
        read_scene(path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"codes": [1, 2]}, "three numbers"),
        ({"codes": [10**9, 1, 1]}, "expected 0 to 4096"),
        ({"bits": 3}, "bits: expected a table, got 3"),
        ({"nodes": [16000, 16000, 16000]}, "not the bytes"),
    ],
)
def test_damaged_headers_are_refused(change, text):
    container = coded_container(Steps(0.3, 0.6))
    with pytest.raises(FormatError, match=text):
        decode_codes(replace(container, meta={**container.meta, **change}), PATH)


def test_damaged_chunks_never_crash():
    container = coded_container(Steps(0.3, 0.6))
    for name, data in list(container.chunks.items())[::3]:
        for broken in (data[: len(data) // 2], bytes(len(data))):
            try:
                field = decode_codes(replace(container, chunks={**container.chunks, name: broken}), PATH)
            except FormatError:
                continue
            assert field.kind == "vm"
