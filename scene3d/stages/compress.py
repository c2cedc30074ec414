"""Make a scene small: an .s3d file at a stated quality or size."""

from __future__ import annotations

import importlib
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from scene3d.compress.goal import DEFAULT_SCENE_PSNR, Goal, Packed
from scene3d.compress.judge import MADE_MARGIN_DB, Judge, judge_by_cameras, judge_by_capture, judge_by_synthesis
from scene3d.compress.methods import METHODS
from scene3d.core.cameras import Cameras
from scene3d.core.errors import FormatError, OutputError
from scene3d.core.scene import Scene
from scene3d.io.camera_path import find_cameras, read_cameras
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.registry import read_scene
from scene3d.io.s3d_container import write_container
from scene3d.stages import compress_field, compress_report
from scene3d.stages.compress_field import Sight, sight_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What to compress, and what matters."""

    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE")]
    """Scene file."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT.s3d")]
    """File to write."""
    max_drop_db: float = 0.1
    """PSNR against photos may fall by so much: measured with --capture, else from --scene-psnr."""
    target_mb: float | None = None
    """Megabytes (1e6 bytes) to stay below, at the best quality that allows; replaces --max-drop-db."""
    lossless: bool = False
    """Keep every bit of every number; the order of the Gaussians changes."""
    method: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(METHODS) + "}")] = "context"
    """How: see docs/s3d.md."""
    capture: Path | None = None
    """Folder with the photos and poses of the scene: decides by its training views, judges by those held out."""
    cameras: Path | None = None
    """A cameras.json or camera_path.json instead: views that matter, without photos. Default: the
    cameras.json that a fit left with the scene; else views made up from the splats, which is less sure."""
    scene_psnr: float = DEFAULT_SCENE_PSNR
    """PSNR of the scene against photos in dB, where there is no --capture to measure it by."""
    tune_steps: int = 0
    """Steps of tuning against renders of the full scene, in the methods context, codebook and compact; slower and
    smaller: 200 take some minutes and a tenth off."""
    data_factor: int | None = None
    """Reduce the photos by this whole number."""
    test_every: int = 8
    """Every n-th photo by name is held out."""
    report: Path | None = None
    """HTML page to write: what each attribute costs, and the file beside .ply, .compressed.ply, .spz and .sog of the
    same scene, with a plot of bytes and PSNR; takes seconds more."""


def run(config: Config) -> None:
    """Compress, write, and print what each attribute takes and what was lost."""
    if config.out.suffix.lower() != ".s3d":
        raise OutputError(config.out, f"expected a name that ends in .s3d, got {config.out.suffix!r}")
    name = "lossless" if config.lossless else config.method
    if name not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {name!r}")
    target = None if config.target_mb is None else round(config.target_mb * 1e6)
    goal = Goal(config.max_drop_db, target, config.lossless, config.scene_psnr, config.tune_steps)
    scene = read_scene(config.scene)
    start = time.perf_counter()
    if "splats" not in scene.capabilities:
        if config.report is not None:
            raise ValueError("report: is made for Gaussians only, this scene is a radiance field")
        compress_field.run(scene, config.scene, config.out, goal, _sight(config), config.method)
        return
    if config.lossless:
        # No view decides anything, and NaN may be among what is kept.
        judge, views = None, None
    else:
        scene = _visible(config.scene, scene)
        judge, views = _judge(config, scene)
        margin = MADE_MARGIN_DB if judge.is_made_up else 0.0
        goal = replace(goal, scene_psnr=judge.scene_psnr() or config.scene_psnr, margin_db=margin)
    packed: Packed = importlib.import_module(METHODS[name].module).compress(scene, goal, judge, views)
    write_container(packed.container, config.out)
    seconds = time.perf_counter() - start
    told = _report(config, scene, packed, goal, seconds)
    if config.report is not None:
        judge = judge or _judge(config, scene)[0]
        compress_report.write_report(config.report, scene, config.out, judge, seconds, told)
    print(told)


def _visible(path: Path, scene: Scene) -> Scene:
    """The scene without what cannot be drawn.

    Raises:
        FormatError: nothing is left.
    """
    splats = scene.splats()
    is_finite = splats.is_finite()
    n_left = int(is_finite.sum())
    if n_left == 0:
        raise FormatError(path, "holds no splats that can be drawn", remedy="--lossless keeps even such a file.")
    if n_left < len(splats):
        log.warning("%s: left out %d splats that hold NaN or infinity", path, len(splats) - n_left)
    return scene if n_left == len(splats) else Scene(splats.select(is_finite), scene.info)


def _sight(config: Config) -> Sight:
    if config.capture is not None and not config.lossless:
        options = CaptureOptions(data_factor=config.data_factor, test_every=config.test_every)
        return sight_of(read_capture(config.capture, options))
    cameras = _cameras(config)
    return Sight(None if cameras is None else read_cameras(cameras))


def _judge(config: Config, scene: Scene) -> tuple[Judge, Cameras]:
    if config.capture is not None:
        options = CaptureOptions(data_factor=config.data_factor, test_every=config.test_every)
        return judge_by_capture(scene, read_capture(config.capture, options))
    cameras = _cameras(config)
    return judge_by_synthesis(scene) if cameras is None else judge_by_cameras(scene, read_cameras(cameras))


def _cameras(config: Config) -> Path | None:
    """The file asked for, else one that a fit left with the scene."""
    return config.cameras or find_cameras(config.scene)


def _views_text(config: Config) -> str:
    cameras = _cameras(config)
    if cameras is not None:
        return f"every fourth view of {cameras}, which decided nothing"
    return "the worst quarter of views made up from the splats; real views may differ: give --cameras or --capture"


def _report(config: Config, scene: Scene, packed: Packed, goal: Goal, seconds: float) -> str:
    n, before, after = len(scene.splats()), config.scene.stat().st_size, packed.size_bytes
    lines = [f"{'attribute':24}{'bytes':>10}{'bits a splat':>14}{'PSNR if only it is compressed':>32}"]
    for loss in packed.losses:
        lossless = "" if loss.fidelity_db == float("inf") else f"{loss.fidelity_db:.1f} dB"
        lines.append(f"{loss.name:24}{loss.size_bytes:10,}{8 * loss.size_bytes / max(n, 1):14.2f}{lossless:>32}")
    verdict = packed.verdict
    lines.append(f"{'all':24}{after:10,}{8 * after / max(n, 1):14.2f}{verdict.fidelity_db:>29.1f} dB")
    if verdict.drop_db is not None:
        lines.append(f"against held-out photos: {goal.scene_psnr:.2f} dB before, {verdict.drop_db:.3f} dB less after")
    elif goal.target_bytes is None and not goal.is_lossless:
        margin = f" and {goal.margin_db:g} dB for views that are made up" if goal.margin_db else ""
        lines.append(
            f"{goal.fidelity_db:.1f} dB were asked against the uncompressed render: what keeps a scene of "
            f"{goal.scene_psnr:.1f} dB within {goal.max_drop_db:g} dB{margin}"
        )
    if config.capture is None and not goal.is_lossless:
        lines.append(f"PSNR is that of {_views_text(config)}")
    lines += [packed.remark] if packed.remark else []
    kept = f"{len(packed.gaussians):,} of {n:,} splats"
    lines.append(f"{before:,} -> {after:,} bytes ({before / after:.1f}x), {kept}, {seconds:.1f} s -> {config.out}")
    return "\n".join(lines)
