"""Streamed SOG (lod-meta.json), read only: a tree of boxes, whose leaves name rows of SOG files at levels of detail.

Level 0 is the finest; a leaf has the levels it needs. What is read is the finest level of every leaf, and the
environment, if there is one. Files lie in folders below that of lod-meta.json, as loose SOG.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scene3d.core.errors import FormatError
from scene3d.core.gaussians import Gaussians, cat
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.binary import load_bytes
from scene3d.io.json_fields import JsonObject, parse_json
from scene3d.io.zip_files import check_plain_name

LOD_META = "lod-meta.json"
MAX_FILES = 65_536
MAX_NODES = 10**6
MAX_LEVEL = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Rows:
    """Rows of one of the files."""

    file: int
    begin: int
    end: int


def read_streamed_sog(path: Path, read_meta: Callable[[Path], Scene]) -> Scene:
    """Read the finest level of all.

    Args:
        path: The lod-meta.json.
        read_meta: Reads the meta.json of a loose SOG.

    Raises:
        FormatError: a file is missing or damaged, or the tree leads nowhere.
    """
    meta = parse_json(path, LOD_META, load_bytes(path))
    meta.integer("version", 1, 1)
    files = [_below(path, name) for name in meta.texts("filenames", len(meta.items("filenames", MAX_FILES)))]
    rows = _finest(meta, len(files))
    if meta.has("environment") and meta.data["environment"] is not None:
        files.append(_below(path, meta.text("environment")))
        rows.append(_Rows(len(files) - 1, 0, -1))
    n_levels = meta.integer("lodLevels", 0, MAX_LEVEL) if meta.has("lodLevels") else 1
    if n_levels > 1:
        log.warning("%s: read the finest of %d levels of detail", path, n_levels)
    parts, infos = [], []
    for number in sorted({item.file for item in rows}):
        scene = read_meta(files[number])
        infos.append(scene.info)
        parts += [_cut(files[number], scene.splats(), item) for item in rows if item.file == number]
    made_by = meta.object("asset").text("generator") if meta.has("asset") else ""
    is_antialiased = any(info.antialiased for info in infos)
    return Scene(cat(parts), SceneInfo(is_antialiased, made_by=made_by))


def _finest(meta: JsonObject, n_files: int) -> list[_Rows]:
    waiting = [meta.object("tree")]
    found: list[_Rows] = []
    for _ in range(MAX_NODES):
        if not waiting:
            return found
        node = waiting.pop()
        if node.has("lods"):
            levels = node.object("lods")
            numbers = [int(key) for key in levels.data if key.isdecimal() and len(key) < 4]
            if numbers:
                entry = levels.object(str(min(numbers)))
                file, offset = entry.integer("file", 0, n_files - 1), entry.integer("offset", 0, 2**40)
                found.append(_Rows(file, offset, offset + entry.integer("count", 0, 2**40)))
        children = reversed(node.items("children", 2))
        waiting += [JsonObject(meta.path, f"{node.where[:60]}.children", child) for child in children]
    raise FormatError(meta.path, f"tree: expected at most {MAX_NODES} nodes")


def _cut(path: Path, gaussians: Gaussians, rows: _Rows) -> Gaussians:
    end = len(gaussians) if rows.end < 0 else rows.end
    if end > len(gaussians):
        raise FormatError(path, f"expected at least {end} Gaussians, which the tree names, got {len(gaussians)}")
    return gaussians.map(lambda value: value[rows.begin : end])


def streamed_files(path: Path) -> list[Path]:
    """The meta.json of each loose SOG that a lod-meta.json names and that is there."""
    meta = parse_json(path, LOD_META, load_bytes(path))
    names = [*meta.items("filenames", MAX_FILES), meta.data.get("environment")]
    found = [_below(path, name) for name in names if isinstance(name, str)]
    return [file for file in found if file.is_file()]


def _below(path: Path, name: str) -> Path:
    """The file of that name below the folder of `path`, never elsewhere."""
    for part in name.split("/"):
        check_plain_name(path, part)
    return path.parent / name
