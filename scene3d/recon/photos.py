"""Targets of a fit: the photos of a capture at the scale asked for, ready to compare with a render.

Reduced photos are kept as bytes as long as a budget lasts, so that memory does not grow with the number of photos.
Colours are premultiplied by alpha here: any background can be put behind them by one addition.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture, Photo

SMALLEST_SIDE = 32  # Pixels; coarser images teach nothing.


@dataclass(frozen=True)
class Target:
    """One photo as a fit sees it.

    Attributes:
        rgb: sRGB bytes; premultiplied and 0 to 1 where there is alpha. [H, W, 3] uint8 or float32
        alpha: 0 to 1, None where the photo has none. [H, W]
        weight: 0 to 1, None = every pixel counts. [H, W]
    """

    rgb: Tensor
    alpha: Tensor | None
    weight: Tensor | None

    def colors(self) -> Tensor:
        """Premultiplied sRGB, 0 to 1. [H, W, 3]"""
        return self.rgb.float() / 255 if self.rgb.dtype == torch.uint8 else self.rgb

    def over(self, background: tuple[float, float, float]) -> Tensor:
        """The photo on a background, bytes where it has no alpha. [H, W, 3]"""
        if self.alpha is None:
            return self.rgb
        return self.rgb + (1 - self.alpha[..., None]) * on_device(torch.tensor(background), self.rgb.device)

    def to(self, device: torch.device) -> Target:
        """The same on another device."""
        alpha, weight = (None if value is None else on_device(value, device) for value in (self.alpha, self.weight))
        return Target(on_device(self.rgb, device), alpha, weight)


def on_device(value: Tensor, device: torch.device) -> Tensor:
    """A tensor where it is wanted; its copy to a GPU goes on while the host does other things."""
    if value.device.type == device.type:
        return value
    # Only from locked memory a copy does not wait. torch keeps and reuses such memory once the copy is through.
    return (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=device.type == "cuda")


class PhotoStore:
    """Photos and cameras of a capture at any scale.

    Args:
        capture: Where photos come from; it keeps its own cache of whole ones.
        budget_bytes: Bytes kept here for reduced ones.
    """

    def __init__(self, capture: Capture, budget_bytes: int = 256 << 20) -> None:
        self._capture = capture
        self._room = budget_bytes
        self._reduced: dict[tuple[int, int], Photo] = {}
        self._cameras: dict[tuple[int, int], Cameras] = {}

    def camera(self, view: int, scale: int) -> Cameras:
        """The camera of one photo at 1/scale of its size."""
        key = (view, scale)
        if key not in self._cameras:
            camera = self._capture.cameras.select([view]).to(dtype=torch.float32)
            if scale > 1:
                size = reduced_size(camera.width(), camera.height(), scale)
                camera = camera.resized(torch.tensor([size]))
            self._cameras[key] = camera
        return self._cameras[key]

    def target(self, view: int, scale: int) -> Target:
        """One photo at 1/scale of its size."""
        photo = self._capture.load(view) if scale <= 1 else self._reduced_photo(view, scale)
        rgb, alpha = photo.rgb, None
        if photo.alpha is not None:
            alpha = photo.alpha.float().div_(255)
            rgb = rgb.float().div_(255)
            if scale <= 1:
                rgb.mul_(alpha[..., None])
        weight = None if photo.mask is None else photo.mask.float().div_(255)
        return Target(rgb, alpha, weight)

    def prefetch(self, views: list[int], scale: int) -> None:
        """Begin to read the photos that are needed next, as far as they are not kept here."""
        missing = [view for view in views if scale <= 1 or (view, scale) not in self._reduced]
        if missing:
            self._capture.prefetch(missing)

    def _reduced_photo(self, view: int, scale: int) -> Photo:
        key = (view, scale)
        if key in self._reduced:
            return self._reduced[key]
        photo = reduce_photo(self._capture.load(view), scale)
        n_bytes = sum(v.numel() for v in (photo.rgb, photo.alpha, photo.mask) if v is not None)
        if n_bytes <= self._room:
            self._room -= n_bytes
            self._reduced[key] = photo
        return photo


def reduced_size(width: int, height: int, scale: int) -> tuple[int, int]:
    """Width and height at 1/scale, rounded; not below SMALLEST_SIDE where the photo itself is larger."""
    factor = max(1 / scale, min(1.0, SMALLEST_SIDE / min(width, height)))
    return max(1, round(width * factor)), max(1, round(height * factor))


def reduce_photo(photo: Photo, scale: int) -> Photo:
    """Average areas of a photo; colours of the result are premultiplied by alpha and come from used pixels only."""
    height, width = photo.rgb.shape[:2]
    size = reduced_size(width, height, scale)
    share = _share(photo)
    if share is None:
        return Photo(_box(photo.rgb, size))
    rgb = torch.stack([_box_float(photo.rgb[..., i] * share, size) for i in range(3)], dim=2)
    mask = None
    if photo.mask is not None:
        coverage = _box_float(photo.mask.float() / 255, size)
        rgb = rgb / coverage.clamp(min=1e-3)[..., None]
        mask = _bytes(coverage * 255)
    alpha = None if photo.alpha is None else _box(photo.alpha, size)
    return replace(photo, rgb=_bytes(rgb), alpha=alpha, mask=mask)


def _share(photo: Photo) -> Tensor | None:  # [H, W], weight of each pixel in an average
    parts = [value.float() / 255 for value in (photo.alpha, photo.mask) if value is not None]
    return torch.stack(parts).prod(dim=0) if parts else None


def _box(image: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(np.array(Image.fromarray(image.numpy()).resize(size, Image.Resampling.BOX)))


def _box_float(image: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(np.array(Image.fromarray(image.numpy(), mode="F").resize(size, Image.Resampling.BOX)))


def _bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
