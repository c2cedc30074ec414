"""Gaussians as SOG (PlayCanvas' "Spatially Ordered Gaussians"), version 2: lossless WebP images and a meta.json.

Zipped as .sog, or loose: meta.json and the images beside it. Per Gaussian 16 bits an axis for the position (of the
signed logarithm, between bounds), 8 bits for each of three quaternion components, an entry of a 256-entry codebook
for each scale and colour channel, 8 bits of opacity, and an entry of a palette of at most 65,536 for the higher
spherical harmonics. Version 1 is read too. Facts about the scene stand in meta.json, key `scene3d`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scene3d.core.errors import FormatError
from scene3d.core.gaussians import SH_COUNTS, Gaussians
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.atomic import write_all, write_bytes
from scene3d.io.finite import keep_finite, lossy_ready
from scene3d.io.image_planes import decode_image, encode_webp
from scene3d.io.json_fields import JsonObject, parse_json
from scene3d.io.opacity import byte_logits
from scene3d.io.scene_facts import facts_from_info, info_from_facts
from scene3d.io.sog_files import META, check_count
from scene3d.io.sog_planes import ENTRIES, PALETTE_COLUMNS, SogPlanes, sog_planes
from scene3d.io.sog_v1 import decode_v1
from scene3d.io.zip_files import FileSet, open_zip, zip_bytes
from scene3d.ops import smallest_three

MAX_COUNT = 2**28
MAX_PALETTE = 65_536


def read_sog(path: Path) -> Scene:
    """Read a .sog archive, or loose files by their meta.json.

    Raises:
        FormatError: a file is missing, damaged, or does not hold what meta.json says.
    """
    files = FileSet(path) if path.name.lower().endswith(META) else open_zip(path)
    meta = parse_json(path, META, files.read(META if files.archive else path.name))
    if not meta.has("version"):
        return decode_v1(files, meta)
    meta.integer("version", 2, 2)
    return Scene(keep_finite(_decode(files, meta), path), _info(meta))


def write_sog(scene: Scene, path: Path) -> None:
    """Write a .sog archive, or loose files where `path` is a meta.json.

    Raises:
        OutputError: path cannot be written.
    """
    planes = sog_planes(lossy_ready(scene.splats(), path))
    files = {name: encode_webp(plane) for name, plane in planes.images.items()}
    meta = (json.dumps(_meta(planes, scene.info), separators=(",", ":"), allow_nan=False)).encode()
    if path.name.lower().endswith(META):
        write_all({**{path.parent / name: data for name, data in files.items()}, path: meta})
    else:
        write_bytes(path, zip_bytes({META: meta, **files}))


def _meta(planes: SogPlanes, info: SceneInfo) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "version": 2,
        "asset": {"generator": info.made_by or "scene3d"},
        "count": planes.count,
        "means": {"mins": planes.mins, "maxs": planes.maxs, "files": ["means_l.webp", "means_u.webp"]},
        "scales": {"codebook": planes.scale_codebook, "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": planes.color_codebook, "files": ["sh0.webp"]},
    }
    if planes.palette_count:
        meta["shN"] = {
            "count": planes.palette_count,
            "bands": planes.sh_degree,
            "codebook": planes.palette_codebook,
            "files": ["shN_centroids.webp", "shN_labels.webp"],
        }
    if info.antialiased:
        # The specification's name, and that of splat-transform.
        meta |= {"antialias": True, "model": "antialiased"}
    facts = facts_from_info(info)
    if facts:
        meta["scene3d"] = facts
    return meta


def _info(meta: JsonObject) -> SceneInfo:
    is_antialiased = meta.data.get("antialias") is True or meta.data.get("model") == "antialiased"
    made_by = meta.object("asset").text("generator") if meta.has("asset") else ""
    if meta.has("scene3d"):
        return replace(info_from_facts(meta.object("scene3d"), made_by), antialiased=is_antialiased)
    return SceneInfo(is_antialiased, made_by=made_by)


def _decode(files: FileSet, meta: JsonObject) -> Gaussians:
    count = meta.integer("count", 0, MAX_COUNT)
    check_count(files, meta, count)
    # Images are read, and their sizes checked, before anything is made as large as `count` says.
    low, high = (_pixels(files, meta.object("means"), i, 2, count) for i in range(2))
    quats = _pixels(files, meta.object("quats"), 0, 1, count)
    scales = _pixels(files, meta.object("scales"), 0, 1, count)
    colors = _pixels(files, meta.object("sh0"), 0, 1, count)
    return Gaussians(
        means=_means(meta.object("means"), low, high),
        quats=_quats(quats),
        log_scales=_codebook(meta.object("scales"))[torch.from_numpy(scales[:, :3]).long()],
        opacity_logits=byte_logits(colors[:, 3]),
        sh0=_codebook(meta.object("sh0"))[torch.from_numpy(colors[:, :3]).long()][:, None, :],
        shN=_palette_sh(files, meta.object("shN"), count) if meta.has("shN") else torch.zeros(count, 0, 3),
    )


def _pixels(files: FileSet, part: JsonObject, index: int, n_files: int, count: int) -> np.ndarray:  # [count, 4]
    name = part.texts("files", n_files)[index]
    return decode_image(files.path, name, files.read(name), count).reshape(-1, 4)[:count]


def _means(part: JsonObject, low: np.ndarray, high: np.ndarray) -> Tensor:  # [N, 3]
    mins, maxs = (np.array(part.numbers(key, 3)) for key in ("mins", "maxs"))
    unit = (low[:, :3].astype(np.float64) + 256.0 * high[:, :3]) / 65535
    logs = mins + (maxs - mins) * unit
    with np.errstate(over="ignore"):
        means = (np.sign(logs) * np.expm1(np.abs(logs))).astype(np.float32)
    return torch.from_numpy(means)


def _quats(pixels: np.ndarray) -> Tensor:  # [N, 4] uint8 -> wxyz
    small = torch.from_numpy(pixels[:, :3].astype(np.float32)) / 255 * 2 - 1
    tags = torch.from_numpy(pixels[:, 3].astype(np.int64)) - 252
    quats = smallest_three.decode(small, tags.clamp_min(0))
    # Other tags mean nothing: readers agree on the identity.
    return torch.where((tags < 0)[:, None], torch.tensor([1.0, 0.0, 0.0, 0.0]), quats)


def _codebook(part: JsonObject) -> Tensor:  # [256]
    entries = part.items("codebook", ENTRIES)
    # Entries beyond a shorter codebook are never named by a sound file.
    values = part.numbers("codebook", len(entries)) if entries else [0.0]
    return torch.tensor(values + values[-1:] * (ENTRIES - len(values)), dtype=torch.float32)


def _palette_sh(files: FileSet, part: JsonObject, count: int) -> Tensor:  # [N, K-1, 3]
    bands, n_entries = part.integer("bands", 0, 3), part.integer("count", 1, MAX_PALETTE)
    n_rest = SH_COUNTS[bands] - 1
    if n_rest == 0:
        return torch.zeros(count, 0, 3)
    codebook, names = _codebook(part), part.texts("files", 2)
    n_rows = -(-n_entries // PALETTE_COLUMNS)
    centroids = decode_image(files.path, names[0], files.read(names[0]), n_rows * PALETTE_COLUMNS * n_rest)
    if centroids.shape[1] != PALETTE_COLUMNS * n_rest:
        problem = f"{names[0]}: expected a width of {PALETTE_COLUMNS * n_rest} pixels for {bands} bands"
        raise FormatError(files.path, f"{problem}, got {centroids.shape[1]}")
    palette = codebook[torch.from_numpy(centroids.reshape(-1, n_rest, 4)[:n_entries, :, :3]).long()]
    pixels = _pixels(files, part, 1, 2, count).astype(np.int64)
    labels = torch.from_numpy(pixels[:, 0] + 256 * pixels[:, 1])
    if len(labels) and int(labels.max()) >= n_entries:
        raise FormatError(files.path, f"{names[1]}: expected entries below {n_entries}, got {int(labels.max())}")
    return palette[labels]
