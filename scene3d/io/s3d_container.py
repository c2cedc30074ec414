"""The .s3d container: kind of scene, facts, codec and checksummed chunks. It needs nothing beside itself to be read.

Little endian. Magic (8 bytes), version major and minor (uint16 each), size of the header (uint32), number of chunks
(uint32), the header (JSON, UTF-8), for each chunk the length of its name (uint8), its name (ASCII), its size (uint64)
and its CRC-32 (uint32), then the CRC-32 of all bytes so far, then the chunks one after the other up to the end.
docs/s3d.md is the specification.
"""

from __future__ import annotations

import json
import logging
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scene3d.core.errors import FormatError
from scene3d.core.scene import SceneInfo
from scene3d.io.atomic import write_bytes
from scene3d.io.binary import TRUNCATED, ByteReader, load_bytes

logger = logging.getLogger(__name__)

MAGIC = b"\x89S3D\r\n\x1a\n"
MAJOR, MINOR = 1, 0
MAX_NAME = 32
# Items that cost less than an eighth of a bit are padded to it: then the size of a file bounds the memory it asks for.
ITEMS_PER_BYTE = 64
FREE_ITEMS = 4096
DAMAGED = "The file is damaged: copy or make it again."


@dataclass(frozen=True)
class Container:
    """What a .s3d file holds.

    Attributes:
        kind: What is inside: "splats".
        codec: Which codec made the chunks.
        n_items: How many items the chunks describe: the number of splats.
        chunks: Bytes by name; names are up to 32 ASCII letters.
        info: Facts about the scene.
        meta: The codec's own numbers, JSON.
    """

    kind: str
    codec: str
    n_items: int
    chunks: dict[str, bytes]
    info: SceneInfo = field(default_factory=SceneInfo)
    meta: dict[str, Any] = field(default_factory=dict)


def write_container(container: Container, path: Path) -> None:
    """Write the file atomically.

    Raises:
        OutputError: path cannot be written.
    """
    write_bytes(path, container_bytes(container))


def container_bytes(container: Container) -> bytes:
    """The file as bytes, for sizes without a file."""
    chunks = dict(container.chunks)
    missing = (container.n_items - FREE_ITEMS + ITEMS_PER_BYTE - 1) // ITEMS_PER_BYTE - sum(map(len, chunks.values()))
    if missing > 0:
        chunks["padding"] = bytes(missing)
    header = {
        "kind": container.kind,
        "codec": container.codec,
        "n_items": container.n_items,
        "info": _info_json(container.info),
        "meta": container.meta,
    }
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode("utf-8")
    head = MAGIC + struct.pack("<HHII", MAJOR, MINOR, len(text), len(chunks)) + text
    for name, data in chunks.items():
        key = name.encode("ascii")
        assert 0 < len(key) <= MAX_NAME
        head += struct.pack("<B", len(key)) + key + struct.pack("<QI", len(data), zlib.crc32(data))
    return head + struct.pack("<I", zlib.crc32(head)) + b"".join(chunks.values())


def read_container(path: Path) -> Container:
    """Read the file and check every byte of it.

    Raises:
        FormatError: it is no .s3d, a newer one, truncated or damaged, or promises more items than it has bytes for.
    """
    reader = ByteReader(path, load_bytes(path))
    n_header, n_chunks = _read_preamble(reader)
    reader.need(n_header, "the header")
    text = reader.data[reader.offset : reader.offset + n_header]
    reader.offset += n_header
    table = [_read_entry(reader) for _ in range(n_chunks)]
    _check_crc(reader, "header", reader.data[: reader.offset], reader.fields("I", "the header's checksum")[0], 0)
    if len({name for name, _, _ in table}) != len(table):
        raise FormatError(path, "two chunks have the same name", remedy=DAMAGED)
    chunks: dict[str, bytes] = {}
    for name, size, crc in table:
        if reader.left() < size and _may_end_early(text):
            logger.warning("%s: the file ends early: %d of %d parts are there", path, len(chunks), len(table))
            reader.offset = len(reader.data)
            break
        chunks[name] = _read_chunk(reader, name, size, crc)
    if reader.left():
        raise FormatError(path, f"{reader.left()} bytes follow the last chunk", reader.offset, DAMAGED)
    return _container(path, text, chunks)


