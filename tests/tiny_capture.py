"""A tiny capture in memory and on disk, with photos rendered from a known scene: its metrics are perfect."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from PIL import Image
from strategies import random_gaussians
from torch import Tensor

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.capture import Capture, Photo
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.render.rasterize import rasterize

WIDTH, HEIGHT, FOCAL = 32, 24, 30.0


def tiny_scene(n: int = 30) -> Scene:
    """n Gaussians around the origin."""
    gaussians: Gaussians = random_gaussians(n, seed=3, sh_degree=1, spread=0.5)
    return Scene(gaussians.to(dtype=torch.float32))


def tiny_cameras(n: int = 4) -> Cameras:
    """n views around the origin, z up."""
    eyes = [torch.tensor([4 * math.cos(a), 4 * math.sin(a), 1.0]) for a in (2 * math.pi * i / n for i in range(n))]
    viewmats = torch.stack([look_at(eye, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0])) for eye in eyes])
    K = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    sizes = torch.tensor([[WIDTH, HEIGHT]]).repeat(n, 1)
    return Cameras(viewmats, K.repeat(n, 1, 1), sizes, tuple(f"images/{i:02d}.png" for i in range(n)))


def render_bytes(scene: Scene, cameras: Cameras) -> Tensor:
    """8-bit photos of the scene on black. [C, H, W, 3]"""
    rgb = rasterize(scene.payload, cameras, backend="reference").rgb
    return (rgb.clamp(0, 1) * 255).round().to(torch.uint8)


def tiny_capture(scene: Scene, mask: Tensor | None = None, alpha: Tensor | None = None) -> Capture:
    """The capture whose photos show `scene`; view 0 is the test view."""
    cameras = tiny_cameras()
    photos = render_bytes(scene, cameras)
    return Capture(
        cameras,
        lambda i: Photo(photos[i], alpha, mask),
        train=(1, 2, 3),
        test=(0,),
        source=Path("tiny"),
        has_alpha=alpha is not None,
        protocol="made for tests",
    )


def write_tiny_capture(folder: Path, scene: Scene) -> Path:
    """The same as a transforms.json with photos."""
    cameras = tiny_cameras()
    (folder / "images").mkdir(parents=True)
    frames = []
    for name, viewmat, photo in zip(cameras.names, cameras.viewmats, render_bytes(scene, cameras), strict=True):
        Image.fromarray(photo.numpy()).save(folder / name)
        world_from_gl = torch.linalg.inv(viewmat) @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
        frames.append({"file_path": name, "transform_matrix": world_from_gl.tolist()})
    lens = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT}
    (folder / "transforms.json").write_text(json.dumps({**lens, "frames": frames}))
    return folder
