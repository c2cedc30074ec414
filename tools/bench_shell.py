"""Measure adaptive shells: samples and time of the whole box, of its occupied cells, and of shells.

python tools/bench_shell.py FIELD.s3d CAPTURE
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.fields import Field
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.registry import read_scene
from scene3d.meshing.shell import boxed, extract_shell, render_shell
from scene3d.ops.image import psnr
from scene3d.ops.rays import camera_rays, tiled_pixels
from scene3d.ops.threads import available_threads, set_threads
from scene3d.render.field_cpu import NativeDecoder, NativeField


@dataclass(frozen=True)
class Config:
    """What to look at."""

    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FIELD")]
    """A radiance field."""
    capture: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CAPTURE")]
    """Its held-out views are rendered."""
    n_views: int = 3
    """So many of them."""
    depths: tuple[float, ...] = (1.5, 2.0, 3.0)
    """Of the inner mesh, cells."""
    rounds: int = 3
    """The fastest of so many counts."""
    threads: int | None = None
    """Of the native code."""


def run(config: Config) -> None:
    """Print a table."""
    set_threads(config.threads or available_threads())
    field = read_scene(config.scene).field()
    capture = read_capture(config.capture, CaptureOptions())
    views = capture.cameras.select(capture.test[:: max(1, len(capture.test) // config.n_views)][: config.n_views])
    print("| sampled | samples a ray | seconds a view | against occupied cells |")
    truth: list[Tensor] = []
    hits = 1
    for name, value in (("occupied cells", field), ("whole box", boxed(field))):
        images, n_samples, hits, seconds = march(value, views, config.rounds)
        truth = truth or images
        print(f"| {name} | {n_samples / hits:.1f} | {seconds / len(views):.3f} | {fidelity(images, truth)} |")
    for depth in config.depths:
        began = time.perf_counter()
        shell = extract_shell(field, depth)
        extraction = time.perf_counter() - began
        best, images, n_samples = float("inf"), [], 0
        for _ in range(config.rounds):
            began = time.perf_counter()
            seen = [render_shell(field, shell, views.select([i])) for i in range(len(views))]
            best = min(best, time.perf_counter() - began)
            images, n_samples = [view.rgb for view in seen], sum(view.n_samples for view in seen)
        name = f"shell of {depth:g} cells, {shell.outer.n_faces + shell.inner.n_faces:,} triangles, {extraction:.1f} s"
        print(f"| {name} | {n_samples / hits:.1f} | {best / len(views):.3f} | {fidelity(images, truth)} |")


def fidelity(images: list[Tensor], truth: list[Tensor]) -> str:
    """Mean PSNR."""
    scores = [float(psnr(a, b)) for a, b in zip(images, truth, strict=True)]
    mean = sum(scores) / len(scores)
    return "the same" if mean == float("inf") else f"{mean:.1f} dB"


def march(field: Field, views: Cameras, rounds: int) -> tuple[list[Tensor], int, int, float]:
    """Images over black, samples and rays that met something, and the least time of all views."""
    native, decoder = NativeField(field), NativeDecoder(field.decoder)
    best, images, n_samples, hits = float("inf"), [], 0, 0
    for _ in range(rounds):
        began = time.perf_counter()
        images, n_samples, hits = [], 0, 0
        for i in range(len(views)):
            columns, rows = tiled_pixels(views.width(i), views.height(i))
            which = torch.full((len(columns),), i)
            origins, directions = camera_rays(views, which, columns, rows)
            tape = native.new_tape()
            sums = native.march(origins, directions, None, tape)
            image = torch.zeros(views.height(i), views.width(i), 3)
            image[rows, columns] = decoder.decode(sums.features, sums.opacity, directions)
            images.append(image)
            n_samples, hits = n_samples + tape.n_samples, hits + int((sums.opacity > 1e-3).sum())
        best = min(best, time.perf_counter() - began)
    return images, n_samples, hits, best


if __name__ == "__main__":
    run(tyro.cli(Config))
