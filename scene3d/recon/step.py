"""What one step of fitting takes and gives: a photo, how far to go, what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.recon import losses
from scene3d.recon.photos import Target
from scene3d.render.types import RasterSettings


@dataclass(frozen=True)
class View:
    """One photo and how it is looked at.

    Attributes:
        index: Of the photo in the capture.
        camera: One camera of its size.
        target: The photo.
        background: Colour behind both.
        raster: How to render, `background` included.
        transform: Colours shown are A rgb + b; None = as rendered. [3, 4]
        wants_viewmat: Whether the gradient by the camera is needed.
    """

    index: int
    camera: Cameras
    target: Target
    background: losses.Color
    raster: RasterSettings
    transform: Tensor | None = None
    wants_viewmat: bool = False


@dataclass(frozen=True)
class Rates:
    """How far a step goes.

    Attributes:
        lrs: Step size of every Gaussian tensor.
        fraction: Part of the run that is done.
        extent: Of the scene, scene units.
        keeps_stats: Whether screen gradients are counted.
    """

    lrs: dict[str, float]
    fraction: float
    extent: float
    keeps_stats: bool


@dataclass(frozen=True)
class Outcome:
    """What a step gives back.

    Attributes:
        loss: Its value before the step. Where it is not finite, nothing has moved.
        v_viewmat: Gradient by the camera's viewmat, None unless wanted. [4, 4]
        v_transform: Gradient by the colour transform, None where there is none. [3, 4]
    """

    loss: float
    v_viewmat: Tensor | None = None
    v_transform: Tensor | None = None


def half_size(rgb: Tensor) -> float:
    """Pixels; makes screen gradients of all resolutions comparable. rgb [H, W, 3]"""
    return 0.5 * math.sqrt(rgb.shape[0] * rgb.shape[1])
