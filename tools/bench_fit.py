"""Time to quality on a capture: one fit per budget of seconds, scored on held-out photos; where a step's time goes.

Every budget is a run of its own whose schedules follow the clock, as `scene3d fit --time-limit` does. Evaluations and
reading photos for them are not counted. Structure from motion has its own time, in pose_report.json.
"""

from __future__ import annotations

import json
import resource
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro

from scene3d.core.capture import Capture
from scene3d.core.gaussians import Gaussians
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.ops.threads import set_threads
from scene3d.recon.fit import Hooks, fit
from scene3d.recon.initialize import initialize
from scene3d.recon.presets import PresetName, preset_settings
from scene3d.recon.settings import FitSettings
from scene3d.render import cpu

NO_STEP_LIMIT = 10_000_000
# From projected ellipses to pixels, and from pixels back to the gradients of ellipses.
RASTER = ("list", "sort", "bin", "blend", "blend backward", "sum pairs")


@dataclass(frozen=True)
class Config:
    capture: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CAPTURE")]
    """Folder with photos and poses."""
    budgets: tuple[float, ...] = (10, 20, 60)
    """Seconds of fitting, one run each."""
    data_factor: int = 4
    """Reduce photos by this whole number."""
    preset: PresetName = "fast"
    """Settings besides the length."""
    cap_max: int | None = None
    """Most Gaussians; default by the preset."""
    threads: int | None = None
    """Of the native code; all cores by default."""
    profile_steps: int = 300
    """Steps at full resolution whose time is split up; 0 = none."""
    out: Path | None = None
    """JSON file for the figures."""


@dataclass(frozen=True)
class Row:
    """One run."""

    budget: float
    seconds: float
    n_steps: int
    n_gaussians: int
    psnr: float
    peak_rss_gb: float


def run_budget(capture: Capture, first: Gaussians, settings: FitSettings, seconds: float) -> tuple[Row, Gaussians]:
    """One fit that ends after `seconds`."""
    result = fit(capture, first, replace(settings, max_steps=NO_STEP_LIMIT, time_limit=seconds, checkpoint_every=0))
    psnr = result.validation.psnr if result.validation else float("nan")
    row = Row(seconds, result.seconds, result.n_steps, len(result.gaussians), psnr, peak_rss_gb())
    return row, result.gaussians


def step_times(capture: Capture, fitted: Gaussians, settings: FitSettings, n_steps: int) -> dict[str, float]:
    """Median milliseconds of the parts of a training step at full resolution, all Gaussians and SH bands in use."""
    inner: list[dict[str, float]] = []
    marks: list[float] = []

    def stop() -> bool:
        marks.append(time.perf_counter())
        inner.append(cpu.native().last_times())
        return False

    frozen = replace(settings.strategy, refine_start=2.0, reset_every=0.0)
    steady = replace(settings, max_steps=n_steps, sh_every=0.0, strategy=frozen, checkpoint_every=0)
    steady = replace(steady, resolution=replace(steady.resolution, scales=(), until=()))
    fit(replace(capture, test=()), fitted, steady, Hooks(should_stop=stop))
    warm = len(marks) // 4
    steps = [b - a for a, b in zip(marks[warm:], marks[warm + 1 :], strict=False)]
    times = {name: statistics.median(row[name] for row in inner[warm:]) for name in inner[0]}
    native = sum(times.values())
    times["raster"] = sum(times[name] for name in RASTER)
    times["step"] = statistics.median(steps) * 1e3
    times["Python"] = times["step"] - native
    times["step / raster"] = times["step"] / times["raster"]
    times["steps per second"] = 1e3 / times["step"]
    return times


def peak_rss_gb() -> float:
    """Most memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(config: Config) -> None:
    """Run the benchmark."""
    bare = peak_rss_gb()
    threads = set_threads(config.threads)
    capture = read_capture(config.capture, CaptureOptions(data_factor=config.data_factor))
    settings = preset_settings(config.preset, capture)
    if config.cap_max is not None:
        settings = replace(settings, strategy=replace(settings.strategy, cap_max=config.cap_max))
    first = initialize(capture, settings.seed)
    size = "x".join(str(n) for n in capture.cameras.sizes[0].tolist())
    print(f"{len(capture.train)} + {len(capture.test)} photos of {size}, {len(first)} points, {threads} threads")
    print(f"{'budget s':>9}{'fit s':>8}{'steps':>8}{'Gaussians':>11}{'PSNR dB':>9}{'peak GB':>9}  (imports {bare:.2f})")
    rows, fitted = [], first
    for budget in config.budgets:
        row, fitted = run_budget(capture, first, settings, budget)
        rows.append(row)
        print(
            f"{row.budget:9.0f}{row.seconds:8.1f}{row.n_steps:8}{row.n_gaussians:11}{row.psnr:9.2f}{row.peak_rss_gb:9.2f}",
            flush=True,
        )
    times = step_times(capture, fitted, settings, config.profile_steps) if config.profile_steps else {}
    for name, value in times.items():
        print(f"{name:>20} {value:8.2f}" + ("" if "/" in name or "per" in name else " ms"))
    if config.out is not None:
        figures = {"rows": [row.__dict__ for row in rows], "step": times, "torch": torch.__version__}
        config.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
