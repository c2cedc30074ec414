"""Stamps: what a stage was made of, written beside what it made, so that a chain knows what is done.

A stamp holds the stage's settings, a digest of each input and the names of the outputs. The stage is done while all of
them still agree; otherwise the first difference is the reason to do it again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scene3d import __version__
from scene3d.io.atomic import write_json

# Files above this size are known by size and both ends: a video of gigabytes must not cost a minute at every start.
WHOLE_FILE_BYTES = 32 * 2**20
END_BYTES = 2**20


@dataclass(frozen=True)
class Stamp:
    """What a stage was made of.

    Attributes:
        settings: The stage's settings as JSON, flat: "strategy.cap_max" -> 1000000.
        inputs: Digest of each input, by what it is called in messages.
        version: Version of this program.
    """

    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    version: str = __version__

    def why_stale(self, path: Path, outputs: Iterable[Path]) -> str | None:
        """Why the stage must be done again, None when the stamp at `path` agrees and all `outputs` are there."""
        old = _read(path)
        if old is None:
            return "not done yet"
        if old.version != self.version:
            return f"made by version {old.version}, this is {self.version}"
        missing = [output.name for output in outputs if not output.exists()]
        if missing:
            return f"{missing[0]} is gone"
        return _difference("setting", old.settings, self.settings) or _difference("input", old.inputs, self.inputs)

    def write(self, path: Path) -> None:
        """Write the stamp; the last thing a finished stage does."""
        settings, inputs = dict(self.settings), dict(self.inputs)
        write_json(path, {"version": self.version, "settings": settings, "inputs": inputs})


def digest(path: Path, exclude: Path | None = None) -> str:
    """Digest of a file, or of all files below a folder and their names; without hidden ones and those in `exclude`."""
    state = hashlib.blake2b(digest_size=16)
    for file in _files(path, exclude):
        state.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        _update(state, file)
    return state.hexdigest()


def _files(path: Path, exclude: Path | None) -> list[Path]:
    if path.is_file():
        return [path]
    found = []
    for folder, names, files in os.walk(path):
        here = Path(folder)
        names[:] = [n for n in names if not n.startswith(".") and (exclude is None or not _same(here / n, exclude))]
        found += [here / name for name in files if not name.startswith(".")]
    return sorted(found)


def _same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve()


def _update(state: hashlib.blake2b, file: Path) -> None:
    with open(file, "rb") as stream:
        if os.fstat(stream.fileno()).st_size > WHOLE_FILE_BYTES:
            state.update(stream.read(END_BYTES))
            stream.seek(-END_BYTES, os.SEEK_END)
        while chunk := stream.read(2**20):
            state.update(chunk)


def _read(path: Path) -> Stamp | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Stamp(dict(data["settings"]), dict(data["inputs"]), str(data["version"]))
    except (OSError, ValueError, KeyError, TypeError):
        # A stamp that cannot be read is a stage that is not done: doing it again mends it.
        return None


def _difference(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    for name in [*new, *old]:
        if name not in old or name not in new or old[name] != new[name]:
            change = "" if kind == "input" else f": {old.get(name, 'unset')} -> {new.get(name, 'unset')}"
            return f"{kind} {name} changed{change}"
    return None
