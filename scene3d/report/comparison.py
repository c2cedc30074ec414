"""Two scenes looked at from the same places: how much their pictures differ, and where most."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.scene import Scene
from scene3d.ops.colormap import HEAT, colorize
from scene3d.ops.flip import flip_map
from scene3d.ops.image import psnr, ssim
from scene3d.render.frames import to_bytes
from scene3d.render.scene_view import render_scene
from scene3d.render.types import RasterSettings
from scene3d.report.pictures import ERROR_MAX

WORST_SHOWN = 3
KeepPictures = Callable[[int, dict[str, np.ndarray]], None]


@dataclass(frozen=True)
class ViewDifference:
    """One view of both scenes; the first is taken as the truth.

    Attributes:
        name: Of the view.
        psnr: dB; None where the pictures are equal.
        ssim: At most 1.
        flip: 0 to 1.
    """

    name: str
    psnr: float | None
    ssim: float
    flip: float


@dataclass(frozen=True)
class Comparison:
    """All views.

    Attributes:
        views: In order.
        psnr: Of all pixels together, dB; None where all are equal.
    """

    views: tuple[ViewDifference, ...]
    psnr: float | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def worst(self) -> list[int]:
        """Views that differ most, the worst first."""
        order = sorted(range(len(self.views)), key=lambda i: _or_infinite(self.views[i].psnr))
        return order[:WORST_SHOWN]


def compare(
    a: Scene, b: Scene, cameras: Cameras, backend: str = "auto", keep: KeepPictures = lambda index, pictures: None
) -> Comparison:
    """Render both scenes from every view, each in its own mode, over black, clamped to 0..1.

    Args:
        a: The truth.
        b: The other.
        cameras: The views.
        backend: Of the rasterizer.
        keep: Takes the pictures of each view, by its index: truth, render and error, uint8. [H, W, 3]
    """
    views, squares = [], []
    for i, name in enumerate(cameras.names):
        first, second = (_picture(scene, cameras.select([i]), backend) for scene in (a, b))
        squares.append(float((first - second).double().square().mean()))
        found = float(psnr(first, second))
        seen = flip_map(first, second)
        scores = float(ssim(first, second)), float(seen.mean())
        views.append(ViewDifference(name, found if math.isfinite(found) else None, *scores))
        error = colorize(seen / ERROR_MAX, HEAT)
        keep(i, {"truth": to_bytes(first).numpy(), "render": to_bytes(second).numpy(), "error": error.numpy()})
    mean = sum(squares) / len(squares)
    return Comparison(tuple(views), -10 * math.log10(mean) if mean > 0 else None)


def comparison_text(comparison: Comparison) -> str:
    """The result for a terminal: all views together, then those that differ most."""
    flips = [view.flip for view in comparison.views]
    ssims = [view.ssim for view in comparison.views]
    lines = [
        f"views         {len(comparison.views)}",
        f"PSNR          {psnr_text(comparison.psnr)}, all pixels together",
        f"SSIM          {sum(ssims) / len(ssims):.4f} on average, {min(ssims):.4f} at worst",
        f"FLIP          {sum(flips) / len(flips):.4f} on average, {max(flips):.4f} at worst",
    ]
    for i in comparison.worst():
        view = comparison.views[i]
        lines.append(f"  {view.name:<20} {psnr_text(view.psnr)}, SSIM {view.ssim:.4f}, FLIP {view.flip:.4f}")
    return "\n".join(lines)


def psnr_text(value: float | None) -> str:
    """Decibels, or that there is no difference."""
    return "equal" if value is None else f"{value:.2f} dB"


def _picture(scene: Scene, view: Cameras, backend: str) -> Tensor:  # [H, W, 3]
    settings = RasterSettings(antialiased=scene.info.antialiased)
    return render_scene(scene, view, settings, backend).rgb[0].float().cpu().clamp(0, 1)


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value
