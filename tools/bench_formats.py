"""Formats side by side: bytes, fidelity of renders against the uncompressed scene, time to write and to read.

    python tools/bench_formats.py SCENE [--cameras cameras.json] [--others theirs.sog theirs.spz] [--markdown out.md]

Fidelity is the PSNR of renders against renders of SCENE itself, over all views and channels. Views are those of
--cameras, else an orbit.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.io.camera_path import read_cameras
from scene3d.io.registry import read_scene, scene_size, write_scene
from scene3d.ops.threads import set_threads
from scene3d.render.itinerary import Wish, plan
from scene3d.render.rasterize import rasterize
from scene3d.render.scene_points import scene_points
from scene3d.render.types import RasterSettings

SUFFIXES = (".ply", ".splat", ".compressed.ply", ".glb", ".spz.glb", ".spz", ".sog")


@dataclass(frozen=True)
class Config:
    """What to measure."""

    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE")]
    """A scene of Gaussians."""
    cameras: Path | None = None
    """cameras.json or camera_path.json to look from. Default: an orbit of 8 views, 640 x 480, -y up."""
    every: int = 5
    """Take every n-th of those cameras."""
    others: tuple[Path, ...] = ()
    """Files of the same scene that other programs wrote."""
    threads: int | None = None
    """Threads of the native code. Default: all cores."""


def main(config: Config) -> None:
    """Measure and print a table in Markdown."""
    set_threads(config.threads)
    torch.set_num_threads(1)
    scene = read_scene(config.scene)
    cameras = _cameras(config, scene)
    truth = _render(scene, cameras)
    n = len(scene.splats())
    print(f"{config.scene.name}: {n:,} Gaussians, SH {scene.splats().sh_degree}, {len(cameras)} views\n")
    print("| file | bytes | bytes each | fidelity, dB | write, s | read, s |\n| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for suffix in SUFFIXES:
            path = Path(folder) / f"ours{suffix}"
            start = time.perf_counter()
            write_scene(scene, path)
            _row(path, time.perf_counter() - start, cameras, truth, n)
        for path in config.others:
            _row(path, None, cameras, truth, n)


def _cameras(config: Config, scene: Scene) -> Cameras:
    if config.cameras is None:
        wish = Wish("orbit", 640, 480, seconds=1.0, fps=8.0)
        return plan(wish, scene_points(scene), None, scene.info.up or (0.0, -1.0, 0.0)).cameras
    found = read_cameras(config.cameras)
    return found.select(range(0, len(found), config.every))


def _render(scene: Scene, cameras: Cameras) -> torch.Tensor:  # [C, H, W, 3]
    gaussians: Gaussians = scene.splats()
    settings = RasterSettings(antialiased=scene.info.antialiased)
    views = [rasterize(gaussians, cameras.select([i]), settings).rgb.detach() for i in range(len(cameras))]
    return torch.cat(views).clamp(0, 1)


def _row(path: Path, write_s: float | None, cameras: Cameras, truth: torch.Tensor, n: int) -> None:
    start = time.perf_counter()
    scene = read_scene(path)
    read_s = time.perf_counter() - start
    error = float((_render(scene, cameras) - truth).double().square().mean())
    fidelity = f"{-10 * torch.tensor(error).log10().item():.1f}" if error > 0 else "exact"
    size, written = scene_size(path), "" if write_s is None else f"{write_s:.2f}"
    print(f"| {path.name} | {size:,} | {size / max(n, 1):.1f} | {fidelity} | {written} | {read_s:.2f} |", flush=True)


main(tyro.cli(Config, description=__doc__))
