"""Test views measured during a fit: PSNR of float renders, as rendered and after the best colour correction."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from scene3d.core.capture import Capture
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene, SceneInfo
from scene3d.ops.color_fit import fit_colors
from scene3d.ops.image import psnr
from scene3d.recon.losses import Color, eval_background
from scene3d.recon.photos import PhotoStore
from scene3d.recon.settings import FitSettings
from scene3d.render.scene_view import render_scene
from scene3d.render.types import RasterSettings


@dataclass(frozen=True)
class ViewScore:
    """One test view.

    Attributes:
        name: Of its photo.
        psnr: As rendered, dB.
        cc_psnr: After the affine colour transform that fits it best (least squares), dB.
    """

    name: str
    psnr: float
    cc_psnr: float


@dataclass(frozen=True)
class Validation:
    """All test views after some steps; means are over views."""

    step: int
    seconds: float
    n_gaussians: int
    psnr: float
    cc_psnr: float
    views: tuple[ViewScore, ...]
    protocol: str

    def as_json(self) -> dict[str, Any]:
        views = [_without_infinity(asdict(view)) for view in self.views]
        return {**_without_infinity(asdict(self)), "views": views}


def _without_infinity(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no word for the PSNR of a perfect picture."""
    return {name: None if value == math.inf else value for name, value in values.items()}


def validate(
    gaussians: Gaussians, capture: Capture, settings: FitSettings, step: int, seconds: float
) -> Validation | None:
    """Measure the test views at full size; None where there are none.

    PSNR of float renders clamped to [0, 1], not rounded to 8 bits; masked pixels do not count.
    """
    background = eval_background(settings.background, capture.has_alpha)
    scene = Scene(gaussians.detach(), SceneInfo(antialiased=settings.antialiased))
    return validate_scene(scene, capture, background, step, seconds, settings.backend)


def validate_scene(
    scene: Scene, capture: Capture, background: Color, step: int, seconds: float, backend: str = "auto"
) -> Validation | None:
    """The same for any kind of scene, over the background given."""
    if not capture.test:
        return None
    raster = RasterSettings(antialiased=scene.info.antialiased, background=background)
    store = PhotoStore(capture, budget_bytes=0)
    scores = []
    with torch.no_grad():
        for view in capture.test:
            rgb = render_scene(scene, store.camera(view, 1), raster, backend).rgb[0].cpu()
            target = store.target(view, 1)
            truth = target.over(background)
            truth = truth.float() / 255 if truth.dtype == torch.uint8 else truth
            corrected = fit_colors(rgb, truth, target.weight)
            values = [float(psnr(image.clamp(0, 1), truth, target.weight)) for image in (rgb, corrected)]
            scores.append(ViewScore(capture.cameras.names[view], *values))
    n = len(scores)
    means = sum(s.psnr for s in scores) / n, sum(s.cc_psnr for s in scores) / n
    words = f"float renders clamped to 0..1 over {background}; cc_psnr after a least-squares affine colour fit"
    return Validation(
        step, seconds, scene.n_gaussians, *means, tuple(scores), f"{capture.protocol}; {words}".lstrip("; ")
    )
