"""Gaussians as .splat: 32 bytes each, no header. Small and read by every web viewer, but lossy.

Per Gaussian: position 3 float32, scales (not logarithms) 3 float32, red green blue opacity as bytes, quaternion
wxyz as bytes (value * 128 + 128). Spherical harmonics beyond degree 0 and facts about the scene have no place.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from scene3d.core.errors import FormatError
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.io.atomic import atomic_write
from scene3d.io.binary import TRUNCATED, load_bytes
from scene3d.io.finite import keep_finite, lossy_ready
from scene3d.io.opacity import byte_logits
from scene3d.io.ply import SH_C0

ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])


def read_splat(path: Path) -> Scene:
    """Read Gaussians of SH degree 0.

    Raises:
        FormatError: the size is no multiple of 32 bytes.
    """
    data = load_bytes(path)
    if len(data) % ROW.itemsize:
        offset = len(data) - len(data) % ROW.itemsize
        problem = f"expected a multiple of {ROW.itemsize} bytes, got {len(data)}"
        raise FormatError(path, problem, offset, TRUNCATED)
    rows = np.frombuffer(data, ROW)
    rgba = torch.from_numpy(rows["rgba"].astype(np.float32)) / 255
    with np.errstate(divide="ignore", invalid="ignore"):
        log_scales = torch.from_numpy(np.log(rows["scale"]))
    gaussians = Gaussians(
        means=torch.from_numpy(rows["mean"].copy()),
        quats=(torch.from_numpy(rows["quat"].astype(np.float32)) - 128) / 128,
        log_scales=log_scales,
        opacity_logits=byte_logits(rows["rgba"][:, 3]),
        sh0=((rgba[:, :3] - 0.5) / SH_C0)[:, None, :],
        shN=torch.zeros(len(rows), 0, 3),
    )
    return Scene(keep_finite(gaussians, path))


def write_splat(scene: Scene, path: Path) -> None:
    """Write Gaussians, the large and opaque first as viewers that load progressively expect.

    Raises:
        OutputError: path cannot be written.
    """
    gaussians = lossy_ready(scene.splats(), path)
    importance = gaussians.log_scales.sum(dim=1).exp() * gaussians.opacities
    order = torch.argsort(importance, descending=True, stable=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(_rows(gaussians.select(order)).tobytes())


def _rows(gaussians: Gaussians) -> np.ndarray:
    rows = np.zeros(len(gaussians), ROW)
    colors = 0.5 + SH_C0 * gaussians.sh0[:, 0]
    rgba = torch.cat([colors, gaussians.opacities[:, None]], dim=1)
    quats = torch.nn.functional.normalize(gaussians.quats, dim=1)
    rows["mean"] = gaussians.means.numpy()
    rows["scale"] = gaussians.scales.numpy()
    rows["rgba"] = _to_bytes(rgba * 255)
    rows["quat"] = _to_bytes(quats * 128 + 128)
    return rows


def _to_bytes(values: torch.Tensor) -> np.ndarray:
    return values.nan_to_num().round().clamp(0, 255).to(torch.uint8).numpy()
