"""Small scene files of every format, for tests of readers."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from strategies import random_gaussians

from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.registry import write_scene
from scene3d.io.spz import encode_spz

WRITTEN = ("a.ply", "a.compressed.ply", "a.splat", "a.sog", "a.spz", "a.glb", "a.spz.glb")
READ_ONLY = ("v2.spz", "v3.spz", "mode0.ksplat", "mode1.ksplat", "mode2.ksplat")
ALL = WRITTEN + READ_ONLY


def small_scene(n: int = 40, sh_degree: int = 1, info: SceneInfo = SceneInfo(), spread: float = 3.0) -> Scene:  # noqa: B008
    return Scene(random_gaussians(n, sh_degree=sh_degree, spread=spread).to(dtype=torch.float32), info)


def write_file(folder: Path, name: str, scene: Scene) -> Path:
    """Write `scene` in the format that `name`, one of ALL, stands for."""
    path = folder / name
    if name in ("v2.spz", "v3.spz"):
        path.write_bytes(encode_spz(scene, path, version=int(name[1])))
    elif name.endswith(".ksplat"):
        path.write_bytes(ksplat_bytes(scene.payload, int(name[4])))
    else:
        write_scene(scene, path)
    return path


def ksplat_bytes(gaussians: Gaussians, mode: int, capacity: int = 16) -> bytes:
    """A .ksplat of one section with full buckets and one partly filled, rows in order."""
    n, degree, block = len(gaussians), gaussians.sh_degree, 8.0
    n_full, n_left = divmod(n, capacity)
    n_partial = 1 if n_left else 0
    header = bytearray(4096)
    header[1] = 1
    struct.pack_into("<IIII H", header, 4, 1, 1, n, n, mode)
    struct.pack_into("<ff", header, 36, -2.0, 2.0)
    section = bytearray(1024)
    n_buckets = n_full + n_partial if mode else 0
    struct.pack_into("<4IfH", section, 0, n, n, capacity, n_buckets, block, 12)
    struct.pack_into("<I", section, 24, 32767 if mode else 1)
    struct.pack_into("<IIH", section, 32, n_full if mode else 0, n_partial if mode else 0, degree)
    centers = np.array([[0.25 * (i % 3), -0.5, 0.125] for i in range(n_buckets)], np.float32).reshape(-1, 3)
    sizes = np.array([n_left] * (n_partial if mode else 0), "<u4")
    number = "<f4" if mode == 0 else "<f2"
    mean_type = "<f4" if mode == 0 else "<u2"
    n_rest = gaussians.shN.shape[1] * 3
    fields = [("mean", mean_type, 3), ("scale", number, 3), ("quat", number, 4), ("rgba", "u1", 4)]
    row = np.dtype([*fields, ("rest", ("<f4", "<f2", "u1")[mode], n_rest)])
    rows = np.zeros(n, row)
    means = gaussians.means.numpy()
    if mode:
        bucket = np.arange(n) // capacity
        means = np.round((means - centers[bucket]) / (block / 2 / 32767) + 32767).clip(0, 65535)
    rows["mean"] = means
    rows["scale"], rows["quat"] = gaussians.scales.numpy(), gaussians.quats.numpy()
    colors = 0.5 + 0.28209479177387814 * gaussians.sh0[:, 0].numpy()
    rows["rgba"] = np.round(np.concatenate([colors, gaussians.opacities[:, None].numpy()], 1) * 255).clip(0, 255)
    bands = [gaussians.shN[:, d * d - 1 : (d + 1) ** 2 - 1].transpose(1, 2).flatten(1) for d in range(1, degree + 1)]
    rest = torch.cat(bands, dim=1).numpy() if bands else np.zeros((n, 0))
    rows["rest"] = np.round((rest + 2) / 4 * 255).clip(0, 255) if mode == 2 else rest
    return bytes(header) + bytes(section) + sizes.tobytes() + centers.tobytes() + rows.tobytes()


def v1_sog_files(folder: Path) -> None:
    """A loose SOG of version 1 with two Gaussians."""

    def image(name: str, rows: list[list[int]]) -> None:
        pixels = np.zeros((4, 4, 4), np.uint8)
        pixels.reshape(-1, 4)[: len(rows)] = rows
        Image.fromarray(pixels).save(folder / name, "WEBP", lossless=True, exact=True)

    image("means_l.webp", [[255, 255, 255, 255], [0, 0, 0, 255]])
    image("means_u.webp", [[255, 255, 255, 255], [0, 0, 0, 255]])
    image("quats.webp", [[128, 128, 128, 252], [128, 128, 128, 254]])
    image("scales.webp", [[0, 0, 0, 255], [255, 255, 255, 255]])
    image("sh0.webp", [[0, 0, 0, 0], [255, 255, 255, 255]])
    bounds = {"mins": [-1, -1, -1], "maxs": [1, 2, 3]}
    meta = {
        "means": {"shape": [2, 3], **bounds, "files": ["means_l.webp", "means_u.webp"]},
        "scales": {"shape": [2, 3], **bounds, "files": ["scales.webp"]},
        "quats": {"shape": [2, 4], "files": ["quats.webp"]},
        "sh0": {"shape": [2, 1, 4], "mins": [0, 0, 0, -4], "maxs": [1, 2, 3, 4], "files": ["sh0.webp"]},
    }
    (folder / "meta.json").write_text(json.dumps(meta))
