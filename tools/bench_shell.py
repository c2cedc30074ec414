"""Measure adaptive shells: samples and time of the whole box, of its occupied cells, of bricks, each within a shell.

python tools/bench_shell.py FIELD.s3d CAPTURE
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.registry import read_scene
from scene3d.meshing.shell import extract_shell
from scene3d.ops.threads import available_threads, set_threads
from scene3d.render.field_bricks import bake
from scene3d.render.shell_gain import measure_shell


@dataclass(frozen=True)
class Config:
    """What to look at."""

    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FIELD")]
    """A radiance field."""
    capture: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CAPTURE")]
    """Its held-out views are rendered."""
    lights: tuple[float, ...] = (1 / 64, 1 / 4, 1 / 2)
    """Shares of light where the inner mesh lies."""
    size: int | None = None
    """Side of the views, pixels; as the photos by default."""
    threads: int | None = None
    """Of the native code."""


def run(config: Config) -> None:
    """Print a table."""
    set_threads(config.threads or available_threads())
    scene = read_scene(config.scene)
    field = scene.field()
    capture = read_capture(config.capture, CaptureOptions())
    views = capture.cameras.select(capture.test)
    if config.size is not None:
        views = views.resized(views.sizes * config.size // views.sizes.amax())
    ways = {"whole box": replace(field, occupancy=None), "occupied cells": field, "bricks": bake(field)}
    print("| sampled | samples a ray | ms a view | in a shell: samples | ms | fidelity |")
    for light in config.lights:
        began = time.perf_counter()
        shell = extract_shell(scene, light)
        extraction = time.perf_counter() - began
        n_faces = shell.outer.n_faces + shell.inner.n_faces
        print(f"| shell to {light:.4f} of the light: {n_faces:,} triangles, made in {extraction:.1f} s | | | | | |")
        for name, value in ways.items():
            gain = measure_shell(value, shell, views)
            before = f"{gain.without.samples:.1f} | {1e3 * gain.without.seconds:.0f}"
            after = f"{gain.within.samples:.1f} | {1e3 * gain.within.seconds:.0f}"
            print(f"| {name} | {before} | {after} | {gain.fidelity:.1f} dB |")


if __name__ == "__main__":
    run(tyro.cli(Config))
