"""glTF as a container: its JSON, buffers, views and accessors, every reference checked."""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scene3d.core.errors import FormatError
from scene3d.io.binary import TRUNCATED, load_bytes
from scene3d.io.json_fields import JsonObject, parse_json
from scene3d.io.zip_files import FileSet

GLB_MAGIC, GLB_JSON, GLB_BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
FLOAT = 5126
COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", FLOAT: "<f4"}
COLUMNS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
DATA_URI = "base64,"


@dataclass(frozen=True)
class GltfFile:
    """An opened file.

    Attributes:
        path: Where it came from.
        json: The document.
        blob: Binary chunk of a .glb.
        loaded: Buffers read so far, by index.
    """

    path: Path
    json: JsonObject
    blob: bytes | None
    loaded: dict[int, bytes] = field(default_factory=dict)

    def entry(self, table: str, index: int) -> JsonObject:
        """Entry `index` of a top-level array."""
        entries = self.json.items(table)
        if not 0 <= index < len(entries):
            raise FormatError(self.path, f"expected {table} with an entry {index}, got {len(entries)} entries")
        return JsonObject(self.path, f"{table}[{index}]", entries[index])

    def view(self, index: int) -> bytes:
        """The bytes of a buffer view."""
        view = self.entry("bufferViews", index)
        buffer = self._buffer(view.integer("buffer", 0, 10**6))
        offset = view.integer("byteOffset", 0, 2**53) if view.has("byteOffset") else 0
        size = view.integer("byteLength", 0, 2**53)
        if offset + size > len(buffer):
            raise FormatError(self.path, f"{view.where}: ends at {offset + size} of {len(buffer)} bytes")
        return buffer[offset : offset + size]

    def accessor(self, index: int, n_columns: int) -> np.ndarray:
        """Rows of an accessor, normalised integers as numbers. [count, n_columns] float32"""
        accessor = self.entry("accessors", index)
        count, kind = accessor.integer("count", 0, 2**32), accessor.text("type")
        if COLUMNS.get(kind) != n_columns:
            raise FormatError(self.path, f"{accessor.where}: expected {n_columns} columns, got {kind or 'nothing'!r}")
        code = accessor.integer("componentType", 5120, FLOAT)
        if code not in COMPONENTS or accessor.has("sparse"):
            raise FormatError(self.path, f"{accessor.where}: expected plain bytes, shorts or floats")
        dtype = np.dtype(COMPONENTS[code])
        if count == 0:
            return np.zeros((0, n_columns), np.float32)
        data, row = self.view(accessor.integer("bufferView", 0, 10**6)), dtype.itemsize * n_columns
        view = self.entry("bufferViews", accessor.integer("bufferView", 0, 10**6))
        stride = view.integer("byteStride", row, 252) if view.has("byteStride") else row
        offset = accessor.integer("byteOffset", 0, 2**53) if accessor.has("byteOffset") else 0
        if offset + stride * (count - 1) + row > len(data):
            problem = f"{accessor.where}: {count} rows do not fit into {len(data)} bytes"
            raise FormatError(self.path, problem, remedy=TRUNCATED)
        rows = np.ndarray((count, n_columns), dtype, data, offset, (stride, dtype.itemsize)).astype(np.float32)
        if code == FLOAT:
            return rows
        if accessor.data.get("normalized") is not True:
            raise FormatError(self.path, f"{accessor.where}: expected normalized integers")
        return np.maximum(rows / np.iinfo(dtype).max, -1.0).astype(np.float32)

    def size_bytes(self) -> int:
        """Of all that was read so far."""
        return sum(len(data) for data in self.loaded.values())

    def _buffer(self, index: int) -> bytes:
        if index not in self.loaded:
            self.loaded[index] = self._read_buffer(index)
        return self.loaded[index]

    def _read_buffer(self, index: int) -> bytes:
        buffer = self.entry("buffers", index)
        if not buffer.has("uri"):
            if self.blob is None or index != 0:
                raise FormatError(self.path, f"{buffer.where}: has no uri and there is no binary chunk")
            return self.blob
        uri = buffer.text("uri")
        if not uri.startswith("data:"):
            return FileSet(self.path).read(uri)
        try:
            return base64.b64decode(uri[uri.index(DATA_URI) + len(DATA_URI) :], validate=True)
        except (ValueError, binascii.Error) as error:
            raise FormatError(self.path, f"{buffer.where}: expected base64 data") from error


def open_gltf(path: Path) -> GltfFile:
    """Open a .glb or .gltf.

    Raises:
        FormatError: it is none.
    """
    data = load_bytes(path)
    if data[:4] != b"glTF":
        if path.suffix.lower() == ".glb":
            raise FormatError(path, f"expected a binary glTF, which starts with 'glTF', got {data[:4]!r}", 0)
        return GltfFile(path, parse_json(path, "document", data), None)
    chunks = _chunks(path, data)
    if GLB_JSON not in chunks:
        raise FormatError(path, "expected a JSON chunk", 12)
    return GltfFile(path, parse_json(path, "document", chunks[GLB_JSON]), chunks.get(GLB_BIN))


def _chunks(path: Path, data: bytes) -> dict[int, bytes]:
    if len(data) < 12:
        raise FormatError(path, "ends within the header", len(data), TRUNCATED)
    version, size = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise FormatError(path, f"expected version 2, got {version}", 4)
    if size > len(data):
        raise FormatError(path, f"expected {size} bytes, got {len(data)}", len(data), TRUNCATED)
    chunks: dict[int, bytes] = {}
    offset = 12
    while offset + 8 <= size:
        length, kind = struct.unpack_from("<II", data, offset)
        if offset + 8 + length > size:
            raise FormatError(path, f"a chunk of {length} bytes does not fit", offset, TRUNCATED)
        chunks.setdefault(kind, data[offset + 8 : offset + 8 + length])
        offset += 8 + length
    return chunks
