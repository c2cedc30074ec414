"""Files bundled in a zip, or loose beside each other: read by name, without unpacking anything onto the disk.

Archives are untrusted: only names that are asked for are read, sizes are checked before memory is taken, and what comes
out is no larger than what was promised. Written archives hold no times, so that equal content gives equal bytes.
"""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scene3d.core.errors import FormatError
from scene3d.io.binary import TRUNCATED, load_bytes
from scene3d.io.unpacking import is_plausible

MAX_FILE_BYTES = 2**30
# Scenes have a dozen files. Each entry costs memory before any is read.
MAX_ENTRIES = 4096
ENTRY_MAGIC = b"PK\x01\x02"
UNPACKING = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError)
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class FileSet:
    """Files by name.

    Attributes:
        path: Of the archive, or of the file beside which the others lie.
        archive: None for loose files.
    """

    path: Path
    archive: zipfile.ZipFile | None = None

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`.

        Raises:
            FormatError: there is no such file, it is damaged, too large, or its name leads elsewhere.
        """
        check_plain_name(self.path, name)
        if self.archive is None:
            return load_bytes(self.path.parent / name)
        try:
            entry = self.archive.getinfo(name)
        except KeyError as error:
            raise FormatError(self.path, f"the archive has no file {name!r}", remedy=TRUNCATED) from error
        if entry.file_size > MAX_FILE_BYTES or not is_plausible(entry.compress_size, entry.file_size):
            problem = f"{name}: says it unpacks {entry.compress_size} to {entry.file_size} bytes, which is too much"
            raise FormatError(self.path, problem, entry.header_offset)
        try:
            with self.archive.open(entry) as stream:
                return stream.read(entry.file_size)
        except UNPACKING as error:
            raise FormatError(self.path, f"{name} is damaged: {error}", entry.header_offset, TRUNCATED) from error


def open_zip(path: Path) -> FileSet:
    """Open an archive.

    Raises:
        FormatError: the file is no zip archive or cannot be read.
    """
    data = load_bytes(path)
    n_entries = data.count(ENTRY_MAGIC)
    if n_entries > MAX_ENTRIES:
        raise FormatError(path, f"expected an archive of at most {MAX_ENTRIES} files, got {n_entries}")
    try:
        return FileSet(path, zipfile.ZipFile(io.BytesIO(data)))
    except (*UNPACKING, OverflowError, struct.error) as error:
        raise FormatError(path, f"expected a zip archive: {error}", 0, TRUNCATED) from error


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    """An archive of `files`, stored as they are: images do not get smaller."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, ZIP_TIME), data)
    return buffer.getvalue()


def check_plain_name(path: Path, name: str) -> None:
    """Check that `name` names a file of the set and nothing outside of it.

    Raises:
        FormatError: it has folders, drives or other surprises.
    """
    if not is_plain_name(name):
        raise FormatError(path, f"expected a plain file name, got {name[:80]!r}")


def is_plain_name(name: str) -> bool:
    """Whether `name` has no folder, drive or other surprise in it."""
    return bool(name) and not name.startswith(".") and not any(c in name for c in "/\\:\0") and name.isprintable()
