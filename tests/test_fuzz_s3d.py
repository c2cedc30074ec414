"""Damaged .s3d files of every codec: a FormatError, or a scene of the size that the header promises.

Files are damaged where checksums do not help: chunks and header change, then the checksums are made again. Seeds are
fixed; a failure names the case.
"""

import copy
import random
import resource
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from field_scenes import random_field
from small_scenes import blob
from test_s3d_codebook import coded_scene
from test_s3d_context import encoded
from test_s3d_grid import container_of

from scene3d.core.errors import FormatError
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.field_codec import encode_field
from scene3d.io.registry import read_scene
from scene3d.io.s3d_codebook import encode_codebook
from scene3d.io.s3d_container import Container, container_bytes
from scene3d.io.s3d_lossless import encode_lossless

N_SPLATS, N_CASES = 40, 60
CODECS = ("context", "lossless", "codebook", "grid", "field")
# What a number of the header may become.
HOSTILE = (
    0,
    -1,
    1,
    2,
    7,
    255,
    2**16,
    2**31,
    2**40,
    10**30,
    0.5,
    -1e300,
    1e300,
    True,
    None,
    "x",
    [],
    {},
    [0],
    "0" * 300,
)
MOST_MEGABYTES = 300


@cache
def sound(codec: str) -> Container:
    if codec == "context":
        return encoded(blob(N_SPLATS, 2))[0]
    if codec == "lossless":
        return encode_lossless(Scene(blob(N_SPLATS, 1)))
    if codec == "codebook":
        return encode_codebook(coded_scene(N_SPLATS), 10, 6, SceneInfo())[0]
    if codec == "grid":
        return container_of(N_SPLATS)
    return encode_field(Scene(random_field()))


def damaged_bytes(data: bytes, chance: random.Random) -> bytes:
    """A chunk with bits flipped, cut off, with more behind, or replaced altogether."""
    kind, changed = chance.randrange(4), bytearray(data)
    if kind == 0:
        for _ in range(chance.randint(1, 8) if changed else 0):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del changed[chance.randrange(len(changed) + 1) :]
    elif kind == 2:
        changed += chance.randbytes(chance.randint(1, 50))
    else:
        changed[:] = chance.choice((b"\x00", b"\xff", chance.randbytes(7))) * chance.randint(0, 60)
    return bytes(changed)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every list or object of JSON with every key in it."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def damaged_meta(container: Container, chance: random.Random) -> Container:
    meta = copy.deepcopy(container.meta)
    holder, key = chance.choice(list(places(meta)))
    holder[key] = chance.choice(HOSTILE)
    return replace(container, meta=meta)


def damaged(container: Container, chance: random.Random) -> Container:
    kind = chance.randrange(8)
    if kind < 3 and container.meta:
        return damaged_meta(container, chance)
    if kind == 3:
        return replace(container, n_items=chance.choice((0, 1, N_SPLATS - 1, N_SPLATS + 1, 1000, 9000)))
    chunks = dict(container.chunks)
    name = chance.choice(list(chunks))
    if kind == 4:
        del chunks[name]
    else:
        chunks[name] = damaged_bytes(chunks[name], chance)
    return replace(container, chunks=chunks)


@pytest.mark.parametrize("codec", CODECS)
def test_damage_behind_checksums_is_told_or_harmless(codec: str, tmp_path: Path) -> None:
    path, told = tmp_path / "a.s3d", 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(N_CASES):
        container = damaged(sound(codec), random.Random(1000 * CODECS.index(codec) + case))
        path.write_bytes(container_bytes(container))
        try:
            scene = read_scene(path)
        except FormatError:
            told += 1
            continue
        if "splats" in scene.capabilities:
            assert len(scene.splats()) == container.n_items, case
        if codec == "context":
            assert scene.splats().is_finite().all(), case
    assert told > N_CASES // 4
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MOST_MEGABYTES


@pytest.mark.parametrize("codec", CODECS)
def test_every_cut_and_flipped_bits_are_told(codec: str, tmp_path: Path) -> None:
    whole, path = container_bytes(sound(codec)), tmp_path / "a.s3d"
    chance = random.Random(3)
    for _ in range(60):
        path.write_bytes(whole[: chance.randrange(len(whole))])
        with pytest.raises(FormatError):
            read_scene(path)
        flipped = bytearray(whole)
        flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(flipped))
        with pytest.raises(FormatError):
            read_scene(path)