def _read_preamble(reader: ByteReader) -> tuple[int, int]:
    if not MAGIC.startswith(reader.data[: len(MAGIC)]) or not reader.data:
        raise FormatError(reader.path, "expected a .s3d file, its first bytes are others", 0, "Check the path.")
    reader.need(len(MAGIC), "the magic bytes")
    reader.offset = len(MAGIC)
    major, minor, n_header, n_chunks = reader.fields("HHII", "the sizes")
    if major != MAJOR:
        problem = f"is version {major}.{minor} of .s3d, this program reads {MAJOR}.x"
        raise FormatError(reader.path, problem, len(MAGIC), "Use a newer scene3d.")
    # An entry of the table takes at least 14 bytes.
    if n_chunks * 14 > reader.left():
        problem = f"says {n_chunks} chunks, but only {reader.left()} bytes follow"
        raise FormatError(reader.path, problem, 16, TRUNCATED)
    return n_header, n_chunks


def _read_entry(reader: ByteReader) -> tuple[str, int, int]:
    start = reader.offset
    (length,) = reader.fields("B", "the table of chunks")
    reader.need(length, "the name of a chunk")
    name = reader.data[reader.offset : reader.offset + length]
    reader.offset += length
    size, crc = reader.fields("QI", "the table of chunks")
    if not 0 < length <= MAX_NAME or not name.isascii():
        raise FormatError(reader.path, "the name of a chunk is none", start, DAMAGED)
    return name.decode("ascii"), size, crc


def _read_chunk(reader: ByteReader, name: str, size: int, crc: int) -> bytes:
    start = reader.offset
    reader.need(size, f"the chunk {name!r}")
    data = reader.data[start : start + size]
    reader.offset += size
    _check_crc(reader, f"chunk {name!r}", data, crc, start)
    return data


def _check_crc(reader: ByteReader, what: str, data: bytes, crc: int, offset: int) -> None:
    actual = zlib.crc32(data)
    if actual != crc:
        problem = f"the {what} has the checksum {actual:08x}, expected {crc:08x}"
        raise FormatError(reader.path, problem, offset, DAMAGED)


def _may_end_early(text: bytes) -> bool:
    """Whether the header says that a file without its last chunks is a coarser scene."""
    try:
        return json.loads(text.decode("utf-8"))["meta"]["ends_early"] is True
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, KeyError, TypeError):
        return False


def _container(path: Path, text: bytes, chunks: dict[str, bytes]) -> Container:
    try:
        header = json.loads(text.decode("utf-8"))
        kind, codec, n_items, meta = (header[key] for key in ("kind", "codec", "n_items", "meta"))
        info = _info_from_json(header["info"])
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, KeyError, TypeError, ValueError) as error:
        raise FormatError(path, f"the header is not what .s3d holds: {error!r}", 20, DAMAGED) from error
    n_bytes = sum(map(len, chunks.values()))
    if not isinstance(n_items, int) or not 0 <= n_items <= ITEMS_PER_BYTE * n_bytes + FREE_ITEMS:
        raise FormatError(path, f"says {n_items!r} items, but has only {n_bytes} bytes of them", 20, DAMAGED)
    if not (isinstance(kind, str) and isinstance(codec, str) and isinstance(meta, dict)):
        raise FormatError(path, "the header is not what .s3d holds", 20, DAMAGED)
    return Container(kind, codec, n_items, chunks, info, meta)


def _info_json(info: SceneInfo) -> dict[str, Any]:
    """Only what differs from a scene without facts."""
    facts: dict[str, Any] = {"antialiased": info.antialiased, "source": info.source, "made_by": info.made_by}
    facts["up"] = None if info.up is None else [float(value) for value in info.up]
    facts["notes"] = list(info.notes)
    return {name: value for name, value in facts.items() if value}


def _info_from_json(facts: dict[str, Any]) -> SceneInfo:
    up = facts.get("up")
    return SceneInfo(
        antialiased=bool(facts.get("antialiased", False)),
        up=None if up is None else _axis(up),
        source=str(facts.get("source", "")),
        made_by=str(facts.get("made_by", "")),
        notes=tuple(str(note) for note in facts.get("notes", ())),
    )


def _axis(values: list[Any]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
