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
from typing import Any

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture
from scene3d.core.errors import BackendUnavailable
from scene3d.ops.agreement import ask_views
from scene3d.recon.photos import PhotoStore

try:
    from scene3d import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]

# Longer side of the photos that are compared at most, pixels.
MAX_SIDE = 800
N_PARTNERS = 6
# Angles between two views of a place: below the least depth is uncertain, above the largest patches look different.
LEAST_DEG, BEST_DEG, LARGEST_DEG = 3.0, 18.0, 45.0
# Rounds, and how far the first one strays: share of the depth, tangent of the slope.
COARSE = (10, 0.1, 1.0)
FINE = (4, 0.005, 0.15)
# First guesses are those of the nearest point in a cell of so many pixels.
GUESS_CELL = 8
TOLERANCE = 0.005
MIN_AGREE = 2
MIN_ALPHA = 0.5
# Inverse depths below are those of nothing.
FARTHEST = 1e-7


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
    if _cpu is None:
        raise BackendUnavailable("cpu", "the native module is not built", "Install with its native code: pip install .")
    train = list(capture.train)
    cameras = capture.cameras.select(train)
    longest = int(cameras.sizes.max())
    scale = math.ceil(longest / MAX_SIDE)
    partners = partner_views(cameras, points)
    coarse, fine = _Photos(capture, 2 * scale), _Photos(capture, scale)
    planes: list[Tensor] = []
    for i in range(len(train)):
        guess = first_guess(points, coarse.cameras[i])
        flat = torch.stack([guess, torch.zeros_like(guess), torch.zeros_like(guess)])
        planes.append(_match(coarse, i, partners[i], flat, COARSE)[0])
        on_view()
    costs, depths = [], []
    for i in range(len(train)):
        camera = fine.cameras[i]
        planes[i], cost = _match(fine, i, partners[i], enlarged(planes[i], camera.width(), camera.height()), FINE)
        known = (planes[i][0] > FARTHEST) & fine.opaque(i)
        depths.append(torch.where(known, 1 / planes[i][0].clamp_min(FARTHEST), 0.0))
        costs.append(cost)
        on_view()
    return {train[i]: _judged(fine, i, partners[i], planes[i], costs[i], depths) for i in range(len(train))}


def _judged(
    photos: _Photos, i: int, partners: list[int], planes: Tensor, cost: Tensor, depths: list[Tensor]
) -> StereoView:
    agree, against = ask_views(depths, photos.all_cameras(), i, partners, TOLERANCE)
    confirmed = (agree >= min(MIN_AGREE, max(len(partners), 1))) & (agree > against)
    # Patches without texture are unlike each other even where they are right.
    trust = torch.where(confirmed, (1 - cost).clamp(0.1, 1.0), 0.0)
    normals = plane_normals(planes, photos.cameras[i])
    return StereoView(photos.cameras[i], depths[i], normals.half(), trust.half())


def partner_views(cameras: Cameras, points: Tensor) -> list[list[int]]:
    """For every view the others that see what it sees from well different places, best first, N_PARTNERS at most."""
    centers = cameras.centers().double()
    table = []
    for i in range(len(cameras)):
        middle = _middle(cameras, i, points)
        sights = torch.nn.functional.normalize(centers - middle, dim=1)
        angles = torch.rad2deg((sights @ sights[i]).clamp(-1, 1).acos())
        cost = (angles - BEST_DEG).abs()
        cost[(angles < LEAST_DEG) | (angles > LARGEST_DEG)] = torch.inf
        cost[i] = torch.inf
        order = cost.argsort()[:N_PARTNERS]
        table.append([int(k) for k in order if cost[k] < torch.inf])
    return table


def _middle(cameras: Cameras, i: int, points: Tensor) -> Tensor:
    """The place in the middle of a view, as far away as the points that it sees. [3] float64"""
    _, z, seen = _projected(points, cameras.select([i]))
    depth = z[seen].median() if bool(seen.any()) else torch.tensor(1.0, dtype=torch.float64)
    return cameras.centers()[i].double() + depth * cameras.viewmats[i, 2, :3].double()


