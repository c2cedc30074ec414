"""Formats side by side: bytes, fidelity of renders against the uncompressed scene, errors of numbers, time.

    python tools/bench_formats.py SCENE [--cameras cameras.json] [--others theirs.sog theirs.spz]
    python tools/bench_formats.py SCENE --many 500000

Fidelity is the PSNR of renders against renders of SCENE itself, over all views and channels. Views are those of
--cameras, else an orbit. The second table holds root mean square errors of what is stored, once over all Gaussians
alike and once by how much each shows. With --many the scene is repeated, jittered, up to so many Gaussians of degree 2
with colours that all differ, and only the time and memory of writing it as .sog are taken.
"""

from __future__ import annotations

import resource
import tempfile
import time
from dataclasses import dataclass, fields
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
from scene3d.report.attribute_errors import AttributeErrors, attribute_errors

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
    many: int = 0
    """Write so many Gaussians of degree 2 as .sog instead, and say how long that takes."""
    threads: int | None = None
    """Threads of the native code. Default: all cores."""


def main(config: Config) -> None:
    """Measure and print tables in Markdown."""
    set_threads(config.threads)
    torch.set_num_threads(1)
    scene = read_scene(config.scene)
    with tempfile.TemporaryDirectory() as folder:
        if config.many:
            _write_many(scene, config.many, Path(folder) / "many.sog")
        else:
            _compare(config, scene, Path(folder))


def _compare(config: Config, scene: Scene, folder: Path) -> None:
    cameras = _cameras(config, scene)
    truth = _render(scene, cameras)
    n = len(scene.splats())
    print(f"{config.scene.name}: {n:,} Gaussians, SH {scene.splats().sh_degree}, {len(cameras)} views\n")
    print("| file | bytes | bytes each | fidelity, dB | write, s | read, s |\n| --- | --- | --- | --- | --- | --- |")
    paths = []
    for suffix in SUFFIXES:
        paths.append(folder / f"ours{suffix}")
        start = time.perf_counter()
        write_scene(scene, paths[-1])
        _row(paths[-1], time.perf_counter() - start, cameras, truth, n)
    for path in config.others:
        _row(path, None, cameras, truth, n)
    names = [field.name for field in fields(AttributeErrors)]
    print(f"\n| file | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}")
    for path in (*paths[1:], *config.others):
        found = read_scene(path).splats()
        for how, by_visibility in (("all alike", False), ("as seen", True)):
            errors = attribute_errors(scene.splats(), found, by_visibility)
            numbers = " | ".join(f"{getattr(errors, name):.2e}" for name in names)
            print(f"| {path.name}, {how} | {numbers} |", flush=True)


def _write_many(scene: Scene, count: int, path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    gaussians = scene.splats()
    gaussians = gaussians.select(torch.arange(count) % len(gaussians))

    def jittered(values: torch.Tensor, amount: float) -> torch.Tensor:
        return values + amount * torch.randn(values.shape, generator=generator)

    rest = torch.zeros(count, 8, 3)
    rest[:, : gaussians.shN.shape[1]] = gaussians.shN[:, :8]
    many = Gaussians(
        jittered(gaussians.means, 0.05),
        gaussians.quats,
        jittered(gaussians.log_scales, 0.1),
        gaussians.opacity_logits,
        jittered(gaussians.sh0, 0.05),
        jittered(rest, 0.03),
    )
    start, start_cpu = time.perf_counter(), time.process_time()
    write_scene(Scene(many, scene.info), path)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{count:,} Gaussians of degree 2 as .sog: {seconds:.1f} s, {cpu_seconds:.1f} s of CPU time,")
    print(f"{path.stat().st_size:,} bytes, {peak_gb:.2f} GB of memory")


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
