"""Compare tri-vector leaves and radial bases with planes and lines at about the same number of parameters, also in a
turned world.

python tools/bench_leaves.py CAPTURE prints a table for docs/benchmarks.md; five minutes with the default steps.
python tools/bench_leaves.py CAPTURE --images FIELD.s3d ... times images of stored fields, by factors and by bricks.
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

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture
from scene3d.core.scene import Scene
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.registry import read_scene
from scene3d.ops.image import psnr
from scene3d.recon.field_fit import fit_field
from scene3d.recon.field_settings import FieldFitSettings, field_preset
from scene3d.render.scene_view import on_device_of, render_scene
from scene3d.render.types import RasterSettings

WHITE = RasterSettings(background=(1.0, 1.0, 1.0))


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
    images: tuple[Path, ...] = ()
    """Stored fields of which only images are timed."""


def main(config: Config) -> None:
    """Print the table."""
    capture = read_capture(config.capture, CaptureOptions(max_size=config.max_size))
    if config.images:
        print("| field | pixels | by factors, ms | by bricks, ms | images a second | fidelity |")
        print("| --- | --- | --- | --- | --- | --- |")
        for path in config.images:
            for size in (400, 800):
                print(image_row(path, capture, size), flush=True)
        return
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
        "vm, a colour of each sample": replace(vm, decoder="sample"),
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
    fitting = time.process_time() - began
    assert result.validation is not None
    score = "-"
    if is_turned:
        other = fit_field(turned(capture), settings).validation
        assert other is not None
        score = f"{other.psnr:.2f} dB"
    seconds = time_image(on_device_of(Scene(result.field)), sized_view(capture, capture.test[0], 800))[0]
    return (
        f"| {name} | {result.field.n_numbers / 1e6:.2f} | {result.validation.psnr:.2f} dB | {score} | {fitting:.0f} | "
        f"{1e3 * seconds:.0f} |"
    )


def image_row(path: Path, capture: Capture, size: int) -> str:
    """Means over four held-out views, all cores."""
    scene = read_scene(path)
    baked, found = on_device_of(scene), []
    for index in capture.test[:: max(1, len(capture.test) // 4)][:4]:
        view = sized_view(capture, index, size)
        (before, want), (after, got) = time_image(scene, view), time_image(baked, view)
        found.append((before, after, float(psnr(got, want))))
    before, after, fidelity = torch.tensor(found).mean(dim=0).tolist()
    return f"| {path.stem} | {size} | {1e3 * before:.0f} | {1e3 * after:.0f} | {1 / after:.1f} | {fidelity:.1f} dB |"


def sized_view(capture: Capture, index: int, size: int) -> Cameras:
    """A view of the capture with so many pixels along its longer side."""
    view = capture.cameras.select([index]).to(dtype=torch.float32)
    return view.resized((view.sizes * (size / int(view.sizes.max()))).round().long())


def time_image(scene: Scene, view: Cameras) -> tuple[float, Tensor]:
    """Seconds of the fastest of some images, and the image."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        image = render_scene(scene, view, WHITE).rgb[0]
        times.append(time.perf_counter() - start)
    return min(times), image


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
