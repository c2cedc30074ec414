"""Fits whose scene is written as a small file that the fit was made for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from scene3d.compress.aware import AwareFit
from scene3d.compress.aware_settings import AwareSettings, MethodName, TrainingViews
from scene3d.compress.codebook_aware import CodebookFit
from scene3d.compress.grid_aware import GridFit
from scene3d.core.capture import Capture
from scene3d.core.scene import SceneInfo
from scene3d.io.registry import FIELD_FILE, SPLATS_FILE, read_scene
from scene3d.io.s3d_container import write_container
from scene3d.recon.fit import FitResult
from scene3d.recon.losses import BLACK
from scene3d.recon.photos import PhotoStore
from scene3d.recon.settings import FitSettings
from scene3d.recon.validate import Validation, validate

Aware = AwareFit | CodebookFit | GridFit
METHODS: dict[MethodName, type[Aware]] = {"context": AwareFit, "codebook": CodebookFit, "grid": GridFit}


@dataclass(frozen=True)
class CompactConfig:
    """What the small file is to be. With --compact only."""

    method: MethodName = "context"
    """What the fit is made for: context = the smallest, codebook = Compact3D, grid = self-organizing grids."""
    target_mb: float | None = None
    """Megabytes (1e6 bytes) that the file is to have, about; replaces drop-db."""
    drop_db: float = AwareSettings.drop_db
    """What coding may take of the PSNR of training photos, before the fit makes up for it; larger = smaller files."""
    rate_weight: float = AwareSettings.rate_weight
    """How much bits count beside the photos; larger values give smaller and smoother scenes."""


def order(config: CompactConfig) -> AwareSettings:
    """What the user asked for.

    Raises:
        ValueError: a number is out of its range.
    """
    if config.target_mb is not None and not config.target_mb > 0:
        raise ValueError(f"compact.target_mb: expected more than 0, got {config.target_mb:g}")
    if not 0 < config.drop_db <= 10:
        raise ValueError(f"compact.drop_db: expected more than 0 and at most 10 dB, got {config.drop_db:g}")
    if not config.rate_weight >= 0:
        raise ValueError(f"compact.rate_weight: expected at least 0, got {config.rate_weight:g}")
    target = None if config.target_mb is None else max(1, round(config.target_mb * 1e6))
    if target is not None and config.method == "codebook":
        raise ValueError("compact.target_mb: the method codebook has codebooks of fixed sizes; expected drop_db")
    return AwareSettings(config.method, config.drop_db, target, rate_weight=config.rate_weight)


def aware_fit(capture: Capture, settings: FitSettings, wanted: AwareSettings, info: SceneInfo) -> Aware:
    """The influence of a codec on a fit of this capture."""
    n = min(wanted.n_views, len(capture.train))
    views = [capture.train[round(i * (len(capture.train) - 1) / max(n - 1, 1))] for i in range(n)]
    store = PhotoStore(capture)
    photos = []
    for view in views:
        target = store.target(view, 1)
        rgb = target.over(BLACK)
        photos.append((rgb.float() / 255 if rgb.dtype == torch.uint8 else rgb, target.weight))
    cameras = capture.cameras.select(views).to(dtype=torch.float32)
    return METHODS[wanted.method](wanted, TrainingViews(cameras, tuple(photos), info), settings.seed)


def write(
    folder: Path, fitted: Aware, result: FitResult, capture: Capture, settings: FitSettings
) -> tuple[Validation | None, str]:
    """Write the file; what is measured of it as it reads back, and a line about it."""
    path = folder / FIELD_FILE
    write_container(fitted.finish(result.gaussians, result.push), path)
    # Readers of the folder take what an earlier fit without --compact has left.
    (folder / SPLATS_FILE).unlink(missing_ok=True)
    decoded, size = read_scene(path).splats(), path.stat().st_size
    scores = validate(decoded, capture, settings, result.n_steps, result.seconds)
    return scores, f"{len(decoded):,} Gaussians in {size:,} bytes, {8 * size / max(len(decoded), 1):.1f} bits each"
