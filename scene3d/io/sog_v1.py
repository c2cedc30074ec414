"""SOG version 1, read only: 8-bit values between bounds where version 2 has codebooks; meta.json has no version.

Each part has `shape`, `dtype`, `mins`, `maxs` and `files`. Opacity is a logit between bounds in the fourth channel of
sh0; the palette of spherical harmonics has one pair of bounds for all coefficients.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scene3d.core.errors import FormatError
from scene3d.core.gaussians import SH_COUNTS, Gaussians
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.finite import keep_finite
from scene3d.io.image_planes import decode_image
from scene3d.io.json_fields import JsonObject, is_finite_number
from scene3d.io.sog_files import check_count
from scene3d.io.zip_files import FileSet
from scene3d.ops import smallest_three

MAX_COUNT = 2**28
PALETTE_COLUMNS = 64


def decode_v1(files: FileSet, meta: JsonObject) -> Scene:
    """The scene of a version 1 meta.json.

    Raises:
        FormatError: a file is missing, damaged, or does not hold what meta.json says.
    """
    means = meta.object("means")
    shape = means.items("shape", 3)
    if not shape or isinstance(shape[0], bool) or not isinstance(shape[0], int) or not 0 <= shape[0] <= MAX_COUNT:
        raise means.error("shape", f"a count up to {MAX_COUNT} and 3", shape)
    count = int(shape[0])
    check_count(files, meta, count)
    names = means.texts("files", 2)
    low, high = (_pixels(files, name, count) for name in names)
    mins, maxs = (np.array(means.numbers(key, 3)) for key in ("mins", "maxs"))
    logs = mins + (maxs - mins) * (low[:, :3] + 256.0 * high[:, :3]) / 65535
    with np.errstate(over="ignore"):
        positions = (np.sign(logs) * np.expm1(np.abs(logs))).astype(np.float32)
    quats = _pixels(files, meta.object("quats").texts("files", 1)[0], count)
    scales = _bounded(files, meta.object("scales"), count, 3)
    colors = _bounded(files, meta.object("sh0"), count, 4)
    gaussians = Gaussians(
        means=torch.from_numpy(positions),
        quats=smallest_three.decode(
            torch.from_numpy(quats[:, :3].astype(np.float32)) / 127.5 - 1,
            (torch.from_numpy(quats[:, 3].astype(np.int64)) - 252).clamp_min(0),
        ),
        log_scales=scales,
        opacity_logits=colors[:, 3].contiguous(),
        sh0=colors[:, None, :3].contiguous(),
        shN=_palette_sh(files, meta.object("shN"), count) if meta.has("shN") else torch.zeros(count, 0, 3),
    )
    return Scene(keep_finite(gaussians, files.path), SceneInfo(made_by="SOG version 1"))


def _pixels(files: FileSet, name: str, count: int) -> np.ndarray:  # [count, 4]
    return decode_image(files.path, name, files.read(name), count).reshape(-1, 4)[:count]


def _bounded(files: FileSet, part: JsonObject, count: int, n_channels: int) -> Tensor:  # [count, n_channels]
    pixels = _pixels(files, part.texts("files", 1)[0], count)[:, :n_channels]
    mins, maxs = (np.array(part.numbers(key, n_channels)) for key in ("mins", "maxs"))
    return torch.from_numpy((mins + (maxs - mins) * pixels / 255).astype(np.float32))


def _palette_sh(files: FileSet, part: JsonObject, count: int) -> Tensor:  # [N, K-1, 3]
    names = part.texts("files", 2)
    low, high = (_bound(part, key) for key in ("mins", "maxs"))
    centroids = decode_image(files.path, names[0], files.read(names[0]), PALETTE_COLUMNS * 3)
    n_rest = centroids.shape[1] // PALETTE_COLUMNS
    if centroids.shape[1] % PALETTE_COLUMNS or n_rest + 1 not in SH_COUNTS:
        expected = ", ".join(str(PALETTE_COLUMNS * (n - 1)) for n in SH_COUNTS[1:])
        raise FormatError(files.path, f"{names[0]}: expected a width of {expected}, got {centroids.shape[1]}")
    unit = torch.from_numpy(centroids.reshape(-1, n_rest, 4)[:, :, :3].astype(np.float32)) / 255
    palette = low + (high - low) * unit
    pixels = _pixels(files, names[1], count).astype(np.int64)
    labels = torch.from_numpy(pixels[:, 0] + 256 * pixels[:, 1])
    if len(labels) and int(labels.max()) >= len(palette):
        raise FormatError(files.path, f"{names[1]}: expected entries below {len(palette)}, got {int(labels.max())}")
    return palette[labels]


def _bound(part: JsonObject, key: str) -> float:
    # Some writers put the number into a list.
    value = part.data.get(key, 0.0)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not is_finite_number(value):
        raise part.error(key, "a finite number", value)
    return float(value)
