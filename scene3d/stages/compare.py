"""Say how two scenes differ: sizes, and pictures from the same places. The first is taken as the truth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from PIL import Image

from scene3d.core.cameras import Cameras
from scene3d.core.scene import Scene
from scene3d.io.atomic import atomic_write
from scene3d.io.camera_path import read_cameras
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.registry import read_scene, scene_size
from scene3d.render.itinerary import Wish, plan
from scene3d.render.scene_points import scene_points
from scene3d.report.comparison import compare, comparison_text, triptych
from scene3d.report.facts import size_text

# Rings around a scene without cameras, degrees above the horizon, and views on each.
ELEVATIONS_DEG = (0.0, 20.0, 45.0)
RING_VIEWS = 6
SIDE = 512


@dataclass(frozen=True)
class Config:
    """What to compare, and from where."""

    first: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="A")]
    """Scene file, taken as the truth."""
    second: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="B")]
    """Scene file."""
    capture: Path | None = None
    """Folder with photos and poses: looks from its test views (from all where it has none)."""
    cameras: Path | None = None
    """A camera_path.json or a cameras.json instead. Default: rings around the first scene."""
    max_size: int | None = 640
    """Longer side of views of a capture at most, pixels."""
    out: Path | None = None
    """Folder for pictures of the views that differ most: A, B and their difference."""
    json: bool = False
    """Print JSON instead of text."""
    backend: str = "auto"
    """Rasterizer: auto, cpu, cuda, gsplat or reference."""


def run(config: Config) -> None:
    """Compare and print."""
    scenes = read_scene(config.first), read_scene(config.second)
    views = _views(config, scenes[0])
    result = compare(*scenes, views, config.backend)
    if config.out is not None:
        for i in result.worst():
            picture = Image.fromarray(triptych(*scenes, views.select([i]), config.backend))
            with atomic_write(config.out / f"view_{i:05d}.png") as temporary:
                picture.save(temporary)
    sizes = [scene_size(path) for path in (config.first, config.second)]
    if config.json:
        files = [str(config.first), str(config.second)]
        print(json.dumps({"files": files, "size_bytes": sizes, **result.as_json()}, indent=2))
        return
    for letter, path, scene, size in zip("AB", (config.first, config.second), scenes, sizes, strict=True):
        print(f"{letter}             {path}: {scene.size_text()}, {size_text(size)}")
    print(f"B / A         {100 * sizes[1] / max(sizes[0], 1):.1f} % of the bytes")
    print(comparison_text(result))
    if config.out is not None:
        print(f"pictures of the {len(result.worst())} views that differ most -> {config.out}")


def _views(config: Config, scene: Scene) -> Cameras:
    if config.cameras is not None:
        return read_cameras(config.cameras)
    if config.capture is not None:
        capture = read_capture(config.capture, CaptureOptions(max_size=config.max_size))
        return capture.cameras.select(capture.test or tuple(range(len(capture)))).to(dtype=torch.float32)
    points = scene_points(scene)
    wishes = [Wish("orbit", SIDE, SIDE, RING_VIEWS, 1.0, elevation) for elevation in ELEVATIONS_DEG]
    rings = [plan(wish, points, None, scene.info.up).cameras for wish in wishes]
    viewmats, Ks, sizes = (torch.cat([getattr(ring, name) for ring in rings]) for name in ("viewmats", "Ks", "sizes"))
    return Cameras(viewmats, Ks, sizes)
