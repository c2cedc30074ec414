"""Stereo: depth and normal of every pixel of the training photos, before anything is fitted.

Each photo is compared with a few others that see the same from elsewhere: planes are guessed, taken over from
neighbouring pixels and changed at random as long as patches look more alike (PatchMatch; Bleyer et al. 2011), first in
photos of half the size, then in whole ones. What other photos do not confirm is not trusted.
Every result is the same for the same capture and points: a resumed fit finds it anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture
from scene3d.ops.agreement import ask_views
from scene3d.ops.depth_edges import near_edges, near_thin, without_specks
from scene3d.ops.pinhole import in_image, to_pixels
from scene3d.ops.plane_match import (
    GreyPhotos,
    Search,
    depth_of,
    enlarged,
    partner_views,
    plane_normals,
)
from scene3d.recon.photos import PhotoStore

# Longer side of the photos that are compared at most, pixels.
MAX_SIDE = 800
COARSE = Search(10, 0.1, 1.0)
FINE = Search(4, 0.005, 0.15)
# First guesses are those of the nearest point in a cell of so many pixels.
GUESS_CELL = 8
TOLERANCE = 0.005
MIN_AGREE = 2
MIN_ALPHA = 0.5
# Edges of depth so near to thin things, pixels, are not trusted.
NEAR_THIN = 4


@dataclass(frozen=True)
class StereoView:
    """What stereo knows of one photo.

    Attributes:
        camera: Of the size of the images.
        depth: z in the camera, 0 = unknown. [H, W] float32
        normals: World, facing the camera. [H, W, 3] float16
        trust: 0 to 1, 0 where depth is unknown or not confirmed. [H, W] float16
    """

    camera: Cameras
    depth: Tensor
    normals: Tensor
    trust: Tensor


def match_views(capture: Capture, points: Tensor, on_view: Callable[[], None] = lambda: None) -> dict[int, StereoView]:
    """Depth and normals of all training photos, by their number in the capture.

    Args:
        capture: Photos and cameras.
        points: Rough places of surfaces, world: first guesses. [P, 3]
        on_view: Called twice for every photo.

    Raises:
        BackendUnavailable: the native module is missing.
    """
    train = list(capture.train)
    cameras = capture.cameras.select(train)
    longest = int(cameras.sizes.max())
    scale = math.ceil(longest / MAX_SIDE)
    partners = partner_views(cameras, typical_depths(cameras, points))
    coarse, fine = _Photos(capture, 2 * scale), _Photos(capture, scale)
    planes: list[Tensor] = []
    for i in range(len(train)):
        guess = first_guess(points, coarse.cameras[i])
        flat = torch.stack([guess, torch.zeros_like(guess), torch.zeros_like(guess)])
        planes.append(coarse.grey.match(i, partners[i], flat, COARSE)[0])
        on_view()
    costs, depths = [], []
    for i in range(len(train)):
        camera = fine.cameras[i]
        start = enlarged(planes[i], camera.width(), camera.height())
        planes[i], cost = fine.grey.match(i, partners[i], start, FINE)
        shown = fine.shown[i]
        depth = depth_of(planes[i])
        depths.append(depth if shown is None else torch.where(shown, depth, 0.0))
        costs.append(cost)
        on_view()
    return {train[i]: _judged(fine, i, partners[i], planes[i], costs[i], depths) for i in range(len(train))}


def _judged(
    photos: _Photos, i: int, partners: list[int], planes: Tensor, cost: Tensor, depths: list[Tensor]
) -> StereoView:
    agree, against = ask_views(depths, photos.all_cameras(), i, partners, TOLERANCE)
    confirmed = (agree >= min(MIN_AGREE, max(len(partners), 1))) & (agree > against)
    # Patches near edges of depth show two surfaces. Thin things that are drawn to the wrong one cost 0.5 dB.
    depth = without_specks(depths[i])
    confirmed &= ~(near_edges(depth) & near_thin(depth, NEAR_THIN))
    # Patches without texture are unlike each other even where they are right.
    trust = torch.where(confirmed, (1 - cost).clamp(0.1, 1.0), 0.0)
    normals = plane_normals(planes, photos.cameras[i])
    return StereoView(photos.cameras[i], depths[i], normals.half(), trust.half())


def typical_depths(cameras: Cameras, points: Tensor) -> Tensor:
    """Median depth of the points that each view sees, 1 where there are none. [C] float64"""
    found = []
    for i in range(len(cameras)):
        _, z, seen = _seen(points, cameras.select([i]))
        found.append(z[seen].median() if bool(seen.any()) else torch.tensor(1.0, dtype=torch.float64))
    return torch.stack(found)


def first_guess(points: Tensor, camera: Cameras) -> Tensor:
    """Inverse depth of the nearest point in each cell of an image, spread over empty cells around. [H, W]"""
    pixels, z, seen = _seen(points, camera)
    rows, columns = -(-camera.height() // GUESS_CELL), -(-camera.width() // GUESS_CELL)
    cells = (pixels[seen] / GUESS_CELL).long()
    grid = torch.zeros(rows * columns, dtype=torch.float64)
    grid = grid.scatter_reduce(0, cells[:, 1] * columns + cells[:, 0], 1 / z[seen], "amax").reshape(1, 1, rows, columns)
    while bool((grid > 0).any()) and not bool((grid > 0).all()):
        total, known = (torch.nn.functional.avg_pool2d(v, 3, 1, 1) for v in (grid, (grid > 0).double()))
        grid = torch.where(grid > 0, grid, torch.where(known > 0, total / known.clamp_min(1e-9), 0.0))
    guess = grid[0, 0].repeat_interleave(GUESS_CELL, 0).repeat_interleave(GUESS_CELL, 1)
    return guess[: camera.height(), : camera.width()].float().contiguous()


def _seen(points: Tensor, camera: Cameras) -> tuple[Tensor, Tensor, Tensor]:  # [P, 2], [P], [P] bool
    pixels, z = to_pixels(points.double(), camera.viewmats[0], camera.Ks[0])
    return pixels, z, in_image(pixels, z, camera.width(), camera.height()) & (z > 1e-3 * z.abs().median())


class _Photos:
    """The training photos at 1/scale."""

    def __init__(self, capture: Capture, scale: int) -> None:
        self._store, self._scale, self._train = PhotoStore(capture), scale, list(capture.train)
        self.cameras = [self._store.camera(view, scale) for view in self._train]
        self.shown = [self._shown(view) for view in self._train]
        colors = (self._store.target(view, scale).colors() for view in self._train)
        self.grey = GreyPhotos(colors, self.all_cameras(), self.shown)

    def _shown(self, view: int) -> Tensor | None:  # [H, W] bool, None = everywhere
        target = self._store.target(view, self._scale)
        parts = [value > MIN_ALPHA for value in (target.alpha, target.weight) if value is not None]
        return torch.stack(parts).all(dim=0) if parts else None

    def all_cameras(self) -> Cameras:
        viewmats, Ks, sizes = (
            torch.cat([getattr(camera, name) for camera in self.cameras]) for name in ("viewmats", "Ks", "sizes")
        )
        return Cameras(viewmats, Ks, sizes)
