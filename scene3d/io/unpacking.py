"""Compressed data from untrusted files: never unpacked to more than was promised, nor to more than is plausible."""

from __future__ import annotations

from pathlib import Path

from scene3d.core.errors import FormatError
from scene3d.io.binary import TRUNCATED

# Deflate can pack zeros 1032:1, Zstandard 30,000:1, but real data not even 100:1; small things may be all alike.
MAX_RATIO = 256
FREE_BYTES = 2**24


def is_plausible(packed_bytes: int, size_bytes: int) -> bool:
    """Whether `packed_bytes` of compressed data may stand for `size_bytes`, or are rather a trap for memory."""
    return size_bytes <= max(FREE_BYTES, MAX_RATIO * packed_bytes)


def unpack_zstd(path: Path, data: bytes, size: int, offset: int) -> bytes:
    """`size` bytes out of one zstd frame that stands at `offset` of the file.

    Raises:
        FormatError: the frame is damaged, holds another size, or promises too much.
    """
    import zstandard

    if not is_plausible(len(data), size):
        raise FormatError(path, f"says that {len(data)} bytes unpack to {size}, which is too much", offset)
    try:
        with zstandard.ZstdDecompressor().stream_reader(data) as stream:
            unpacked = stream.read(size + 1)
    except zstandard.ZstdError as error:
        raise FormatError(path, f"the zstd data is damaged: {error}", offset, TRUNCATED) from error
    if len(unpacked) != size:
        problem = f"expected zstd data of {size} bytes, got {'more' if len(unpacked) > size else len(unpacked)}"
        raise FormatError(path, problem, offset, TRUNCATED)
    return unpacked
