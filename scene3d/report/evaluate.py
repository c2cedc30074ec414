"""Metrics of a scene against the photos of a capture: PSNR, SSIM, FLIP and, where it is at hand, LPIPS."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scene3d.core.capture import Capture, Photo
from scene3d.core.errors import CaptureError
from scene3d.core.scene import Scene
from scene3d.ops.color_fit import fit_colors
from scene3d.ops.flip import flip_map
from scene3d.ops.image import masked_mean, psnr, ssim
from scene3d.ops.threads import single_threaded_torch
from scene3d.render.scene_view import backend_of, on_device_of, render_scene
from scene3d.render.types import RasterSettings
from scene3d.report.perceptual import Net, Perceptual, load_perceptual

# Equal images have infinite PSNR, which JSON cannot hold and which spoils every mean.
MAX_PSNR = 100.0


BackgroundChoice = Literal["auto", "black", "white"]


@dataclass(frozen=True)
class EvaluateSettings:
    """How to measure.

    Attributes:
        background: auto = white where photos have alpha, else black.
        precision: float = renders clamped to [0, 1]; 8bit = also rounded, as if read back from a PNG.
        exposure: affine = measure after the colour transform that fits each photo best.
        lpips: Backbone of LPIPS.
        backend: Of the rasterizer.
    """

    background: BackgroundChoice = "auto"
    precision: Literal["float", "8bit"] = "float"
    exposure: Literal["none", "affine"] = "none"
    lpips: Net = "alex"
    backend: str = "auto"


@dataclass(frozen=True)
class ViewScore:
    """One view.

    Attributes:
        index: Of the photo in the capture.
        name: Of the photo.
        width: Pixels.
        height: Pixels.
        psnr: dB, at most MAX_PSNR.
        ssim: At most 1.
        flip: Mean FLIP, 0 = equal.
        lpips: None where it is not available.
        seconds: Time to render, without reading and measuring.
    """

    index: int
    name: str
    width: int
    height: int
    psnr: float
    ssim: float
    flip: float
    lpips: float | None
    seconds: float


@dataclass(frozen=True)
class MeanScore:
    """Means over the views; each view counts alike."""

    psnr: float
    ssim: float
    flip: float
    lpips: float | None
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """All that was measured.

    Attributes:
        views: In the order asked for.
        mean: Over views.
        n_gaussians: Of the scene, 0 where it is a field.
        scene_size: What the scene is and how large, in words.
        protocol: Exactly how, so that numbers can be compared.
        lpips_note: Backbone, or why there is none.
        backend: That rendered.
        skipped: Views whose mask leaves nothing to measure.
    """

    views: tuple[ViewScore, ...]
    mean: MeanScore
    n_gaussians: int
    scene_size: str
    protocol: str
    lpips_note: str
    backend: str
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Pictures of one view, sRGB in [0, 1] as they were measured.

    Attributes:
        score: Its numbers.
        truth: Photo on the background. [H, W, 3]
        render: [H, W, 3]
        error: FLIP of each pixel, 0 where masked. [H, W]
    """

    score: ViewScore
    truth: Tensor
    render: Tensor
    error: Tensor


def evaluate(
    scene: Scene,
    capture: Capture,
    views: Sequence[int],
    settings: EvaluateSettings = EvaluateSettings(),
    on_view: Callable[[Comparison], None] = lambda comparison: None,
) -> Evaluation:
    """Render views and measure them against their photos.

    Args:
        scene: What was fitted.
        capture: In the same frame.
        views: Indices of photos, at least one.
        settings: How.
        on_view: Takes the pictures of each view as they come.

    Raises:
        CaptureError: there is no view to measure.
        ValueError: an index is out of range.
        BackendUnavailable: the backend asked for does not run here.
    """
    if not views:
        remedy = "Hold photos out (--test-every 8) or measure the training views (--split train)."
        raise CaptureError(capture.source, "no views to measure", remedy)
    outside = [i for i in views if not 0 <= i < len(capture)]
    if outside:
        raise ValueError(f"views: expected 0 to {len(capture) - 1}, got {outside[0]}")
    scene = on_device_of(scene, settings.backend)
    perceptual = load_perceptual(settings.lpips)
    background = _background(settings, capture)
    # The first call loads code and fills caches: it would be the slowest frame of all.
    _render(scene, capture, views[0], background, settings.backend)
    scores, skipped, has_masks = [], [], False
    for place, index in enumerate(views):
        capture.prefetch(views[place + 1 : place + 2])
        photo = capture.load(index)
        has_masks = has_masks or photo.mask is not None
        comparison = _compare(scene, capture, index, photo, background, settings, perceptual)
        if comparison is None:
            skipped.append(capture.cameras.names[index])
            continue
        scores.append(comparison.score)
        on_view(comparison)
    if not scores:
        raise CaptureError(capture.source, f"the masks of all {len(views)} views are empty", "White means keep.")
    return Evaluation(
        views=tuple(scores),
        mean=_mean(scores),
        n_gaussians=scene.n_gaussians,
        scene_size=scene.size_text(),
        protocol=_protocol(capture, views, background, settings, has_masks),
        lpips_note=perceptual.note,
        backend=backend_of(scene, settings.backend),
        skipped=tuple(skipped),
    )