def first_guess(points: Tensor, camera: Cameras) -> Tensor:
    """Inverse depth of the nearest point in each cell of an image, spread over empty cells around. [H, W]"""
    pixels, z, seen = _projected(points, camera)
    rows, columns = -(-camera.height() // GUESS_CELL), -(-camera.width() // GUESS_CELL)
    cells = (pixels[seen] / GUESS_CELL).long()
    grid = torch.zeros(rows * columns, dtype=torch.float64)
    grid = grid.scatter_reduce(0, cells[:, 1] * columns + cells[:, 0], 1 / z[seen], "amax").reshape(1, 1, rows, columns)
    while bool((grid > 0).any()) and not bool((grid > 0).all()):
        total, known = (torch.nn.functional.avg_pool2d(v, 3, 1, 1) for v in (grid, (grid > 0).double()))
        grid = torch.where(grid > 0, grid, torch.where(known > 0, total / known.clamp_min(1e-9), 0.0))
    guess = grid[0, 0].repeat_interleave(GUESS_CELL, 0).repeat_interleave(GUESS_CELL, 1)
    return guess[: camera.height(), : camera.width()].float().contiguous()


def enlarged(planes: Tensor, width: int, height: int) -> Tensor:
    """Planes of a smaller image in a larger one. [3, h, w] -> [3, H, W]"""
    rows, columns = planes.shape[1:]
    x = ((torch.arange(width) + 0.5) * columns / width).clamp_max(columns - 1e-3)
    y = ((torch.arange(height) + 0.5) * rows / height).clamp_max(rows - 1e-3)
    near = planes[:, y.long()][:, :, x.long()]
    dx, dy = x - x.long() - 0.5, (y - y.long() - 0.5)[:, None]
    inverse = torch.where(near[0] > 0, (near[0] + near[1] * dx + near[2] * dy).clamp_min(0), 0.0)
    return torch.stack([inverse, near[1] * columns / width, near[2] * rows / height])


def plane_normals(planes: Tensor, camera: Cameras) -> Tensor:
    """Unit normals of planes (inverse depth and its steps by x and y), world, facing the camera. [H, W, 3]"""
    K = camera.Ks[0].to(planes.dtype)
    height, width = planes.shape[1:]
    x = torch.arange(width) + 0.5 - K[0, 2]
    y = (torch.arange(height) + 0.5 - K[1, 2])[:, None]
    # 1 = z (a + b X + c Y) in space: the plane's normal is (b, c, a), pointing away from the camera.
    away = torch.stack([planes[1] * K[0, 0], planes[2] * K[1, 1], planes[0] - planes[1] * x - planes[2] * y], dim=-1)
    return -torch.nn.functional.normalize(away, dim=-1, eps=1e-20) @ camera.viewmats[0, :3, :3].to(planes.dtype)


def _projected(points: Tensor, camera: Cameras) -> tuple[Tensor, Tensor, Tensor]:  # [P, 2], [P], [P] bool
    viewmat, K = camera.viewmats[0].double(), camera.Ks[0].double()
    in_cam = points.double() @ viewmat[:3, :3].T + viewmat[:3, 3]
    z = in_cam[:, 2]
    pixels = in_cam[:, :2] / z.clamp_min(1e-6)[:, None] * K[[0, 1], [0, 1]] + K[:2, 2]
    size = torch.tensor([camera.width(), camera.height()])
    return pixels, z, (z > 1e-3 * z.abs().median()) & ((pixels >= 0) & (pixels < size)).all(dim=1)


def _match(
    photos: _Photos, i: int, partners: list[int], planes: Tensor, how: tuple[int, float, float]
) -> tuple[Tensor, Tensor]:
    planes = planes.float().contiguous()
    costs = torch.empty(planes.shape[1:])
    _cpu.match_planes(photos.native[i], [photos.native[j] for j in partners], *how, 64 * i, planes, costs)
    return planes, costs


class _Photos:
    """The training photos at 1/scale, grey, as the native code takes them."""

    def __init__(self, capture: Capture, scale: int) -> None:
        store = PhotoStore(capture)
        self._store, self._scale, self._train = store, scale, list(capture.train)
        self.cameras = [store.camera(view, scale) for view in self._train]
        self.native: list[Any] = []
        for view, camera in zip(self._train, self.cameras, strict=True):
            grey = (255 * store.target(view, scale).colors().mean(dim=-1)).round().to(torch.uint8).contiguous()
            viewmat, K = (value[0].double().contiguous() for value in (camera.viewmats, camera.Ks))
            self.native.append(_cpu.StereoPhoto(grey, K, viewmat))

    def opaque(self, i: int) -> Tensor:  # [H, W] bool
        target = self._store.target(self._train[i], self._scale)
        shown = torch.ones(target.rgb.shape[:2], dtype=torch.bool)
        for value in (target.alpha, target.weight):
            shown = shown if value is None else shown & (value > MIN_ALPHA)
        return shown

    def all_cameras(self) -> Cameras:
        viewmats, Ks, sizes = (
            torch.cat([getattr(camera, name) for camera in self.cameras]) for name in ("viewmats", "Ks", "sizes")
        )
        return Cameras(viewmats, Ks, sizes)
