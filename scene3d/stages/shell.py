"""Put a shell around a scene: two meshes, between which alone the rays of a radiance field need to be sampled."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from scene3d.core.cameras import Cameras
from scene3d.core.scene import Scene
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.registry import read_scene
from scene3d.io.shell_files import write_shell
from scene3d.meshing.shell import MIN_LIGHT, extract_shell
from scene3d.ops.threads import set_threads
from scene3d.render.field_bricks import bake
from scene3d.render.itinerary import Wish, plan
from scene3d.render.scene_points import scene_points
from scene3d.render.shell_gain import measure_shell


@dataclass(frozen=True)
class Config:
    """What to put a shell around."""

    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE")]
    """Scene file: of a field, by its density, or of splats, by their opacity."""
    out: Path | None = None
    """Folder for outer.ply and inner.ply. Default: shell beside the scene."""
    min_light: float = MIN_LIGHT
    """The inner mesh lies where a smaller share of light gets. Larger values need fewer samples, and darken what lies
    deep. Of splats it lies at a fixed depth."""
    capture: Path | None = None
    """Folder with photos and poses: fields are measured from held-out views. Default: from all around."""
    width: int = 800
    """Of those views from all around, pixels."""
    threads: int | None = None
    """Of the native code; all cores by default."""


def run(config: Config) -> None:
    """Extract, write, print the sizes, and for fields what the shell saves."""
    set_threads(config.threads)
    scene = read_scene(config.scene)
    out = config.out or config.scene.resolve().parent / "shell"
    began = time.perf_counter()
    shell = extract_shell(scene, config.min_light)
    seconds = time.perf_counter() - began
    write_shell(shell, out, config.scene, config.min_light)
    print(f"{shell.outer.n_faces:,} triangles outside, {shell.inner.n_faces:,} inside, {seconds:.1f} s -> {out}")
    if "density" not in scene.capabilities:
        print("splats are drawn, not sampled along rays: a field of the same scene can be rendered through this shell")
        return
    print(measure_shell(bake(scene.field()), shell, _views(scene, config)).text())


def _views(scene: Scene, config: Config) -> Cameras:
    if config.capture is not None:
        capture = read_capture(config.capture, CaptureOptions())
        return capture.cameras.select(capture.test or capture.train)
    wish = Wish("orbit", config.width, config.width, 1.0, 12.0)
    return plan(wish, scene_points(scene), None, scene.info.up).cameras
