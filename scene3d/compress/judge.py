"""Judge: renders a scene from views that no decision was made by, and says how far a compressed one is from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from scene3d.compress.goal import Verdict
from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture
from scene3d.core.errors import CaptureError
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.ops.image import masked_mean
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings
from scene3d.render.viewpoints import synthesize_views

# Views of a scene without cameras.
MADE_VIEWS = 36
# Photos show more than views that were made up, on average: the worst of these stand for them.
MADE_WORST_SHARE = 0.25
# And by so much more: real cameras saw up to 2.0 dB less than that (a fox -2.0, a still life -0.2, a made room +0.8).
MADE_MARGIN_DB = 2.2
# More views, or larger ones, change no decision.
MAX_VIEWS = 32
MAX_JUDGED = 12
MAX_PIXELS = 640 * 480


class Judge:
    """Compares compressed scenes with one uncompressed scene.

    Args:
        scene: The uncompressed scene, finite.
        cameras: Views to judge by.
        photos: RGB photos of the views with the weights of their pixels, if there are any. [H, W, 3], [H, W]
        worst_share: Fidelity is that of this share of the views, the worst.
    """

    def __init__(
        self,
        scene: Scene,
        cameras: Cameras,
        photos: Sequence[tuple[Tensor, Tensor | None]] = (),
        worst_share: float = 1.0,
    ) -> None:
        self.cameras, self.worst_share = cameras, worst_share
        self.settings = RasterSettings(antialiased=scene.info.antialiased)
        self.photos = tuple(photos)
        self.images = self.render(scene.splats())
        self.psnrs = self._photo_psnrs(self.images)

    @property
    def is_made_up(self) -> bool:
        """Whether the views are not known to be those from which the scene will be looked at."""
        return self.worst_share < 1

    def render(self, gaussians: Gaussians) -> list[Tensor]:
        """Images of all views, clamped to 0..1. [H, W, 3] each"""
        with torch.no_grad():
            views = (self.cameras.select([i]) for i in range(len(self.cameras)))
            return [rasterize(gaussians, view, self.settings).rgb[0].clamp(0, 1) for view in views]

    def verdict(self, gaussians: Gaussians) -> Verdict:
        """Compare a compressed scene with the uncompressed one."""
        images = self.render(gaussians)
        squares = [float((a - b).double().square().mean()) for a, b in zip(images, self.images, strict=True)]
        worst = sorted(squares, reverse=True)[: max(1, round(self.worst_share * len(squares)))]
        fidelity = _decibels(sum(worst) / len(worst))
        if not self.photos:
            return Verdict(fidelity)
        drops = [a - b for a, b in zip(self.psnrs, self._photo_psnrs(images), strict=True)]
        return Verdict(fidelity, sum(drops) / len(drops))

    def scene_psnr(self) -> float | None:
        """Mean PSNR of the uncompressed scene against the photos."""
        return sum(self.psnrs) / len(self.psnrs) if self.psnrs else None

    def _photo_psnrs(self, images: list[Tensor]) -> list[float]:
        pairs = zip(images, self.photos, strict=True) if self.photos else ()
        return [_decibels(float(masked_mean((a - b).square().mean(dim=2), mask))) for a, (b, mask) in pairs]


def judge_by_capture(scene: Scene, capture: Capture) -> tuple[Judge, Cameras]:
    """The held-out views with their photos to judge by, the others to decide by.

    Raises:
        CaptureError: the scene does not show what the photos show, so that nothing lost would be missed.
    """
    judged = _thin(capture.test or capture.train, MAX_JUDGED)
    photos = []
    for i in judged:
        photo = capture.load(i)
        rgb = photo.rgb.float() / 255
        if photo.alpha is not None:
            rgb = rgb * (photo.alpha.float() / 255)[:, :, None]
        photos.append((rgb, None if photo.mask is None else photo.mask.float() / 255))
    judge = Judge(scene, capture.cameras.select(judged).to(dtype=torch.float32), photos)
    _check_likeness(judge, capture)
    return judge, _limited(capture.cameras.select(_thin(capture.train or judged, MAX_VIEWS)))


def judge_by_cameras(scene: Scene, cameras: Cameras) -> tuple[Judge, Cameras]:
    """Every fourth view to judge by, the others to decide by; all to both where there are fewer than four."""
    cameras = _limited(cameras)
    judged = list(range(0, len(cameras), 4)) if len(cameras) >= 4 else list(range(len(cameras)))
    others = [i for i in range(len(cameras)) if i not in judged] or judged
    return Judge(scene, cameras.select(_thin(judged, MAX_JUDGED))), cameras.select(_thin(others, MAX_VIEWS))


def judge_by_synthesis(scene: Scene) -> tuple[Judge, Cameras]:
    """Views made from the scene itself: a third of them to judge by, the others to decide by."""
    settings = RasterSettings(antialiased=scene.info.antialiased)
    views = synthesize_views(scene.splats(), MADE_VIEWS, settings)
    judged = list(range(0, MADE_VIEWS, 3))
    judge = Judge(scene, views.select(judged), worst_share=MADE_WORST_SHARE)
    return judge, views.select([i for i in range(MADE_VIEWS) if i % 3])


def _check_likeness(judge: Judge, capture: Capture) -> None:
    """A single colour in place of the scene has to be worse."""
    blank = sum(_blank_psnr(photo, mask) for photo, mask in judge.photos) / max(len(judge.photos), 1)
    shown = judge.scene_psnr()
    if shown is not None and shown <= blank:
        raise CaptureError(
            capture.source,
            f"expected photos of this scene in its frame; it gives {shown:.1f} dB on them, a single colour {blank:.1f}",
            "Give the cameras that belong to the scene (--cameras), or none.",
        )


def _blank_psnr(photo: Tensor, mask: Tensor | None) -> float:
    mean = torch.stack([masked_mean(channel, mask) for channel in photo.unbind(dim=2)])
    return _decibels(float(masked_mean((photo - mean).square().mean(dim=2), mask)))


def _thin(views: Sequence[int], at_most: int) -> list[int]:
    n = min(len(views), at_most)
    return [views[round(i * (len(views) - 1) / max(n - 1, 1))] for i in range(n)]


def _limited(cameras: Cameras) -> Cameras:
    """The same views with no more than MAX_PIXELS each."""
    pixels = cameras.sizes.double().prod(dim=1, keepdim=True)
    scale = (MAX_PIXELS / pixels).sqrt().clamp(max=1.0)
    sizes = (cameras.sizes * scale).round().long().clamp_min(1)
    return replace(cameras, viewmats=cameras.viewmats.float(), Ks=cameras.Ks.float()).resized(sizes)


def _decibels(square: float) -> float:
    return -10 * math.log10(square) if square > 0 else math.inf
