"""Compare fits made for a small file with plain fits that are compressed afterwards: bytes and PSNR of held-out photos.

Every row is read back from its file and measured on the photos that nothing has seen.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from scene3d.compress.aware_settings import MethodName
from scene3d.core.capture import Capture
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.registry import read_scene
from scene3d.recon.settings import FitSettings
from scene3d.recon.validate import validate
from scene3d.stages import compress, fit
from scene3d.stages.fit_compact import CompactConfig


@dataclass(frozen=True)
class Config:
    """What to compare."""

    capture: tyro.conf.Positional[Path]
    """Posed capture."""
    data_factor: int | None = None
    """Reduce the photos by this whole number."""
    max_steps: int | None = None
    """Steps of the plain fit; default: the preset fast."""
    compact_steps: int | None = None
    """Steps of the fits for a small file; default: those of --compact."""
    drops: tuple[float, ...] = (0.1, 0.3)
    """Drops in dB at which the plain fit is compressed."""
    compact_drops: tuple[float, ...] = (CompactConfig.drop_db,)
    """Drops in dB for which fits are made."""
    methods: tuple[MethodName, ...] = ("context",)
    """What fits are made for."""
    mask_weights: tuple[float, ...] = ()
    """Also plain fits that prune by masks of these weights."""


def main(config: Config) -> None:
    """Fit, compress, print the table."""
    options = CaptureOptions(data_factor=config.data_factor)
    capture = read_capture(config.capture, options)
    print("| what | Gaussians | bytes | held-out PSNR | seconds |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        base = fit.Config(config.capture, Path(folder), preset="fast", data_factor=config.data_factor)
        plain = replace(base, out=Path(folder) / "plain", max_steps=config.max_steps)
        _row("plain fit", capture, plain.out / "scene.ply", lambda: fit.run(plain))
        for drop in config.drops:
            out = Path(folder) / f"{drop}.s3d"
            order = compress.Config(
                plain.out / "scene.ply", out, drop, capture=config.capture, data_factor=config.data_factor
            )
            _row(f"the same, compressed at {drop:g} dB", capture, out, lambda order=order: compress.run(order))
        for weight in config.mask_weights:
            masked = replace(plain, out=Path(folder) / f"masks{weight}", mask_weight=weight)
            name = f"plain fit, masks of weight {weight:g}"
            _row(name, capture, masked.out / "scene.ply", lambda order=masked: fit.run(order))
        for method in config.methods:
            for drop in config.compact_drops:
                small = CompactConfig(method, drop_db=drop)
                out = Path(folder) / f"{method}{drop}"
                order = replace(base, out=out, compact=True, small=small, max_steps=config.compact_steps)
                name = f"--compact --small.method {method} --small.drop-db {drop:g}"
                _row(name, capture, out / "scene.s3d", lambda order=order: fit.run(order))


def _row(name: str, capture: Capture, path: Path, make: Callable[[], None]) -> None:
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        make()
    seconds = time.perf_counter() - began
    splats = read_scene(path).splats()
    scores = validate(splats, capture, FitSettings(), 0, 0.0)
    psnr = "" if scores is None else f"{scores.psnr:.2f} dB"
    print(f"| {name} | {len(splats):,} | {path.stat().st_size:,} | {psnr} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config))
