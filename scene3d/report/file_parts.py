"""Where the bytes of a .s3d file go: its chunks, each of which holds an attribute."""

from __future__ import annotations

from pathlib import Path

from scene3d.io.s3d_container import read_container
from scene3d.report.facts import size_text


def file_parts(path: Path) -> dict[str, int]:
    """Bytes of every chunk of a .s3d file in the order of the file, then of the header; nothing for other files.

    Raises:
        FormatError: the file is damaged.
    """
    if path.suffix.lower() != ".s3d":
        return {}
    sizes = {name: len(data) for name, data in read_container(path).chunks.items()}
    return {**sizes, "header": path.stat().st_size - sum(sizes.values())}


def parts_text(parts: dict[str, int]) -> str:
    """The same for a terminal, with shares of the file."""
    total = max(sum(parts.values()), 1)
    width = max(map(len, parts), default=0)
    lines = (f"  {name:<{width}} {size_text(size):>10} {100 * size / total:5.1f} %" for name, size in parts.items())
    return "\n".join(["", "", "in the file", *lines])
