"""Capture: posed photos of one scene. Images are read only when asked for; cameras are pinhole (lenses undone)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras


@dataclass(frozen=True)
class Photo:
    """One image as it is compared with a render: undistorted, at the size of its camera.

    Attributes:
        rgb: sRGB, straight (not premultiplied by alpha). [H, W, 3] uint8
        alpha: Opacity of the subject where the file has an alpha channel. [H, W] uint8
        mask: 255 = use this pixel, 0 = ignore it (also outside of the undistorted area). [H, W] uint8
    """

    rgb: Tensor
    alpha: Tensor | None = None
    mask: Tensor | None = None

    def over(self, background: tuple[float, float, float]) -> Tensor:
        """The photo as it looks in front of a colour, sRGB from 0 to 1. [H, W, 3]"""
        rgb = self.rgb.float() / 255
        if self.alpha is None:
            return rgb
        alpha = self.alpha.float()[..., None] / 255
        return rgb * alpha + torch.tensor(background) * (1 - alpha)


def _no_depth(index: int) -> None:
    """For captures without depth maps."""


def _no_prefetch(indices: Sequence[int]) -> None:
    """For captures whose photos are in memory anyway."""


@dataclass(frozen=True)
class Capture:
    """C posed photos.

    Attributes:
        cameras: The C pinhole views, at the size at which photos are delivered.
        load: Reads photo i.
        points: Structure-from-motion points in the frame of the cameras, P may be 0. [P, 3] float32
        point_colors: sRGB. [P, 3] uint8
        train: Indices of views to fit.
        test: Indices of held-out views.
        source: Folder or file it was read from.
        has_alpha: Photos carry alpha: the background is to be chosen.
        notices: What the reader left out or changed, for the user.
        protocol: How images were resized and split; written beside every metric.
        load_depth: Reads the depth map of photo i, z in the camera at the size of the photo, 0 where nothing is known.
            [H, W] float32, None where there is none.
        prefetch: Starts to read these photos in another thread: those that load will be asked for next.
    """

    cameras: Cameras
    load: Callable[[int], Photo]
    points: Tensor = field(default_factory=lambda: torch.zeros(0, 3))
    point_colors: Tensor = field(default_factory=lambda: torch.zeros(0, 3, dtype=torch.uint8))
    train: tuple[int, ...] = ()
    test: tuple[int, ...] = ()
    source: Path = Path()
    has_alpha: bool = False
    notices: tuple[str, ...] = ()
    protocol: str = ""
    prefetch: Callable[[Sequence[int]], None] = _no_prefetch
    load_depth: Callable[[int], Tensor | None] = _no_depth

    def __len__(self) -> int:
        return len(self.cameras)
