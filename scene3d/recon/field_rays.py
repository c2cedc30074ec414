"""The pixels of all training photos, to draw random rays from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture
from scene3d.core.errors import CaptureError
from scene3d.ops import cuda_call
from scene3d.ops.rays import camera_rays
from scene3d.recon.device_photos import SHARE
from scene3d.recon.photos import on_device
from scene3d.render.field_cpu import NativeField
from scene3d.render.field_cuda import CudaField

RAYS_AT_ONCE = 1 << 18
_CPU = torch.device("cpu")
# Pixels of all photos; more would not fit beside the field: 4 bytes each, and 4 for their numbers.
MAX_PIXELS = 400_000_000


@dataclass(frozen=True)
class RayBatch:
    """Rays with what the photos show.

    Attributes:
        origins: [R, 3]
        directions: Unit vectors. [R, 3]
        colors: sRGB 0 to 1, premultiplied by alpha. [R, 3]
        alpha: [R], None where photos have none.
        weight: 0 to 1, None where every pixel counts. [R]
        distance: Along the ray to what depth maps show, scene units, 0 where they do not; None without maps. [R]
    """

    origins: Tensor
    directions: Tensor
    colors: Tensor
    alpha: Tensor | None
    weight: Tensor | None
    distance: Tensor | None = None


class RayPool:
    """All training pixels as bytes: on the device of the fit while they take a share of it, else in the memory of the
    host, from where each batch goes over.

    Args:
        capture: Whose training photos are read here, once.
        device: Where batches are wanted.
    """

    def __init__(self, capture: Capture, device: torch.device = _CPU) -> None:
        cameras = capture.cameras.select(capture.train)
        self._device = device
        self.cameras: Cameras = cameras.to(device, torch.float32)
        counts = cameras.sizes.prod(dim=1)
        if int(counts.sum()) > MAX_PIXELS:
            remedy = "Reduce photos: --data-factor or --max-size"
            raise CaptureError(capture.source, f"more than {MAX_PIXELS:,} training pixels", remedy)
        self._starts = torch.cat([counts.new_zeros(1), counts.cumsum(dim=0)])
        n = int(self._starts[-1])
        self._rgb = torch.empty(n, 3, dtype=torch.uint8)
        self._alpha = torch.empty(n, dtype=torch.uint8) if capture.has_alpha else None
        self._mask: Tensor | None = None
        self._depth: Tensor | None = None
        # Pixels that masks leave, and those of them that are drawn; None = all.
        self._used: Tensor | None = None
        self._read(capture)
        if self._alpha is not None and not bool((self._alpha > 0).any()):
            raise CaptureError(capture.source, "all training photos are transparent everywhere", "Check their alpha")
        if self._mask is not None:
            self._used = self._mask.nonzero()[:, 0].int()
            if len(self._used) == 0:
                raise CaptureError(capture.source, "the masks leave no pixel to fit to", "White means keep")
        self._widths = cameras.sizes[:, 0]
        self._settle()
        self._kept: Tensor | None = self._used

    def _settle(self) -> None:
        """Move all tables to where they stay."""
        tables = (self._rgb, self._alpha, self._mask, self._used)
        n_bytes = sum(value.nbytes for value in tables if value is not None)
        is_there = self._device.type != "cpu" and n_bytes <= SHARE * cuda_call.available_bytes(self._device)
        self._home = self._device if is_there else _CPU
        self._rgb, self._starts = self._rgb.to(self._home), self._starts.to(self._home)
        self._widths = self._widths.to(self._home)
        moved = (None if value is None else value.to(self._home) for value in tables[1:])
        self._alpha, self._mask, self._used = moved

    def __len__(self) -> int:
        """Pixels to draw from."""
        return int(self._starts[-1]) if self._kept is None else len(self._kept)

    def draw(self, n: int, generator: torch.Generator) -> RayBatch:
        """n random pixels."""
        index = on_device(torch.randint(len(self), (n,), generator=generator), self._home)
        if self._kept is not None:
            index = self._kept[index].long()
        origins, directions = self._rays(index)
        alpha = None if self._alpha is None else self._alpha[index].float() / 255
        colors = self._rgb[index].float() / 255
        if alpha is not None:
            colors = colors * alpha[:, None]
        weight = None if self._mask is None else self._mask[index].float() / 255
        alpha, weight = (None if value is None else on_device(value, self._device) for value in (alpha, weight))
        distance = self._distances(index.cpu(), directions)
        return RayBatch(origins, directions, on_device(colors, self._device), alpha, weight, distance)

    def keep_hits(self, native: NativeField | CudaField) -> None:
        """From now on, draw only pixels whose rays meet an occupied cell; all where none does."""
        parts, n = [], int(self._starts[-1]) if self._used is None else len(self._used)
        for start in range(0, n, RAYS_AT_ONCE):
            stop = min(start + RAYS_AT_ONCE, n)
            index = (
                torch.arange(start, stop, device=self._home) if self._used is None else self._used[start:stop].long()
            )
            parts.append(index[native.hits(*self._rays(index)).to(self._home)].int())
        kept = torch.cat(parts)
        self._kept = kept if len(kept) else self._used

    def seen_cells(self, native: NativeField, shape: tuple[int, int, int], n: int, least: float) -> Tensor:
        """Cells of the box that about n rays, evenly over all pixels, give more weight than `least`. [Z, Y, X] bool"""
        n_all = int(self._starts[-1]) if self._used is None else len(self._used)
        cells = torch.zeros(shape, dtype=torch.uint8)
        # No divisor of the width: strides must not fall on the same columns.
        every = max(1, n_all // n) | 1
        picked = torch.arange(0, n_all, every)
        for part in (picked if self._used is None else self._used[picked].long()).split(RAYS_AT_ONCE):
            native.seen_cells(*self._rays(part), least, cells)
        return cells.bool()

    def _distances(self, index: Tensor, directions: Tensor) -> Tensor | None:
        """Depth along the optical axis becomes distance along the ray."""
        if self._depth is None:
            return None
        view = on_device(torch.searchsorted(self._starts.cpu(), index, right=True) - 1, self._device)
        ahead = (directions * self.cameras.viewmats[view, 2, :3]).sum(dim=1)
        return on_device(self._depth[index], self._device) / ahead.clamp_min(1e-6)

    def _rays(self, index: Tensor) -> tuple[Tensor, Tensor]:
        view = torch.searchsorted(self._starts, index, right=True) - 1
        place = index - self._starts[view]
        width = self._widths[view]
        rows = place // width
        pixels = torch.stack([view, place - rows * width, rows])
        return camera_rays(self.cameras, *on_device(pixels, self._device).unbind())

    def _read(self, capture: Capture) -> None:
        for i, view in enumerate(capture.train):
            capture.prefetch(capture.train[i + 1 : i + 4])
            photo = capture.load(view)
            pixels = slice(int(self._starts[i]), int(self._starts[i + 1]))
            self._rgb[pixels] = photo.rgb.reshape(-1, 3)
            if self._alpha is not None:
                self._alpha[pixels] = 255 if photo.alpha is None else photo.alpha.reshape(-1)
            depth = capture.load_depth(view)
            if depth is not None:
                if self._depth is None:
                    self._depth = torch.zeros(len(self._rgb))
                self._depth[pixels] = depth.reshape(-1)
            if photo.mask is not None:
                if self._mask is None:
                    self._mask = torch.full((len(self._rgb),), 255, dtype=torch.uint8)
                self._mask[pixels] = photo.mask.reshape(-1)
