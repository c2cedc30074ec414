"""Reading bytes that may be anything: every read is checked against the size of the file before memory is taken."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from scene3d.core.errors import FormatError

MISSING = "Check the path."
TRUNCATED = "The file is damaged or was not copied completely: copy or make it again."


def load_bytes(path: Path) -> bytes:
    """The whole file.

    Raises:
        FormatError: there is no such file or it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> FormatError:
    """What the user reads about an input that cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return FormatError(path, "no such file", remedy=MISSING)
    if isinstance(error, IsADirectoryError):
        return FormatError(path, "expected a file, got a folder", remedy=MISSING)
    return FormatError(path, f"cannot be read: {(error.strerror or str(error)).lower()}", remedy=MISSING)


def is_file(path: Path) -> bool:
    """Whether `path`, put together from a name that may be anything, is a file."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # A name that is too long, or holds bytes that no name can hold.
        return False


def inflate(data: bytes, size_bytes: int, window_bits: int = zlib.MAX_WBITS) -> bytes:
    """Unpack deflated bytes of known size; one byte more than expected is enough to see that there are too many.

    Args:
        data: As zlib made it (RFC 1950), or raw (RFC 1951).
        size_bytes: How many there are unpacked.
        window_bits: As for zlib.decompressobj, negative where data are raw.

    Raises:
        ValueError: the data are damaged, or of another size.
    """
    try:
        found = zlib.decompressobj(window_bits).decompress(data, size_bytes + 1)
    except zlib.error as error:
        raise ValueError(f"cannot be inflated ({error})") from error
    if len(found) != size_bytes:
        more = " or more" if len(found) > size_bytes else ""
        raise ValueError(f"expected {size_bytes} bytes, got {len(found)}{more}")
    return found


class ByteReader:
    """A cursor over the bytes of a file, little endian."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self.data = data
        self.offset = 0

    def left(self) -> int:
        """Bytes not yet read."""
        return len(self.data) - self.offset

    def need(self, size_bytes: int, what: str) -> None:
        """Check that `size_bytes` more bytes are there.

        Raises:
            FormatError: the file ends before.
        """
        if size_bytes > self.left():
            problem = f"ends within {what}: expected {size_bytes} more bytes, got {self.left()}"
            raise FormatError(self.path, problem, self.offset, TRUNCATED)

    def fields(self, layout: str, what: str) -> tuple[Any, ...]:
        """Numbers by a layout of the struct module, without its byte-order mark."""
        size = struct.calcsize("<" + layout)
        self.need(size, what)
        values = struct.unpack_from("<" + layout, self.data, self.offset)
        self.offset += size
        return values

    def count(self, item_bytes: int, what: str) -> int:
        """A uint64 count of items that take at least `item_bytes` each: no more than can follow."""
        start = self.offset
        (n_items,) = self.fields("Q", f"the number of {what}")
        if n_items * item_bytes > self.left():
            problem = f"says {n_items} {what}, but only {self.left()} bytes follow"
            raise FormatError(self.path, problem, start, TRUNCATED)
        return int(n_items)

    def array(self, dtype: np.dtype | str, n_items: int, what: str) -> np.ndarray:
        """A read-only view of `n_items` of `dtype`. [n_items]"""
        dtype = np.dtype(dtype)
        self.need(dtype.itemsize * n_items, what)
        values = np.frombuffer(self.data, dtype, n_items, self.offset)
        self.offset += dtype.itemsize * n_items
        return values

    def c_string(self, what: str, max_bytes: int = 4096) -> str:
        """Text up to the next zero byte."""
        end = self.data.find(b"\0", self.offset, self.offset + max_bytes)
        if end < 0:
            problem = f"{what} does not end within {min(max_bytes, self.left())} bytes"
            raise FormatError(self.path, problem, self.offset, TRUNCATED)
        text = self.data[self.offset : end].decode("utf-8", errors="surrogateescape")
        self.offset = end + 1
        return text
