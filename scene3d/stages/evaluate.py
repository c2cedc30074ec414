"""Measure a scene against the held-out photos of its capture: PSNR, SSIM, FLIP, LPIPS; numbers, pictures, protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from scene3d.core.capture import Capture
from scene3d.core.progress import Progress
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.registry import read_scene
from scene3d.report.evaluate import BackgroundChoice, Comparison, EvaluateSettings, evaluate
from scene3d.report.evaluation_files import PictureWriter, Subject, fitted_background, last_step, write_evaluation
from scene3d.report.perceptual import Net


@dataclass(frozen=True)
class Config:
    """What to measure and how."""

    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE")]
    """Scene file, as fit writes it."""
    capture: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CAPTURE")]
    """Folder with photos and poses in the frame of the scene."""
    out: Path | None = None
    """Folder for metrics.json, stats/, images/ and views/. Default: eval beside the folder of the scene."""
    split: Literal["test", "train", "all"] = "test"
    """Which photos to measure. Training photos flatter the scene: never compare them with test numbers."""
    data_factor: int | None = None
    """Reduce photos by this whole number; use that of the fit."""
    max_size: int | None = None
    """Longer side of photos at most, pixels."""
    test_every: int = 8
    """Every n-th photo by name is a test view; use that of the fit."""
    background: BackgroundChoice = "auto"
    """Behind the scene. auto = as its fit had it, by the config.json beside it; else white where photos have alpha,
    black where not."""
    precision: Literal["float", "8bit"] = "float"
    """8bit rounds renders first, as if they were read back from PNG files."""
    exposure: Literal["none", "affine"] = "none"
    """affine measures after the colour transform that fits each photo best, for photos with automatic exposure."""
    lpips: Net = "alex"
    """Backbone of LPIPS, used where package and weights are on this machine."""
    backend: str = "auto"
    """Rasterizer: auto, cpu, cuda, gsplat or reference."""
    pictures: bool = True
    """Write pictures: photo, render and error side by side, and each by itself."""
    picture_format: Literal["jpg", "png"] = "jpg"
    """png is exact and several times larger."""
    step: int | None = None
    """Number in the name of the stats file. Default: the last step in log.jsonl beside the scene."""


def run(config: Config) -> None:
    """Measure, write metrics and pictures, print the means."""
    scene = read_scene(config.scene)
    options = CaptureOptions(config.data_factor, config.max_size, config.test_every)
    capture = read_capture(config.capture, options)
    background = config.background
    if background == "auto":
        background = fitted_background(config.scene.parent / "config.json")
    settings = EvaluateSettings(background, config.precision, config.exposure, config.lpips, config.backend)
    out = config.out or _default_out(config.scene)
    writer = PictureWriter(out, config.picture_format)
    views = _views(capture, config.split)
    with Progress(len(views), "evaluating") as progress:

        def on_view(comparison: Comparison) -> None:
            if config.pictures:
                writer.write(comparison)
            progress.advance(psnr=f"{comparison.score.psnr:.2f} dB")

        result = evaluate(scene, capture, views, settings, on_view)
    step = last_step(config.scene.parent / "log.jsonl") if config.step is None else config.step
    subject = Subject(config.scene.name, config.scene.stat().st_size, config.capture.name, step)
    write_evaluation(result, subject, out, writer.names)
    mean = result.mean
    lpips = result.lpips_note if mean.lpips is None else f"{mean.lpips:.3f}"
    print(
        f"PSNR {mean.psnr:.2f} dB  SSIM {mean.ssim:.4f}  FLIP {mean.flip:.4f}  LPIPS {lpips}  "
        f"({len(result.views)} {config.split} views, {result.scene_size}) -> {out / 'metrics.json'}"
    )


def _views(capture: Capture, split: str) -> tuple[int, ...]:
    chosen = {"test": capture.test, "train": capture.train}
    return chosen.get(split, tuple(sorted({*capture.train, *capture.test})))


def _default_out(scene: Path) -> Path:
    folder = scene.resolve().parent
    return (folder.parent if folder.name == "fit" else folder) / "eval"
