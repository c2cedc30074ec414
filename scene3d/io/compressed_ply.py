"""Gaussians from .compressed.ply, the PlayCanvas layout: chunks of 256 with bounds, 16 bytes a Gaussian.

Element `chunk` holds bounds of position, log scale and (in newer files) colour; `vertex` four uint32: position and
log scale as 11 + 10 + 11 bits, quaternion as 2 bits (which of wxyz is largest) + 3 x 10 bits, colour and opacity
as 4 x 8 bits; `sh`, if there, one byte a coefficient over [-4, 4].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from scene3d.core.errors import FormatError
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.io.finite import keep_finite
from scene3d.io.ply import REST_COUNTS, SH_C0, info_from_comments
from scene3d.io.ply_table import PlyHeader, read_header, read_table

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
    # 255 stands for all opacities above 0.998; its middle keeps the logit finite and trainable.
    opacities = torch.from_numpy(rgba[:, 3]).clamp(0.25 / 255, 1 - 0.25 / 255)
    means = _lerp(chunk.columns(BOUNDS)[chunk_of], _unpack(packed[:, 0], (11, 10, 11)))
    log_scales = _lerp(chunk.columns(SCALE_BOUNDS)[chunk_of], _unpack(packed[:, 2], (11, 10, 11)))
    gaussians = Gaussians(
        means=torch.from_numpy(means),
        quats=torch.from_numpy(_unpack_quats(packed[:, 1])),
        log_scales=torch.from_numpy(log_scales),
        opacity_logits=opacities.logit(),
        sh0=torch.from_numpy((rgba[:, :3] - 0.5) / np.float32(SH_C0))[:, None, :],
        shN=_read_sh(path, header, len(packed)),
    )
    return Scene(keep_finite(gaussians, path), info_from_comments(header.comments))


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
