"""Tiny captures on disk for tests: a ring of cameras around the origin, photos of noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from scene3d.core.cameras import Cameras, look_at
from scene3d.io.colmap_model import ColmapCamera, ColmapImage, ColmapModel, write_model
from scene3d.io.transforms_json import write_transforms_json

WIDTH, HEIGHT = 24, 16


def ring_cameras(n: int) -> Cameras:
    """n cameras around the origin that look at it, float64."""
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    angles = torch.arange(n, dtype=torch.float64) * (2 * torch.pi / n)
    eyes = torch.stack([3 * angles.cos(), 3 * angles.sin(), torch.full_like(angles, 0.5)], dim=1)
    viewmats = torch.stack([look_at(eye, torch.zeros(3, dtype=torch.float64), up) for eye in eyes])
    K = torch.tensor([[20.0, 0, 11.5], [0, 21.0, 8.5], [0, 0, 1]], dtype=torch.float64)
    sizes = torch.tensor([[WIDTH, HEIGHT]]).repeat(n, 1)
    return Cameras(viewmats, K.repeat(n, 1, 1), sizes, tuple(f"{i:04d}.png" for i in range(n)))


def write_photos(folder: Path, names: tuple[str, ...], size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """One photo of noise a name, each its own."""
    for i, name in enumerate(names):
        pixels = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)


def quaternion(rotation: torch.Tensor) -> tuple[float, float, float, float]:
    """wxyz of a rotation matrix, as the eigenvector of its symmetric 4x4 form (Bar-Itzhack 2000)."""
    r = rotation.numpy()
    k = np.array(
        [
            [r[0, 0] + r[1, 1] + r[2, 2], r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]],
            [0, r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0]],
            [0, 0, r[1, 1] - r[0, 0] - r[2, 2], r[1, 2] + r[2, 1]],
            [0, 0, 0, r[2, 2] - r[0, 0] - r[1, 1]],
        ]
    )
    w, x, y, z = np.linalg.eigh(k, UPLO="U")[1][:, -1].tolist()
    return w, x, y, z


def colmap_model(cameras: Cameras) -> ColmapModel:
    """The same cameras as a COLMAP model of one PINHOLE camera, with three points."""
    K = cameras.Ks[0]
    camera = ColmapCamera("PINHOLE", WIDTH, HEIGHT, (float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])))
    images = {}
    for i, (viewmat, name) in enumerate(zip(cameras.viewmats, cameras.names, strict=True)):
        x, y, z = viewmat[:3, 3].tolist()
        images[i + 1] = ColmapImage(name, 1, quaternion(viewmat[:3, :3]), (x, y, z))
    points = np.array([[0.0, 0, 0], [0.5, 0.25, -0.125], [1, 2, 3]])
    colors = np.array([[255, 0, 0], [0, 128, 0], [1, 2, 3]], np.uint8)
    return ColmapModel({1: camera}, images, points, colors, np.array([0.5, 0.25, 1.0]))


def write_colmap_capture(folder: Path, n: int = 10, text: bool = False) -> Cameras:
    """A COLMAP capture of n views; returns its cameras."""
    cameras = ring_cameras(n)
    write_photos(folder / "images", cameras.names)
    write_model(colmap_model(cameras), folder / "sparse" / "0", text)
    return cameras


def write_transforms_capture(folder: Path, n: int = 10) -> Cameras:
    """The same as transforms.json."""
    cameras = ring_cameras(n)
    paths = [f"images/{name}" for name in cameras.names]
    write_photos(folder, tuple(paths))
    write_transforms_json(cameras, folder / "transforms.json", paths)
    return cameras
