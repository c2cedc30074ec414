"""What a viewer asks for: from where, and what to show. Plain data: pictures can be tested without a browser."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians

Mode = Literal["rgb", "depth", "normals", "alpha", "ellipsoids", "codes", "error"]
MODES: tuple[Mode, ...] = get_args(Mode)
Side = Literal["A", "B", "split", "difference"]
SIDES: tuple[Side, ...] = get_args(Side)
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Box:
    """Part of the world between two corners."""

    low: Vector
    high: Vector

    def __post_init__(self) -> None:
        if not all(a <= b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"box: expected low <= high on every axis, got {self.low} and {self.high}")

    def holds(self, points: Tensor) -> Tensor:
        """Which points are inside. [N, 3] -> [N] bool"""
        return ((points >= points.new_tensor(self.low)) & (points <= points.new_tensor(self.high))).all(dim=1)


@dataclass(frozen=True)
class Cut:
    """Which Gaussians are shown.

    Attributes:
        min_opacity: Fainter ones are left out, 0 to 1.
        box: Those outside are left out; None keeps all.
    """

    min_opacity: float = 0.0
    box: Box | None = None

    def apply(self, gaussians: Gaussians) -> Gaussians:
        """The Gaussians that are shown; the same object where that is all of them."""
        if self.min_opacity <= 0 and self.box is None:
            return gaussians
        keep = gaussians.opacities >= self.min_opacity
        if self.box is not None:
            keep = keep & self.box.holds(gaussians.means)
        return gaussians.select(keep)


@dataclass(frozen=True)
class Look:
    """What to show.

    Attributes:
        mode: rgb, depth, normals, alpha, ellipsoids (one standard deviation, opaque), codes (what compression made of
            each Gaussian) or error against a photo.
        side: Of two scenes: the first, the second, first left and second right, or how much they differ.
        split: Where the second begins, share of the width.
        cut: Which Gaussians.
        sh_degree: Highest degree of spherical harmonics; None takes all.
        background: sRGB behind the scene.
        photo: Index of the photo for the error, which is seen from where it was taken.
        mark: Which of the marks colours the codes; a scene without it is shown in its own colours.
    """

    mode: Mode = "rgb"
    side: Side = "A"
    split: float = 0.5
    cut: Cut = Cut()
    sh_degree: int | None = None
    background: Vector = (0.0, 0.0, 0.0)
    photo: int | None = None
    mark: str = ""


@dataclass(frozen=True)
class Eye:
    """From where.

    Attributes:
        viewmat: cam_from_world, OpenCV axes. [4, 4]
        fov_deg: From the upper to the lower edge.
    """

    viewmat: Tensor
    fov_deg: float

    def camera(self, width: int, height: int) -> Cameras:
        """The view in a window of that size."""
        focal = height / 2 / math.tan(math.radians(self.fov_deg) / 2)
        K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        return Cameras(self.viewmat.float()[None], K[None], torch.tensor([[width, height]]))
