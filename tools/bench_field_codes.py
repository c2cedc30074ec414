"""Measure what each step of the codec of fields gives: bytes and held-out photos, at equal steps of rounding.

python tools/bench_field_codes.py FIELD.s3d CAPTURE [--scales 1 1.6]
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from scene3d.compress.field_codes import Shares, code_field, tune
from scene3d.compress.field_order import order_ranks
from scene3d.compress.field_pack import coarseness_of
from scene3d.core.capture import Capture
from scene3d.core.errors import FormatError
from scene3d.core.fields import Field
from scene3d.core.scene import Scene
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.field_codes import CODED_KINDS, decode_codes, encode_codes
from scene3d.io.field_steps import Steps, decode_steps, encode_steps
from scene3d.io.registry import read_scene
from scene3d.io.s3d_container import Container, container_bytes
from scene3d.recon.validate import validate_scene

CUTS = (100, 95, 90, 80, 70, 60, 50, 45, 40, 35, 30, 25, 20, 15)
WHITE = (1.0, 1.0, 1.0)
# Each beside the steps.
STEPS = {
    "pruning of the last thousandth": Shares(fine=1.0, rows=0.999, kept=0.999),
    "pruning, and rows rounded by weight": Shares(fine=0.3, rows=0.999, kept=0.999),
    "pruning of the last three thousandths": Shares(fine=1.0, rows=0.997, kept=0.997),
    "that, and codes for the last tenth": Shares(rows=0.9),
    "that, and codes for the last hundredth": Shares(),
}


@dataclass(frozen=True)
class Config:
    """What to compress, and photos to judge by."""

    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FIELD")]
    """A field; codebooks are for vm and rbf."""
    capture: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CAPTURE")]
    """Weights are those of its training views, photos the held-out ones."""
    scales: tuple[float, ...] = (1.0, 1.6)
    """Of the steps."""
    tune_steps: int = 80
    """Of tuning, in the last row; 0 leaves it out."""
    cuts: bool = False
    """Only cut the file, with steps of the first scale, off after shares of its bytes, as one that ends early."""
    every: int = 5
    """Of the held-out photos, every n-th is looked at."""


def run(config: Config) -> None:
    """Print a table for each scale."""
    scene = read_scene(config.scene)
    capture = read_capture(config.capture, CaptureOptions())
    views = capture.cameras.select(capture.train[:: max(1, len(capture.train) // 24)])
    judged = replace(capture, test=capture.test[:: config.every])
    ordered = order_ranks(scene.field(), views)
    field, scene = ordered.field, Scene(ordered.field, scene.info)
    print("| codec | bytes | photos | seconds |")
    print(f"| float32 | {config.scene.stat().st_size:,} | {score(field, judged):.2f} dB | |")
    if config.cuts:
        show_cuts(encode_steps(scene, scaled(scene, config.scales[0]), ordered.heads), judged)
        return
    for scale in config.scales:
        steps = scaled(scene, scale)
        began = time.perf_counter()
        container = encode_steps(scene, steps, ordered.heads)
        show(f"steps x {scale:g}", container, decode_steps(container, Path()), judged, began)
        if scene.kind not in CODED_KINDS:
            continue
        coded, back = None, field
        for name, shares in STEPS.items():
            began = time.perf_counter()
            coded = code_field(field, views, steps, shares)
            container = encode_codes(Scene(coded.field), coded.planes, steps, ordered.heads)
            back = decode_codes(container, Path())
            show(name, container, back, judged, began)
        if config.tune_steps and coded is not None:
            began = time.perf_counter()
            coded = tune(coded, back, field, views, config.tune_steps)
            container = encode_codes(Scene(coded.field), coded.planes, steps, ordered.heads)
            show(f"{config.tune_steps} steps of tuning", container, decode_codes(container, Path()), judged, began)


def scaled(scene: Scene, scale: float) -> Steps:
    """Those of scene3d compress, times a scale."""
    base = coarseness_of(scene.kind)
    return Steps(scale * base.density, scale * base.color)


def show_cuts(container: Container, capture: Capture) -> None:
    """A row for each share of the file that is left."""
    whole = container_bytes(container)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cut.s3d"
        for percent in CUTS:
            path.write_bytes(whole[: len(whole) * percent // 100])
            began = time.perf_counter()
            try:
                field = read_scene(path).field()
            except FormatError as error:
                print(f"| {percent} % | {path.stat().st_size:,} | {error.problem} | |", flush=True)
                continue
            seconds = time.perf_counter() - began
            print(
                f"| {percent} % | {path.stat().st_size:,} | {score(field, capture):.2f} dB | {seconds:.1f} |",
                flush=True,
            )


def show(name: str, container: Container, field: Field, capture: Capture, began: float) -> None:
    """One row."""
    seconds = time.perf_counter() - began
    n_bytes = len(container_bytes(container))
    print(f"| {name} | {n_bytes:,} | {score(field, capture):.2f} dB | {seconds:.1f} |", flush=True)


def score(field: Field, capture: Capture) -> float:
    """Mean PSNR on the photos."""
    scores = validate_scene(Scene(field), capture, WHITE, 0, 0.0)
    if scores is None:
        raise SystemExit("the capture has no held-out photos")
    return scores.psnr


if __name__ == "__main__":
    run(tyro.cli(Config))
