"""Gaussians as .compressed.ply, the PlayCanvas layout: chunks of 256 with bounds, 16 bytes a Gaussian.

Element `chunk` holds bounds of position, log scale and (in newer files) colour; `vertex` four uint32: position and
log scale as 11 + 10 + 11 bits, quaternion as 2 bits (which of wxyz is largest) + 3 x 10 bits, colour and opacity
as 4 x 8 bits; `sh`, if there, one byte a coefficient over [-4, 4]. Facts stand in comments, as in .ply.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from scene3d.core.errors import FormatError
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.io.atomic import write_bytes
from scene3d.io.finite import keep_finite, lossy_ready
from scene3d.io.opacity import byte_logits
from scene3d.io.ply import REST_COUNTS, SH_C0, comments_from_info, info_from_comments
from scene3d.io.ply_table import PlyHeader, read_header, read_table
from scene3d.ops import morton, sh, smallest_three

CHUNK_SIZE = 256
PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
BOUNDS = [f"{side}_{axis}" for side in ("min", "max") for axis in "xyz"]
SCALE_BOUNDS = [f"{side}_scale_{axis}" for side in ("min", "max") for axis in "xyz"]
COLOR_BOUNDS = [f"{side}_{channel}" for side in ("min", "max") for channel in "rgb"]


def read_compressed_ply(path: Path) -> Scene:
    """Read Gaussians of any SH degree.

    Raises:
        FormatError: the file is no compressed PLY, is truncated, or has too few chunks.
    """
    header = read_header(path)
    chunk, vertex = read_table(path, header, "chunk"), read_table(path, header, "vertex")
    missing = [name for name in PACKED if name not in vertex.names]
    missing += [name for name in BOUNDS + SCALE_BOUNDS if name not in chunk.names]
    if missing:
        raise FormatError(path, f"compressed Gaussians need the properties {', '.join(missing)}, which are missing")
    packed = vertex.columns(PACKED, "uint32")
    chunk_of = np.arange(len(packed)) // CHUNK_SIZE
    if len(packed) > len(chunk.rows) * CHUNK_SIZE:
        raise FormatError(path, f"{len(packed)} Gaussians need more chunks of {CHUNK_SIZE} than the {len(chunk.rows)}")
    rgba = _unpack(packed[:, 3], (8, 8, 8, 8))
    if all(name in chunk.names for name in COLOR_BOUNDS):
        rgba[:, :3] = _lerp(chunk.columns(COLOR_BOUNDS)[chunk_of], rgba[:, :3])
    means = _lerp(chunk.columns(BOUNDS)[chunk_of], _unpack(packed[:, 0], (11, 10, 11)))
    log_scales = _lerp(chunk.columns(SCALE_BOUNDS)[chunk_of], _unpack(packed[:, 2], (11, 10, 11)))
    gaussians = Gaussians(
        means=torch.from_numpy(means),
        quats=torch.from_numpy(_unpack_quats(packed[:, 1])),
        log_scales=torch.from_numpy(log_scales),
        opacity_logits=byte_logits(packed[:, 3] & 255),
        sh0=torch.from_numpy((rgba[:, :3] - 0.5) / np.float32(SH_C0))[:, None, :],
        shN=_read_sh(path, header, len(packed)),
    )
    return Scene(keep_finite(gaussians, path), info_from_comments(header.comments))


def write_compressed_ply(scene: Scene, path: Path) -> None:
    """Write Gaussians in Morton order, so that a chunk is small and its bounds are tight.

    Raises:
        OutputError: path cannot be written.
    """
    gaussians = lossy_ready(scene.splats(), path)
    gaussians = gaussians.select(morton.order(gaussians.means))
    small, largest = smallest_three.encode(gaussians.quats)
    position_bounds, positions = _in_bounds(gaussians.means)
    # The same limits as in other writers: viewers compute exp of these bounds.
    scale_bounds, scales = _in_bounds(gaussians.log_scales.clamp(-20, 20))
    color_bounds, colors = _in_bounds(sh.to_rgb(gaussians.sh0[:, 0]))
    rgba = np.concatenate([colors, gaussians.opacities.numpy().astype(np.float64)[:, None]], axis=1)
    quats = np.concatenate([largest.numpy()[:, None] / 3, (small.numpy().astype(np.float64) + 1) / 2], axis=1)
    chunks = np.concatenate([position_bounds, scale_bounds, color_bounds], axis=1).astype("<f4")
    columns = (
        _pack(positions, (11, 10, 11)),
        _pack(quats, (2, 10, 10, 10)),
        _pack(scales, (11, 10, 11)),
        _pack(rgba, (8,) * 4),
    )
    rest = gaussians.shN.transpose(1, 2).flatten(1)
    rest_bytes = ((rest / 8 + 0.5) * 256).floor().clamp(0, 255).to(torch.uint8).numpy()
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment {comment}" for comment in comments_from_info(scene.info, gaussians.sh_degree)]
    lines += [f"element chunk {len(chunks)}", *(f"property float {n}" for n in BOUNDS + SCALE_BOUNDS + COLOR_BOUNDS)]
    lines += [f"element vertex {len(gaussians)}", *(f"property uint {name}" for name in PACKED)]
    if rest.shape[1]:
        lines += [f"element sh {len(rest)}", *(f"property uchar f_rest_{i}" for i in range(rest.shape[1]))]
    header = "\n".join([*lines, "end_header", ""]).encode()
    write_bytes(path, header + chunks.tobytes() + np.stack(columns, axis=1).tobytes() + rest_bytes.tobytes())


def _read_sh(path: Path, header: PlyHeader, n_rows: int) -> torch.Tensor:  # [N, K-1, 3]
    if not any(element.name == "sh" for element in header.elements):
        return torch.zeros(n_rows, 0, 3)
    table = read_table(path, header, "sh")
    n_rest = len(table.names)
    if n_rest not in REST_COUNTS or set(table.names) != {f"f_rest_{i}" for i in range(n_rest)}:
        raise FormatError(path, f"expected 0, 9, 24 or 45 properties f_rest_0, f_rest_1, ... in sh, got {n_rest}")
    if len(table.rows) != n_rows:
        raise FormatError(path, f"expected {n_rows} rows in sh, as many as Gaussians, got {len(table.rows)}")
    values = table.columns([f"f_rest_{i}" for i in range(n_rest)])
    # Writers round down to 256 bins over [-4, 4]; the outermost bytes stand for the ends.
    unit = np.where(values <= 0, 0.0, np.where(values >= 255, 1.0, (values + 0.5) / 256)).astype(np.float32)
    rest = torch.from_numpy((unit - 0.5) * 8)
    return rest.view(n_rows, 3, n_rest // 3).transpose(1, 2).contiguous()


def _unpack(packed: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:  # [N] uint32 -> [N, len(bits)] in [0, 1]
    shifts = [sum(bits[i + 1 :]) for i in range(len(bits))]
    values = [((packed >> s) & ((1 << b) - 1)) / ((1 << b) - 1) for s, b in zip(shifts, bits, strict=True)]
    return np.stack(values, axis=1).astype(np.float32)


def _lerp(bounds: np.ndarray, unit: np.ndarray) -> np.ndarray:  # [N, 6], [N, 3]
    low, high = bounds[:, :3], bounds[:, 3:]
    with np.errstate(over="ignore", invalid="ignore"):
        return low * (1 - unit) + high * unit


def _unpack_quats(packed: np.ndarray) -> np.ndarray:  # [N] uint32 -> [N, 4] wxyz
    # The three smaller components lie within +-1/sqrt(2); the largest follows from the unit length.
    small = (_unpack(packed & 0x3FFFFFFF, (10, 10, 10)) - 0.5) * np.float32(np.sqrt(2))
    largest = np.sqrt(np.maximum(1 - (small**2).sum(axis=1), 0))
    quats = np.empty((len(packed), 4), np.float32)
    is_small = np.arange(4) != (packed >> 30)[:, None]
    quats[is_small] = small.reshape(-1)
    quats[~is_small] = largest
    return quats


def _in_bounds(values: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of each chunk (minima, then maxima) and where the values [N, 3] lie between them.

    Returns:
        [n_chunks, 6] float32 and [N, 3] float64 in [0, 1].
    """
    rows = values.numpy()
    starts = np.arange(0, len(rows), CHUNK_SIZE)
    if len(rows) == 0:
        return np.zeros((0, 6), np.float32), np.zeros((0, 3))
    low, high = np.minimum.reduceat(rows, starts), np.maximum.reduceat(rows, starts)
    chunk_of = np.arange(len(rows)) // CHUNK_SIZE
    base, span = low[chunk_of].astype(np.float64), (high.astype(np.float64) - low)[chunk_of]
    unit = (rows - base) / np.where(span > 0, span, 1.0)
    return np.concatenate([low, high], axis=1), unit


def _pack(unit: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:  # [N, len(bits)] in [0, 1] -> [N] uint32
    packed = np.zeros(len(unit), np.uint32)
    for column, width in zip(unit.T, bits, strict=True):
        top = (1 << width) - 1
        packed = (packed << np.uint32(width)) | np.floor(column * top + 0.5).clip(0, top).astype(np.uint32)
    return packed.astype("<u4")
