"""Rounded fields: what comes back is near, empty nodes are not stored, goals are met, damaged files are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from field_scenes import random_field
from tiny_capture import tiny_cameras

from scene3d.compress.field_pack import pack_field
from scene3d.compress.goal import Goal
from scene3d.core.errors import FormatError
from scene3d.core.fields import HARMONIC_FEATURES, decoder_of
from scene3d.core.scene import Scene
from scene3d.io.field_codec import decode_field, encode_field
from scene3d.io.field_places import used_nodes
from scene3d.io.field_steps import Steps, balanced, decode_steps, encode_steps
from scene3d.io.registry import read_scene, write_scene
from scene3d.io.s3d_container import container_bytes, write_container
from scene3d.ops.occupancy import cell_centers
from scene3d.render.density import density_at
from scene3d.render.field_cpu import NativeField, is_available
from scene3d.render.scene_view import render_scene

if not is_available():
    pytest.skip("the native module is not built", allow_module_level=True)

FINE = Steps(1e-3, 1e-3)


def scene_of(kind: str = "vm", has_occupancy: bool = True) -> Scene:
    return Scene(random_field(kind, has_occupancy=has_occupancy).to(dtype=torch.float32))


@pytest.mark.parametrize("kind", ["vm", "cp", "trivec", "rbf", "hash", "mlp"])
def test_density_comes_back_within_the_steps(kind: str):
    scene = scene_of(kind)
    back = Scene(decode_steps(encode_steps(scene, FINE), Path()))
    cells = scene.field().occupancy
    points = cell_centers(tuple(cells.shape), scene.field().box)[cells]
    before, after = density_at(scene.field(), points), density_at(back.field(), points)
    assert (before - after).abs().max() < 0.1 * before.max()
    assert not torch.equal(before, after)


def test_coarser_steps_make_smaller_files_and_larger_errors():
    scene, sizes, errors = scene_of(), [], []
    for step in (0.01, 0.1, 1.0):
        container = encode_steps(scene, Steps(step, step))
        back = decode_steps(container, Path())
        pairs = zip(scene.field().density[3:], back.density[3:], strict=True)
        sizes.append(len(container_bytes(container)))
        errors.append(max(float((a - b).abs().max()) for a, b in pairs))
    assert sizes[0] > sizes[1] > sizes[2]
    assert errors[0] < errors[1] < errors[2]


def test_nodes_of_occupied_cells_are_used_and_others_are_not():
    cells = torch.zeros(4, 5, 6, dtype=torch.bool)
    cells[1, 2, 3] = True
    plane = used_nodes(cells, torch.Size((9, 13)), "xy")
    rows, columns = plane.any(dim=1).nonzero()[:, 0].tolist(), plane.any(dim=0).nonzero()[:, 0].tolist()
    # Row cells span 8 / 5 nodes, column cells 12 / 6.
    assert rows == [3, 4, 5]
    assert columns == [6, 7, 8]
    assert used_nodes(cells, torch.Size((7,)), "z").all()
    assert used_nodes(None, torch.Size((9, 13)), "xy").all()


def test_goals_are_met_and_the_file_is_read_as_any_scene(tmp_path: Path):
    scene = scene_of()
    packed = pack_field(scene, Goal(max_drop_db=0.2, scene_psnr=30))
    assert packed.fidelity_db >= Goal(max_drop_db=0.2, scene_psnr=30).fidelity_db
    smaller = pack_field(scene, Goal(target_bytes=packed.size_bytes - 500))
    assert smaller.size_bytes <= packed.size_bytes - 500
    assert smaller.fidelity_db < packed.fidelity_db
    assert "out of reach" in pack_field(scene, Goal(target_bytes=1000)).remark
    write_container(packed.container, tmp_path / "a.s3d")
    back = read_scene(tmp_path / "a.s3d").field()
    assert torch.equal(back.occupancy, scene.field().occupancy)
    assert (tmp_path / "a.s3d").stat().st_size == packed.size_bytes


def test_photos_decide_what_a_drop_is():
    scene, asked = scene_of(), []

    def psnr_of(other: Scene) -> float:
        """As if every bit of the first plane that is lost took its part of the PSNR."""
        off = float((other.field().density[0] - scene.field().density[0]).abs().mean())
        asked.append(off)
        return 30.0 - 100.0 * off

    packed = pack_field(scene, Goal(max_drop_db=0.5), psnr_of=psnr_of)
    assert packed.drop_db is not None
    assert 0 < packed.drop_db <= 0.5 < 100.0 * max(asked)
    assert packed.drop_db == pytest.approx(max(100.0 * off for off in asked if 100.0 * off <= 0.5))


def test_balanced_leaves_are_the_same_field():
    field = random_field("cover")
    field = replace(field, color=(field.color[0] * 0, *field.color[1:]))
    alike = balanced(field)
    points = 1.6 * torch.rand(300, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.8
    for look_up in ("density_features", "color_features"):
        before, after = (getattr(NativeField(f), look_up)(points) for f in (field, alike))
        torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)
    x, y, z = (v.norm(dim=1) for v in alike.density[:3])
    torch.testing.assert_close(x, y)
    torch.testing.assert_close(x, z)
    assert bool((x.diff(dim=1) <= 1e-9).all())
    assert float(alike.color[3].sum(dim=1).min()) >= 0


@pytest.mark.parametrize("kind", ["vm", "cp", "trivec", "cover", "rbf"])
def test_a_file_that_ends_early_is_coarser(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    scene = scene_of(kind)
    container, path = encode_steps(scene, FINE), tmp_path / "a.s3d"
    whole, names = container_bytes(container), list(container.chunks)
    ends = len(whole) - sum(map(len, container.chunks.values())) + np.cumsum([*map(len, container.chunks.values())])
    # The last chunk of the first ranks, of all ranks, and half of what makes them finer.
    last = max(i for i, name in enumerate(names) if name.startswith("color_") and name.endswith("_0"))
    coarse = min(i for i, name in enumerate(names) if name.endswith(".1")) - 1
    images = []
    for size in (len(whole), (ends[coarse] + len(whole)) // 2, ends[coarse], ends[last]):
        path.write_bytes(whole[:size])
        images.append(render_scene(read_scene(path), tiny_cameras().select([0])).rgb)
    assert "parts are rounded more coarsely" in caplog.text
    assert "ranks of colour are missing" in caplog.text
    errors = [float((image - images[0]).square().mean()) for image in images]
    assert 0 < errors[1] < errors[2] < errors[3]
    path.write_bytes(whole[: ends[last] - 1])
    with pytest.raises(FormatError, match=r"the chunk 'color_\w+_0' is missing"):
        read_scene(path)


@pytest.mark.parametrize("kind", ["trivec", "cover"])
def test_leaves_are_written_and_read_without_loss(kind: str, tmp_path: Path):
    scene = scene_of(kind)
    write_scene(scene, tmp_path / "a.s3d")
    back, field = read_scene(tmp_path / "a.s3d").field(), scene.field()
    assert all(torch.equal(a, b) for a, b in zip(back.factors(), field.factors(), strict=True))
    for a, b in zip(back.levels, field.levels, strict=True):
        assert torch.equal(a.taken, b.taken)
        assert (a.nodes, a.is_shifted) == (b.nodes, b.is_shifted)


def test_damaged_leaves_are_refused(tmp_path: Path):
    container = encode_field(scene_of("cover"))
    first, second = container.meta["levels"]
    for rows, words in (
        (None, "levels: expected 1 to 2 tables, got None"),
        ([first] * 3, "levels: expected 1 to 2 tables"),
        ([{**first, "cubes": [16000] * 3}, second], "cells of 'leaves0', expected at most"),
        ([{**first, "cubes": [9, 9, 9]}, second], "'leaves0': expected 92 bytes, got"),
        ([{**first, "nodes": 1}, second], "nodes: expected at least 2 along a leaf, got 1"),
        ([first, {**second, "is_shifted": 1}], "is_shifted: expected true or false, got 1"),
        ([second], r"bytes of 'density_x0'|expected the first not to be shifted|'leaves0': expected"),
    ):
        with pytest.raises(FormatError, match=words):
            decode_field(replace(container, meta={**container.meta, "levels": rows}), tmp_path / "b.s3d")


def harmonic_scene() -> Scene:
    """A field whose features are harmonics."""
    field = scene_of().field()
    basis = torch.randn(field.n_features, HARMONIC_FEATURES, generator=torch.Generator().manual_seed(2))
    return Scene(replace(field, decoder=decoder_of([0.1 * basis])))


def test_a_decoder_of_harmonics_is_written_and_read():
    scene = harmonic_scene()
    basis = scene.field().decoder.basis
    assert torch.equal(decode_field(encode_field(scene), Path()).decoder.basis, basis)
    # Ranks come in another order.
    back = decode_steps(encode_steps(scene, FINE), Path()).decoder
    assert back.is_harmonic
    torch.testing.assert_close(back.basis.norm(dim=1).sort().values, basis.norm(dim=1).sort().values, rtol=1e-2, atol=0)


def test_a_decoder_without_layers_has_as_many_features_as_harmonics(tmp_path: Path):
    container = encode_field(harmonic_scene())
    broken = replace(container, meta={**container.meta, "features": 32})
    with pytest.raises(FormatError, match="expected 48 features of a decoder without layers, got 32"):
        decode_field(broken, tmp_path / "a.s3d")
    with pytest.raises(ValueError, match="decoder: without layers expected 48 features and no biases, got 32 and 0"):
        decoder_of([torch.zeros(16, 32)])


def test_damaged_rounded_fields_are_refused(tmp_path: Path):
    container = encode_steps(scene_of(), FINE)
    for name, value, words in (
        ("bits", 3, "bits: expected a table"),
        ("bits", {}, "bits of 'density_xy': expected 1 to 16, got None"),
        ("nodes", [16000, 16000, 16000], "has not the bytes for them"),
        ("hidden", [4096, 4096], "bytes of 'decoder' do not hold"),
    ):
        broken = replace(container, meta={**json.loads(json.dumps(container.meta)), name: value})
        with pytest.raises(FormatError, match=words):
            decode_steps(broken, tmp_path / "b.s3d")
    short = replace(container, chunks={**container.chunks, "density_xy": b"123"})
    with pytest.raises(FormatError, match="at least 32 bytes of 'density_xy', got 3"):
        decode_steps(short, tmp_path / "b.s3d")
