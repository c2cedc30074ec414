"""Gaussians as SPZ (Niantic), versions 1 to 4: planes of bytes, gzipped together or, from version 4 on, each with zstd.

Per Gaussian: position 3 x 24 bits fixed point, opacity, colour and log scale a byte a number, rotation 3 bytes (to
version 2: xyz of w >= 0) or 4 (largest component 2 bits, the others sign + 9 bits), a byte for each coefficient of
spherical harmonics, of which 5 bits (degree 1) or 4 bits are used. Coordinates are stored as they are: the format
says nothing about axes. Of the facts about a scene only the antialiased mark has a place.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scene3d.core.errors import FormatError
from scene3d.core.gaussians import SH_COUNTS, Gaussians
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.atomic import write_bytes
from scene3d.io.binary import TRUNCATED, ByteReader, load_bytes
from scene3d.io.finite import keep_finite, lossy_ready
from scene3d.io.opacity import byte_logits
from scene3d.io.unpacking import is_plausible, unpack_zstd
from scene3d.ops import morton, smallest_three

MAGIC = 0x5053474E
ANTIALIASED = 1
COLOR_SCALE = 0.15
# Coefficients of each degree, three channels; degree 4 exists in version 4 and is left out on reading.
REST_COUNTS = (0, 9, 24, 45, 72)
FRACTIONAL_BITS = 12
SH_BITS = (5, 4, 4)
ZSTD_LEVEL = 19


@dataclass(frozen=True)
class _Header:
    version: int
    count: int
    sh_degree: int
    fractional_bits: int
    flags: int

    def plane_sizes(self) -> list[int]:
        """Bytes of positions, opacities, colours, scales, rotations, spherical harmonics."""
        n, position = self.count, 6 if self.version == 1 else 9
        return [position * n, n, 3 * n, 3 * n, (3 if self.version <= 2 else 4) * n, REST_COUNTS[self.sh_degree] * n]


def read_spz(path: Path) -> Scene:
    """Read Gaussians; of degree 4 the first three are kept.

    Raises:
        FormatError: the file is no SPZ, of an unknown version, truncated or damaged.
    """
    return decode_spz(path, load_bytes(path))


def decode_spz(path: Path, data: bytes) -> Scene:
    """The scene in the bytes of an SPZ file; `path` is for messages."""
    header, planes = _gzip_planes(path, data) if data[:2] == b"\x1f\x8b" else _zstd_planes(path, data)
    gaussians = Gaussians(
        means=_means(header, planes[0]),
        quats=_quats(header, planes[4]),
        log_scales=torch.from_numpy(planes[3].reshape(-1, 3).astype(np.float32)) / 16 - 10,
        opacity_logits=byte_logits(planes[1]),
        sh0=((torch.from_numpy(planes[2].reshape(-1, 3).astype(np.float32)) / 255 - 0.5) / COLOR_SCALE)[:, None],
        shN=_rest(header, planes[5]),
    )
    info = SceneInfo(antialiased=bool(header.flags & ANTIALIASED), made_by=f"SPZ version {header.version}")
    return Scene(keep_finite(gaussians, path), info)


def write_spz(scene: Scene, path: Path) -> None:
    """Write version 4, along the Z-curve: near Gaussians resemble each other, which makes the file smaller.

    Raises:
        OutputError: path cannot be written.
    """
    write_bytes(path, encode_spz(scene, path))


def encode_spz(scene: Scene, path: Path, version: int = 4) -> bytes:
    """The bytes of an SPZ file of version 2, 3 or 4; `path` is for messages."""
    if version not in (2, 3, 4):
        raise ValueError(f"version: expected 2, 3 or 4, got {version}")
    gaussians = lossy_ready(scene.splats(), path)
    gaussians = gaussians.select(morton.order(gaussians.means))
    bits = fractional_bits(gaussians)
    flags = ANTIALIASED if scene.info.antialiased else 0
    header = _Header(version, len(gaussians), gaussians.sh_degree, bits, flags)
    planes = [
        _fixed_point(gaussians.means, bits),
        _bytes(gaussians.opacities * 255),
        _bytes((gaussians.sh0[:, 0] * COLOR_SCALE + 0.5) * 255),
        _bytes((gaussians.log_scales + 10) * 16),
        _pack_first_three(gaussians.quats) if version == 2 else _pack_smallest_three(gaussians.quats),
        _pack_rest(gaussians.shN),
    ]
    raw = [np.ascontiguousarray(plane).tobytes() for plane in planes]
    start = struct.pack("<IIIBBB", MAGIC, version, header.count, header.sh_degree, bits, flags)
    if version < 4:
        compressor = zlib.compressobj(9, wbits=31)
        return compressor.compress(start + b"\0" + b"".join(raw)) + compressor.flush()
    streams = raw[:5] if header.sh_degree == 0 else raw
    import zstandard

    packed = [zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(stream) for stream in streams]
    contents = b"".join(struct.pack("<QQ", len(p), len(r)) for p, r in zip(packed, streams, strict=True))
    return start + struct.pack("<BI12x", len(streams), 32) + contents + b"".join(packed)


def fractional_bits(gaussians: Gaussians) -> int:
    """Binary places of positions: 12, as everyone's, but more for tiny scenes and fewer for vast ones."""
    if len(gaussians) == 0:
        return FRACTIONAL_BITS
    reach = max(float(gaussians.means.abs().max()), 1e-30)
    room = 23 - math.ceil(math.log2(reach) + 1e-9)
    # A step of a quarter of the standard deviation of all but the smallest tenth is not seen.
    largest = gaussians.scales.amax(dim=1)
    fine = max(float(largest.kthvalue(len(largest) // 10 + 1).values), 1e-30) / 4
    return max(0, min(room, max(FRACTIONAL_BITS, math.ceil(-math.log2(fine))), 24))


def _gzip_planes(path: Path, data: bytes) -> tuple[_Header, list[np.ndarray]]:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        start = unpacker.decompress(data, 16)
        header = _parse_header(path, start)
        if header.version >= 4:
            raise FormatError(path, f"expected version 1 to 3 inside of gzip, got {header.version}", 4)
        needed = sum(header.plane_sizes())
        if not is_plausible(len(data), needed):
            problem = f"says {header.count} Gaussians, {needed} bytes, which cannot be packed into {len(data)}"
            raise FormatError(path, problem, 8)
        body = unpacker.decompress(unpacker.unconsumed_tail, needed) if needed else b""
    except zlib.error as error:
        raise FormatError(path, f"the gzip data is damaged: {error}", None, TRUNCATED) from error
    reader = ByteReader(path, body)
    return header, [reader.array("u1", size, "the planes") for size in header.plane_sizes()]


def _zstd_planes(path: Path, data: bytes) -> tuple[_Header, list[np.ndarray]]:
    header = _parse_header(path, data)
    if header.version < 4:
        raise FormatError(path, f"expected gzip around version {header.version}", 0)
    reader = ByteReader(path, data)
    reader.offset = 15
    n_streams, offset = reader.fields("BI", "the header")
    sizes = header.plane_sizes()
    if n_streams not in (5, 6) or n_streams < 5 + (sizes[5] > 0):
        raise FormatError(path, f"expected {5 + (sizes[5] > 0)} streams, got {n_streams}", 15)
    reader.need(max(offset, 32) - reader.offset, "the header")
    reader.offset = max(offset, 32)
    entries = [(reader.offset, *reader.fields("QQ", "the table of contents")) for _ in range(n_streams)]
    planes = []
    for (place, packed_size, size), expected in zip(entries, sizes, strict=False):
        if size != expected:
            raise FormatError(path, f"expected a stream of {expected} bytes, got {size}", place)
        reader.need(packed_size, "a stream")
        stream = data[reader.offset : reader.offset + packed_size]
        planes.append(np.frombuffer(unpack_zstd(path, stream, size, reader.offset), np.uint8))
        reader.offset += packed_size
    return header, planes + [np.zeros(0, np.uint8)] * (6 - len(planes))


def _parse_header(path: Path, data: bytes) -> _Header:
    reader = ByteReader(path, data)
    magic, version, count, degree, bits, flags = reader.fields("IIIBBB", "the header")
    if magic != MAGIC:
        raise FormatError(path, f"expected an SPZ file, which starts with NGSP, got {data[:4]!r}", 0)
    if not 1 <= version <= 4:
        raise FormatError(path, f"expected version 1 to 4, got {version}", 4, "A newer scene3d may know it.")
    if degree >= len(REST_COUNTS):
        raise FormatError(path, f"expected spherical harmonics of degree 0 to 4, got {degree}", 12)
    if bits > 31:
        raise FormatError(path, f"expected at most 31 fractional bits, got {bits}", 13)
    return _Header(version, count, degree, bits, flags)


def _means(header: _Header, plane: np.ndarray) -> Tensor:  # [N, 3]
    if header.version == 1:
        return torch.from_numpy(plane.view("<f2").reshape(-1, 3).astype(np.float32))
    parts = plane.reshape(-1, 3, 3).astype(np.int32)
    values = parts[..., 0] | (parts[..., 1] << 8) | (parts[..., 2] << 16)
    values -= (values & 0x800000) << 1
    return torch.from_numpy((values / 2.0**header.fractional_bits).astype(np.float32))


def _fixed_point(means: Tensor, bits: int) -> np.ndarray:  # [N, 3, 3] uint8
    values = (means.double() * 2.0**bits).round().clamp(-(2**23), 2**23 - 1).long().numpy()
    return np.stack([values & 255, (values >> 8) & 255, (values >> 16) & 255], axis=-1).astype(np.uint8)


def _quats(header: _Header, plane: np.ndarray) -> Tensor:  # [N, 4] wxyz
    if header.version <= 2:
        xyz = torch.from_numpy(plane.reshape(-1, 3).astype(np.float32)) / 127.5 - 1
        w = (1 - xyz.square().sum(dim=1, keepdim=True)).clamp_min(0).sqrt()
        return torch.cat([w, xyz], dim=1)
    packed = plane.view("<u4").astype(np.int64)
    fields = np.stack([(packed >> shift) & 1023 for shift in (20, 10, 0)], axis=1)
    small = np.where(fields & 512, -1.0, 1.0) * (fields & 511) / 511
    quats = smallest_three.decode(torch.from_numpy(small.astype(np.float32)), torch.from_numpy(packed >> 30))
    return quats[:, [3, 0, 1, 2]].contiguous()


def _pack_first_three(quats: Tensor) -> np.ndarray:  # [N, 3] uint8
    unit = torch.nn.functional.normalize(quats, dim=1)
    unit = torch.where(unit[:, :1] < 0, -unit, unit)
    return _bytes((unit[:, 1:] + 1) * 127.5)


def _pack_smallest_three(quats: Tensor) -> np.ndarray:  # [N] uint32
    small, largest = smallest_three.encode(quats[:, [1, 2, 3, 0]])
    fields = (small.abs() * 511).round().clamp(max=511).long() | ((small < 0).long() << 9)
    packed = (largest << 30) | (fields[:, 0] << 20) | (fields[:, 1] << 10) | fields[:, 2]
    return packed.numpy().astype("<u4")


def _rest(header: _Header, plane: np.ndarray) -> Tensor:  # [N, K-1, 3]
    n_rest = REST_COUNTS[header.sh_degree] // 3
    values = torch.from_numpy(plane.reshape(header.count, n_rest, 3).astype(np.float32))
    n_kept = SH_COUNTS[min(header.sh_degree, 3)] - 1
    return (values[:, :n_kept] - 128) / 128


def _pack_rest(rest: Tensor) -> np.ndarray:  # [N, K-1, 3] uint8
    values = (rest * 128).round() + 128
    steps = torch.tensor([2 ** (8 - SH_BITS[math.isqrt(i + 1) - 1]) for i in range(rest.shape[1])])[None, :, None]
    # Whole steps, up from a half, as in the format's own code.
    return _bytes(((values + steps // 2) / steps).floor() * steps)


def _bytes(values: Tensor) -> np.ndarray:
    return values.round().clamp(0, 255).to(torch.uint8).numpy()
