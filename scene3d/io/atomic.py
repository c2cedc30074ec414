"""Atomic output: a file appears whole or not at all, and what was there before stays until then."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from scene3d.core.errors import OutputError

REMEDIES = {
    errno.ENOSPC: "The disk is full: free some space or choose another output folder.",
    errno.EDQUOT: "Your disk quota is used up: free some space or choose another output folder.",
    errno.EACCES: "You may not write there: choose another output folder or change its permissions.",
    errno.EPERM: "You may not write there: choose another output folder or change its permissions.",
    errno.EROFS: "That file system is read-only: choose another output folder.",
    errno.ENOTDIR: "A file stands where a folder is needed: choose another output folder.",
    errno.EISDIR: "A folder has that name: choose another file name.",
    errno.EEXIST: "A file has that name: choose another output folder.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends well, else remove it.

    The temporary name keeps the suffix, so that libraries that choose a format by suffix work. Missing folders
    above `path` are made.

    Raises:
        OutputError: the disk is full, the folder cannot be written, or any other OSError on the output; with remedy.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem[:80]}.{secrets.token_hex(4)}{path.suffix}")
    try:
        make_folder(path.parent)
        _refuse_folder(path)
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if _is_foreign(error, path.parent):
            raise
        raise output_error(path, error) from error
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


def check_writable(path: Path) -> None:
    """Fail before long work where `atomic_write` would fail after it; nothing is made.

    Raises:
        OutputError: as of atomic_write.
    """
    try:
        _refuse_folder(path)
        folder = path.parent
        while not os.path.lexists(folder):
            folder = folder.parent
        probe = folder / f".{secrets.token_hex(8)}"
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise output_error(path, error) from error


def make_folder(folder: Path) -> None:
    """Make `folder` and what is missing above it.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write several files: none is replaced before all of them lie whole beside their places."""
    with ExitStack() as stack:
        # The last is entered first and so leaves last: an index that names the others appears after them.
        for path, data in reversed(list(files.items())):
            stack.enter_context(atomic_write(path)).write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` to `path` atomically, UTF-8, line ends as they are."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, data: Any) -> None:
    """Write `data` as indented JSON to `path` atomically.

    Raises:
        ValueError: data holds NaN or infinity, which JSON has no words for.
    """
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def output_error(path: Path | str, error: OSError) -> OutputError:
    """What the user reads about `error` met while writing `path`."""
    reason = (error.strerror or str(error)).lower()
    remedy = REMEDIES.get(error.errno or 0, "Check the output path.")
    return OutputError(path, f"cannot be written: {reason}", remedy)


def _flush(temporary: Path) -> None:
    # Without fsync a power cut after the rename may leave an empty file under the final name.
    with open(temporary, "rb") as stream:
        os.fsync(stream.fileno())


def _is_foreign(error: OSError, folder: Path) -> bool:
    # An OSError about another file (an input read inside of the block) is not ours to explain.
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return False
    return Path(os.fsdecode(error.filename)).parent != folder
