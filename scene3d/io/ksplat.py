"""Gaussians from .ksplat (mkkellogg's GaussianSplats3D), read only.

A header of 4096 bytes, one of 1024 bytes for each section, then the sections: sizes of partly filled buckets, centres
of buckets, rows. Compression 0: float32 and a byte a colour. 1: positions 16 bits about the centre of their bucket,
scales, rotation and harmonics float16. 2: harmonics a byte between bounds. Rotations are wxyz; harmonics are
stored band by band, all of red, then green, then blue.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from scene3d.core.errors import FormatError
from scene3d.core.gaussians import SH_COUNTS, Gaussians, cat
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.binary import TRUNCATED, load_bytes
from scene3d.io.finite import keep_finite
from scene3d.io.opacity import byte_logits
from scene3d.ops.sh import from_rgb

HEADER_BYTES = 4096
SECTION_HEADER_BYTES = 1024
MAX_SECTIONS = 65_536
NUMBERS = ("<f4", "<f2", "<f2")
HARMONICS = ("<f4", "<f2", "u1")
SCALE_RANGES = (1, 32767, 32767)


@dataclass(frozen=True)
class _File:
    path: Path
    data: bytes
    compression: int
    sh_bounds: tuple[float, float]


@dataclass(frozen=True)
class _Section:
    """Counts and sizes of a section header, by their places in it."""

    count: int
    max_count: int
    bucket_capacity: int
    n_buckets: int
    block_size: float
    bucket_bytes: int
    scale_range: int
    n_full: int
    n_partial: int
    sh_degree: int

    def row_type(self, compression: int) -> np.dtype:
        number = NUMBERS[compression]
        mean = "<f4" if compression == 0 else "<u2"
        n_rest = 3 * (SH_COUNTS[self.sh_degree] - 1)
        fields = [("mean", mean, 3), ("scale", number, 3), ("quat", number, 4), ("rgba", "u1", 4)]
        return np.dtype([*fields, ("rest", HARMONICS[compression], n_rest)])


def read_ksplat(path: Path) -> Scene:
    """Read Gaussians; sections of different SH degree are brought to the highest.

    Raises:
        FormatError: the file is no .ksplat, of an unknown version, truncated, or contradicts itself.
    """
    file = _open(path)
    n_sections, count = struct.unpack_from("<I8xI", file.data, 4)
    if n_sections > MAX_SECTIONS:
        raise FormatError(path, f"expected at most {MAX_SECTIONS} sections, got {n_sections}", 4)
    if HEADER_BYTES + n_sections * SECTION_HEADER_BYTES > len(file.data):
        raise FormatError(path, f"ends within the headers of its {n_sections} sections", len(file.data), TRUNCATED)
    sections = [_section(file, HEADER_BYTES + i * SECTION_HEADER_BYTES) for i in range(n_sections)]
    offset = HEADER_BYTES + n_sections * SECTION_HEADER_BYTES
    degree = max((section.sh_degree for section in sections if section.count), default=0)
    parts = []
    for section in sections:
        part, offset = _rows(file, section, offset, degree)
        parts.append(part)
    found = sum(len(part) for part in parts)
    if found != count:
        raise FormatError(path, f"expected {count} Gaussians, got {found} in {n_sections} sections", 16)
    return Scene(keep_finite(cat(parts), path), SceneInfo())


def _open(path: Path) -> _File:
    data = load_bytes(path)
    if len(data) < HEADER_BYTES:
        problem = f"expected a header of {HEADER_BYTES} bytes, got {len(data)}"
        raise FormatError(path, problem, len(data), TRUNCATED)
    if data[0] != 0 or data[1] < 1:
        raise FormatError(path, f"expected version 0.1 or a later 0, got {data[0]}.{data[1]}", 0)
    (compression,) = struct.unpack_from("<H", data, 20)
    if compression > 2:
        raise FormatError(path, f"expected compression 0, 1 or 2, got {compression}", 20)
    low, high = struct.unpack_from("<ff", data, 36)
    return _File(path, data, compression, (low or -1.5, high or 1.5))


def _section(file: _File, offset: int) -> _Section:
    values = struct.unpack_from("<4IfHxxI4xIIH", file.data, offset)
    section = _Section(*values)
    if section.sh_degree > 3:
        raise FormatError(file.path, f"expected degree 0 to 3, got {section.sh_degree}", offset + 40)
    if section.count > section.max_count:
        raise FormatError(file.path, f"a section holds {section.count} of at most {section.max_count}", offset)
    return section


def _rows(file: _File, section: _Section, offset: int, degree: int) -> tuple[Gaussians, int]:
    row = section.row_type(file.compression)
    start = offset + 4 * section.n_partial + section.bucket_bytes * section.n_buckets
    end = start + row.itemsize * section.max_count
    if start + row.itemsize * section.count > len(file.data):
        problem = f"ends within a section: {section.count} Gaussians need {row.itemsize * section.count} bytes, got"
        raise FormatError(
            file.path, f"{problem} {max(len(file.data) - start, 0)}", min(start, len(file.data)), TRUNCATED
        )
    rows = np.frombuffer(file.data, row, section.count, start)
    means = rows["mean"].astype(np.float32)
    if file.compression:
        half = section.scale_range or SCALE_RANGES[file.compression]
        with np.errstate(over="ignore", invalid="ignore"):
            step = np.float32(section.block_size / 2 / half)
            means = ((means - half) * step + _bucket_centers(file, section, offset)).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_scales = np.log(rows["scale"].astype(np.float32))
    gaussians = Gaussians(
        means=torch.from_numpy(means),
        quats=torch.from_numpy(rows["quat"].astype(np.float32)),
        log_scales=torch.from_numpy(log_scales),
        opacity_logits=byte_logits(rows["rgba"][:, 3]),
        sh0=from_rgb(torch.from_numpy(rows["rgba"][:, :3].astype(np.float32)) / 255)[:, None, :],
        shN=torch.from_numpy(_harmonics(file, section, rows, degree)),
    )
    return gaussians, end


def _bucket_centers(file: _File, section: _Section, offset: int) -> np.ndarray:  # [count, 3]
    if section.n_buckets and section.bucket_bytes != 12:
        raise FormatError(file.path, f"expected buckets of 12 bytes, got {section.bucket_bytes}", offset)
    sizes = np.frombuffer(file.data, "<u4", section.n_partial, offset).astype(np.int64)
    centers = np.frombuffer(file.data, "<f4", 3 * section.n_buckets, offset + 4 * section.n_partial).reshape(-1, 3)
    n_in_full = section.n_full * section.bucket_capacity
    index = np.arange(section.count)
    ends = n_in_full + np.cumsum(sizes)
    n_in_buckets = int(ends[-1]) if len(ends) else n_in_full
    partial = section.n_full + np.searchsorted(ends, index, side="right")
    bucket = np.where(index < n_in_full, index // max(section.bucket_capacity, 1), partial)
    if section.count > n_in_buckets or (len(bucket) and int(bucket.max()) >= len(centers)):
        raise FormatError(file.path, f"{section.count} Gaussians do not fit into {len(centers)} buckets", offset)
    return centers[bucket]


def _harmonics(file: _File, section: _Section, rows: np.ndarray, degree: int) -> np.ndarray:  # [count, K-1, 3]
    result = np.zeros((section.count, SH_COUNTS[degree] - 1, 3), np.float32)
    values = rows["rest"].astype(np.float32)
    if file.compression == 2:
        low, high = (np.float32(bound) for bound in file.sh_bounds)
        values = low + values / np.float32(255) * (high - low)
    for band in range(1, section.sh_degree + 1):
        begin, end = band * band - 1, (band + 1) ** 2 - 1
        block = values[:, 3 * begin : 3 * end].reshape(section.count, 3, end - begin)
        result[:, begin:end] = block.transpose(0, 2, 1)
    return result
