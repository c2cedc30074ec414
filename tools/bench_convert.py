"""Measure a conversion: teacher and student on held-out photos that neither conversion nor its judge has seen.

With --scratch also a fit of the same kind to the photos themselves, and when it is as good as the student.

python tools/bench_convert.py SCENE CAPTURE --to vm [--learn.cameras cameras.json] [--scratch 2500]
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from scene3d.core.capture import Capture
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.registry import read_scene
from scene3d.recon.field_fit import FieldHooks, fit_field
from scene3d.recon.field_settings import field_preset
from scene3d.recon.fit import Hooks, fit
from scene3d.recon.initialize import initialize
from scene3d.recon.losses import eval_background
from scene3d.recon.presets import preset_settings
from scene3d.recon.students import StudentKind
from scene3d.recon.validate import Validation, validate_scene
from scene3d.stages import convert_kind
from scene3d.stages.convert_kind import KindOptions

# Parts of the fit to photos after which it is measured.
PARTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Config:
    """What to convert, and photos to judge by."""

    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE")]
    """Scene file."""
    capture: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CAPTURE")]
    """Photos and poses in the frame of the scene; but for --scratch only the held-out ones are looked at."""
    to: StudentKind = "vm"
    """Kind to make."""
    learn: KindOptions = dataclasses.field(default_factory=KindOptions)
    """Options of the conversion."""
    max_size: int | None = None
    """Longer side of the photos at most, pixels."""
    scratch: int = 0
    """Steps of a fit of that kind to the photos; 0 = none."""


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
    if config.scratch:
        curve = scratch(capture, config.to, config.scratch)
        print("from photos: " + ", ".join(f"{score.seconds:.0f} s {score.psnr:.2f} dB" for score in curve))
        reached = next((score.seconds for score in curve if score.psnr >= student), None)
        print("never as good" if reached is None else f"as good after {reached:.0f} s")


def psnr(scene: Path, capture: Capture) -> float:
    """Mean PSNR on the held-out photos."""
    scores = validate_scene(read_scene(scene), capture, eval_background("auto", capture.has_alpha), 0, 0.0)
    if scores is None:
        raise SystemExit("the capture has no held-out photos")
    return scores.psnr


def scratch(capture: Capture, kind: StudentKind, steps: int) -> list[Validation]:
    """Scores of the preset fast on its way."""
    curve: list[Validation] = []
    eval_steps = tuple(round(part * steps) for part in PARTS)
    if kind == "splats":
        settings = replace(preset_settings("fast", capture, steps), eval_steps=eval_steps, checkpoint_every=0)
        fit(capture, initialize(capture, 0), settings, Hooks(validated=curve.append))
    else:
        of_field = replace(field_preset("fast", kind, steps), eval_steps=eval_steps, checkpoint_every=0)
        fit_field(capture, of_field, FieldHooks(validated=curve.append))
    return curve


if __name__ == "__main__":
    run(tyro.cli(Config))
