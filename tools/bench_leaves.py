"""Compare tri-vector leaves and radial bases with planes and lines at about the same number of parameters, also in a
turned world.

python tools/bench_leaves.py CAPTURE prints a table for docs/benchmarks.md; five minutes with the default steps.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from scene3d.core.capture import Capture
from scene3d.core.scene import Scene
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.recon.field_fit import fit_field
from scene3d.recon.field_settings import FieldFitSettings, field_preset
from scene3d.render.scene_view import render_scene


@dataclass(frozen=True)
class Config:
    """What to compare."""

    capture: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CAPTURE")]
    """Folder with photos and poses."""
    max_size: int = 200
    """Longer side of photos at most, pixels."""
    steps: int = 600
    """Of every fit."""
    turned: bool = True
    """Also in a world turned by a fixed random rotation."""
    only: tuple[str, ...] = ()
    """Names of rows; all by default."""


def main(config: Config) -> None:
    """Print the table."""
    capture = read_capture(config.capture, CaptureOptions(max_size=config.max_size))
    print("| field | numbers, M | aligned | turned | seconds of fitting | image of 800 pixels, ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, settings in rows(config.steps).items():
        if config.only and name not in config.only:
            continue
        print(row(name, capture, settings, config.turned), flush=True)


def rows(steps: int) -> dict[str, FieldFitSettings]:
    """What is compared. The presets have other sizes each; these have about the same number of parameters."""
    vm = replace(field_preset("fast", "vm", steps), checkpoint_every=0)
    rbf = replace(field_preset("fast", "rbf", steps), checkpoint_every=0)
    leaves = replace(field_preset("fast", "trivec", steps), checkpoint_every=0)
    return {
        "vm": vm,
        "vm, as long as with bases": replace(vm, max_steps=round(1.8 * steps)),
        "radial bases": rbf,
        "radial bases, even": replace(rbf, placing="even"),
        "radial bases, no sines": replace(rbf, waves=0.0),
        "leaves of one size": replace(leaves, leaves="one"),
        "leaves of two sizes": replace(leaves, leaves="two"),
        "cover of two lattices": replace(leaves, leaves="cover", last_voxels=leaves.last_voxels // 2),
    }


def row(name: str, capture: Capture, settings: FieldFitSettings, is_turned: bool) -> str:
    """One fit, or two."""
    began = time.process_time()
    result = fit_field(capture, settings)
    seconds = time.process_time() - began
    assert result.validation is not None
    score = "-"
    if is_turned:
        other = fit_field(turned(capture), settings).validation
        assert other is not None
        score = f"{other.psnr:.2f} dB"
    view = capture.cameras.select([capture.test[0]]).to(dtype=torch.float32)
    view = view.resized((view.sizes * (800 / int(view.sizes.max()))).round().long())
    times = []
    for _ in range(4):
        start = time.perf_counter()
        render_scene(Scene(result.field), view)
        times.append(time.perf_counter() - start)
    return (
        f"| {name} | {result.field.n_numbers / 1e6:.2f} | {result.validation.psnr:.2f} dB | {score} | {seconds:.0f} | "
        f"{1e3 * min(times):.0f} |"
    )


def turned(capture: Capture) -> Capture:
    """The same photos in a world turned around a slanted axis."""
    new_from_old = rotation(torch.tensor([1.0, 2.0, 3.0]), 0.9)
    viewmats = capture.cameras.viewmats.clone()
    rotations = viewmats[:, :3, :3] @ new_from_old.T.to(viewmats)
    viewmats[:, :3, :3] = rotations
    return replace(
        capture,
        cameras=replace(capture.cameras, viewmats=viewmats),
        points=capture.points @ new_from_old.T.to(capture.points),
    )


def rotation(axis: Tensor, angle: float) -> Tensor:
    """Rodrigues' formula. [3, 3]"""
    x, y, z = (axis / axis.norm()).tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return torch.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