def _compare(
    scene: Scene,
    capture: Capture,
    index: int,
    photo: Photo,
    background: tuple[float, float, float],
    settings: EvaluateSettings,
    perceptual: Perceptual,
) -> Comparison | None:
    weight = None if photo.mask is None else photo.mask.float() / 255
    if weight is not None and float(weight.sum()) == 0:
        return None
    truth = photo.over(background)
    began = time.perf_counter()
    render = _render(scene, capture, index, background, settings.backend)
    seconds = time.perf_counter() - began
    with single_threaded_torch():
        return _measure(capture, index, (truth, render, weight), seconds, settings, perceptual)


def _measure(
    capture: Capture,
    index: int,
    images: tuple[Tensor, Tensor, Tensor | None],
    seconds: float,
    settings: EvaluateSettings,
    perceptual: Perceptual,
) -> Comparison:
    truth, render, weight = images
    if settings.exposure == "affine":
        render = fit_colors(render, truth, weight)
    render = render.nan_to_num(0.0).clamp(0, 1)
    if settings.precision == "8bit":
        render = (render * 255).round() / 255
    error = flip_map(truth, render)
    score = ViewScore(
        index=index,
        name=capture.cameras.names[index],
        width=truth.shape[1],
        height=truth.shape[0],
        psnr=min(float(psnr(render, truth, weight)), MAX_PSNR),
        ssim=float(ssim(render, truth, weight)),
        flip=float(masked_mean(error, weight)),
        lpips=None if perceptual.measure is None else perceptual.measure(*_kept(truth, render, weight)),
        seconds=seconds,
    )
    return Comparison(score, truth, render, error if weight is None else error * weight)


def _render(
    scene: Scene, capture: Capture, index: int, background: tuple[float, float, float], backend: str
) -> Tensor:  # [H, W, 3] on the CPU
    raster = RasterSettings(antialiased=scene.info.antialiased, background=background)
    return render_scene(scene, capture.cameras.select([index]), raster, backend).rgb[0].float().cpu()


def _kept(truth: Tensor, render: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both images with the photo's own pixels where the mask says ignore: LPIPS knows no masks."""
    return (truth, render) if weight is None else (truth, torch.lerp(truth, render, weight[..., None]))


def _background(settings: EvaluateSettings, capture: Capture) -> tuple[float, float, float]:
    is_white = capture.has_alpha if settings.background == "auto" else settings.background == "white"
    return (1.0, 1.0, 1.0) if is_white else (0.0, 0.0, 0.0)


def _mean(scores: list[ViewScore]) -> MeanScore:
    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(values)

    lpips = [score.lpips for score in scores if score.lpips is not None]
    return MeanScore(
        psnr=mean([score.psnr for score in scores]),
        ssim=mean([score.ssim for score in scores]),
        flip=mean([score.flip for score in scores]),
        lpips=mean(lpips) if lpips else None,
        seconds=mean([score.seconds for score in scores]),
    )


def _protocol(
    capture: Capture,
    views: Sequence[int],
    background: tuple[float, float, float],
    settings: EvaluateSettings,
    has_masks: bool,
) -> str:
    split = {capture.test: "test", capture.train: "training"}.get(tuple(views), "chosen")
    rounding = "renders rounded to 8 bits" if settings.precision == "8bit" else "float renders"
    color = "white" if background[0] else "black"
    exposure = "after an affine colour fit to each photo" if settings.exposure == "affine" else "colours as rendered"
    parts = [
        capture.protocol or "photos as read",
        f"{len(views)} {split} views",
        f"{rounding} clamped to 0..1",
        f"{color} background",
        exposure,
        "masked pixels left out" if has_masks else "no masks",
        "SSIM with an 11x11 Gaussian window",
        "FLIP at 67 pixels per degree",
    ]
    return "; ".join(parts)
