"""Measure a conversion: teacher and student against held-out photos that neither conversion nor its judge has seen.

python tools/bench_convert.py SCENE CAPTURE --to vm [--learn.cameras cameras.json]
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from scene3d.core.capture import Capture
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.registry import read_scene
from scene3d.recon.losses import eval_background
from scene3d.recon.students import StudentKind
from scene3d.recon.validate import validate_scene
from scene3d.stages import convert_kind
from scene3d.stages.convert_kind import KindOptions


@dataclass(frozen=True)
class Config:
    """What to convert, and photos to judge by."""

    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE")]
    """Scene file."""
    capture: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CAPTURE")]
    """Photos and poses in the frame of the scene; only the held-out ones are looked at."""
    to: StudentKind = "vm"
    """Kind to make."""
    learn: KindOptions = dataclasses.field(default_factory=KindOptions)
    """Options of the conversion."""
    max_size: int | None = None
    """Longer side of the photos at most, pixels."""


def run(config: Config) -> None:
    """Convert, measure both, print a row."""
    capture = read_capture(config.capture, CaptureOptions(max_size=config.max_size))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / ("student.ply" if config.to == "splats" else "student.s3d")
        began = time.perf_counter()
        convert_kind.run(config.scene, read_scene(config.scene), out, config.to, config.learn)
        seconds = time.perf_counter() - began
        teacher, student = psnr(config.scene, capture), psnr(out, capture)
        print("| from | to | teacher, photos | student, photos | seconds | bytes |")
        print(
            f"| {config.scene.name} | {config.to} | {teacher:.2f} dB | {student:.2f} dB | {seconds:.0f} | "
            f"{out.stat().st_size:,} |"
        )


def psnr(scene: Path, capture: Capture) -> float:
    """Mean PSNR on the held-out photos."""
    scores = validate_scene(read_scene(scene), capture, eval_background("auto", capture.has_alpha), 0, 0.0)
    if scores is None:
        raise SystemExit("the capture has no held-out photos")
    return scores.psnr


if __name__ == "__main__":
    run(tyro.cli(Config))
