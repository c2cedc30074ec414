"""The files of a SOG: which of them a meta.json names, and how many Gaussians they can hold."""

from __future__ import annotations

from pathlib import Path

from scene3d.core.errors import FormatError
from scene3d.io.binary import is_file
from scene3d.io.json_fields import JsonObject, parse_json
from scene3d.io.zip_files import FileSet, is_plain_name

META = "meta.json"
# A Gaussian takes ten bytes and more, but small scenes may be of one kind throughout.
FREE_COUNT = 2**18


def named_files(path: Path) -> list[str]:
    """Images that a loose meta.json names and that lie beside it."""
    return [file.name for file in _named(path, parse_json(path, META, FileSet(path).read(path.name)))]


def check_count(files: FileSet, meta: JsonObject, count: int) -> None:
    """Check that `count` Gaussians can be in files of this size: tiny images of one colour can be vast.

    Raises:
        FormatError: they cannot.
    """
    size = files.path.stat().st_size + (0 if files.archive else sum(map(_size, _named(files.path, meta))))
    if count > max(FREE_COUNT, size):
        raise FormatError(files.path, f"says it holds {count} Gaussians in {size} bytes, which is too much")


def _named(path: Path, meta: JsonObject) -> list[Path]:
    parts = [part for part in meta.data.values() if isinstance(part, dict)]
    lists = [part["files"] for part in parts if isinstance(part.get("files"), list)]
    names = [name for names in lists for name in names if isinstance(name, str) and is_plain_name(name)]
    return [path.parent / name for name in names if is_file(path.parent / name)]


def _size(path: Path) -> int:
    return path.stat().st_size
