"""Ways to damage a file: blindly by bytes, and knowingly within zip, glTF, gzip, JSON and PNG or WebP inside of them.

Every function takes the bytes and a source of chance and gives damaged bytes. Checksums and lengths around a damaged
part are made right again, so that the damage reaches the code behind them.
"""

from __future__ import annotations

import io
import json
import lzma
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

Mutation = Callable[[bytes, random.Random], bytes]

# Where sizes and counts overflow, wrap or turn negative.
INTEGERS = (0, 1, 2, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
FLOATS = (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 3e38, 1e-45)
NUMBERS = (b"0", b"-1", b"1e999", b"nan", b"-inf", b"99999999999999999999", b"9" * 5000, b"1" + b"0" * 400, b"", b"2.5")
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 10**400, 2.5, 1e308, float("nan"), float("inf"), "", "x", "../../etc/passwd"),
    *("/etc/passwd", "a\0b", "y" * 5000, "\ud800", [], {}, [[]], [None], {"a": []}, [1e308] * 3, [[1, 2], [3]]),
)
NAMES = ("../out.webp", "/tmp/out.webp", "C:\\out.webp", "meta.json\0", "a" * 300, "..", "")
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
BOMB_BYTES = 24 << 20
MAX_INNER = 1 << 22
BROKEN = (
    *(ValueError, KeyError, IndexError, OSError, EOFError, RuntimeError, OverflowError),
    *(struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile),
)
WORD = re.compile(rb"[-+]?\d[\d.eE+-]*")


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One to three kinds of damage on top of each other."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        knowing = _knowing(data)
        kinds = knowing if knowing and chance.random() < 0.6 else BLIND
        data = chance.choice(kinds)(data, chance)
    return data


def truncate(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def flip_bits(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.randint(1, 8) if out else 0):
        out[_place(out, chance)] ^= 1 << chance.randrange(8)
    return bytes(out)


def overwrite_number(data: bytes, chance: random.Random) -> bytes:
    """A size, count or coordinate becomes absurd; most fields stand at even places."""
    size = chance.choice((1, 2, 4, 4, 8))
    if size >= 4 and chance.random() < 0.3:
        new = np.array(chance.choice(FLOATS)).astype(f"<f{size}").tobytes()
    else:
        new = (chance.choice(INTEGERS) % 256**size).to_bytes(size, chance.choice(("little", "little", "big")))
    step = chance.choice((1, 2, 4))
    place = _place(data, chance) // step * step if data else 0
    return data[:place] + new + data[place + len(new) :]


def rearrange(data: bytes, chance: random.Random) -> bytes:
    """Cut a piece out, put it in twice, or put noise in."""
    begin, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    end = min(end, begin + chance.choice((1, 4, 64, 4096)))
    piece = chance.choice((b"", data[begin:end] * 2, chance.randbytes(min(end - begin, 64)), b"\0" * (end - begin)))
    return data[:begin] + piece + data[end:]


def change_word(data: bytes, chance: random.Random) -> bytes:
    """A decimal number of a text or header becomes another."""
    words = list(WORD.finditer(data[:65_536]))
    if not words:
        return flip_bits(data, chance)
    word = chance.choice(words)
    return data[: word.start()] + chance.choice(NUMBERS) + data[word.end() :]


def swap_lines(data: bytes, chance: random.Random) -> bytes:
    """Lines of a text or header are dropped, doubled or exchanged."""
    lines = data.split(b"\n")
    i, j = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    lines[i : i + 1] = lines[i : i + 1] * chance.choice((0, 1, 2, 300))
    return b"\n".join(lines)


def change_json(data: bytes, chance: random.Random) -> bytes:
    """A value somewhere in a JSON document becomes one of another kind, or goes."""
    document = json.loads(data)
    places = list(_places(document))
    if not places:
        return b"[]"
    parent, key = chance.choice(places)
    if isinstance(parent, dict) and chance.random() < 0.15:
        del parent[key]
    elif isinstance(parent, list) and chance.random() < 0.15:
        parent[:] = parent * chance.choice((0, 2, 50))
    else:
        parent[key] = chance.choice(VALUES)
    return json.dumps(document).encode("utf-8", errors="surrogatepass")


def change_gzip(data: bytes, chance: random.Random) -> bytes:
    inner = zlib.decompressobj(wbits=31).decompress(data, MAX_INNER)
    packer = zlib.compressobj(6, wbits=31)
    inner = mutate(inner, chance) if chance.random() < 0.9 else inner + b"\0" * BOMB_BYTES
    return packer.compress(inner) + packer.flush()


def change_glb(data: bytes, chance: random.Random) -> bytes:
    size = struct.unpack_from("<I", data, 12)[0]
    text, rest = data[20 : 20 + size], data[20 + size :]
    text = change_json(text, chance)
    text += b" " * (-len(text) % 4)
    return data[:4] + struct.pack("<IIII", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A) + text + rest


def change_zip(data: bytes, chance: random.Random) -> bytes:
    """A member is damaged, renamed, packed otherwise, doubled, or blown up."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)[:MAX_INNER]) for info in archive.infolist()]
    if not members:
        return flip_bits(data, chance)
    i, what = chance.randrange(len(members)), chance.random()
    name, inner = members[i]
    if what < 0.6:
        members[i] = name, mutate(inner, chance)
    elif what < 0.7:
        members[i] = chance.choice(NAMES) or "x", inner
    elif what < 0.75:
        members[i] = name, inner + b"\0" * BOMB_BYTES
    elif what < 0.8:
        members.append((name, b"other"))
    elif what < 0.85:
        del members[i]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        # Names that appear twice are meant.
        warnings.simplefilter("ignore")
        for name, inner in members:
            archive.writestr(zipfile.ZipInfo(name), inner, chance.choice(PACKINGS) if what > 0.5 else None)
    return buffer.getvalue()


BLIND: tuple[Mutation, ...] = (
    truncate,
    flip_bits,
    overwrite_number,
    overwrite_number,
    rearrange,
    change_word,
    swap_lines,
)

KNOWING: tuple[tuple[bytes, Mutation], ...] = (
    *((b"PK", change_zip), (b"\x1f\x8b", change_gzip), (b"glTF", change_glb), (b"{", change_json), (b"[", change_json)),
)


def _knowing(data: bytes) -> tuple[Mutation, ...]:
    """Mutations that know what `data` is, if it is still whole enough."""
    return tuple(_or_blind(mutation) for magic, mutation in KNOWING if data.startswith(magic))


def _or_blind(mutation: Mutation) -> Mutation:
    def either(data: bytes, chance: random.Random) -> bytes:
        try:
            return mutation(data, chance)
        except BROKEN:
            # What was damaged before may no longer be a zip, a glTF, JSON; then bytes are as good.
            return flip_bits(data, chance)

    return either


def _place(data: bytes | bytearray, chance: random.Random) -> int:
    # Headers are where it hurts: half of the damage goes there.
    return chance.randrange(len(data) if chance.random() < 0.5 else min(len(data), 256))


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    found = [(value, key) for key in keys]
    for key in keys:
        found += _places(value[key])
    return found
