"""Find the cameras of plain photos or of a video (structure from motion)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from scene3d.io.video import VIDEO_SUFFIXES, extract_sharp_frames
from scene3d.recon.pose import PoseSettings, estimate_poses
from scene3d.recon.pose_progress import StepProgress
from scene3d.recon.pose_recipe import CameraModel, Matcher, Orient, Quality

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """Options of `scene3d pose`."""

    photos: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTOS")]
    """Folder of photos (JPEG, PNG, TIFF, BMP, WebP), or a video file."""
    out: Path = Path("posed")
    """Folder for the result: images, sparse/0 (COLMAP) and pose_report.json."""
    quality: Quality = "balanced"
    """How closely photos are looked at: fast (960 px), balanced (1600 px) or best (3200 px, several times slower)."""
    matcher: Matcher = "auto"
    """exhaustive: all pairs; sequential: neighbours and loops; auto: sequential for videos or over 150 photos."""
    camera_model: CameraModel = "auto"
    """Lens model; auto takes opencv from 15 photos of one camera on and simple_radial below."""
    orient: Orient = "up"
    """up turns the scene upright (z up), centres it and sets the median camera distance to 1; none leaves it as is."""
    max_frames: int = 150
    """Videos only: how many frames are taken, the sharpest of each stretch of time."""
    retry: bool = True
    """Try again with more features and relaxed thresholds when under 80 % of the photos get a pose."""
    masks: bool = True
    """Use the folder `masks` beside the photos where there is one (white = keep)."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""
    seed: int = 0
    """Seed of every random choice; the same photos and seed give the same poses."""
    keep_database: bool = False
    """Keep COLMAP's database in the folder .pose of the result."""
    verbose: bool = False
    """Show COLMAP's own log."""


def run(config: Config) -> None:
    """Estimate poses and print one line about them."""
    photos, matcher = config.photos, config.matcher
    with StepProgress() as progress:
        if photos.suffix.lower() in VIDEO_SUFFIXES and not photos.is_dir():
            photos, matcher = config.out / "images", "sequential" if matcher == "auto" else matcher
            extracted = extract_sharp_frames(
                config.photos, photos, config.max_frames, lambda done, total: progress("frames", done, total)
            )
            for notice in extracted.notices:
                logger.warning("%s", notice)
        settings = PoseSettings(
            quality=config.quality,
            matcher=matcher,
            camera_model=config.camera_model,
            orient=config.orient,
            retry=config.retry,
            use_masks=config.masks,
            threads=config.threads,
            seed=config.seed,
            keep_database=config.keep_database,
            is_verbose=config.verbose,
        )
        report = estimate_poses(photos, config.out, settings, progress)
    for notice in report.notices:
        logger.warning("%s", notice)
    print(f"{config.out}: {report.summary()}")
