"""Plane matching: the plane behind every pixel of a photo, such that patches look alike in other photos.

A plane is the inverse depth at its pixel and how that changes from pixel to pixel by x and by y: [3, H, W]. Planes are
taken over from neighbouring pixels and changed at random as long as patches look more alike (PatchMatch; Bleyer et al.
2011). Inverse depth 0 is no plane. Results are the same for any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.errors import BackendUnavailable
from scene3d.ops.depth_edges import nearness_of
from scene3d.ops.pinhole import pixel_rays

try:
    from scene3d import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]

N_PARTNERS = 6
# Angles between two views of a place: below the least depth is uncertain, above the largest patches look different.
LEAST_DEG, BEST_DEG, LARGEST_DEG = 3.0, 18.0, 45.0
# Inverse depths below are those of nothing.
FARTHEST = 1e-7
# Share of the white in colours that is not compared. All of it would leave nothing of white and black things.
WHITE = 0.5
# Cosine below which a plane is seen too flat for its slope to mean anything.
MIN_FACING = 0.05


@dataclass(frozen=True)
class Search:
    """How planes are looked for.

    Attributes:
        n_rounds: Times that planes of neighbours and changed ones are tried.
        spread: How far the first changed ones stray: share of the depth. Half as far in every later round.
        tilt: The same of the slope, tangent.
    """

    n_rounds: int
    spread: float
    tilt: float


class GreyPhotos:
    """Photos as the native code compares them.

    Args:
        colors: Of every photo, 0 to 1. [H, W, 3]
        cameras: Of their sizes.
        shown: Where each photo shows the scene, bool; None = everywhere. Nothing is compared with the rest. [H, W]

    Raises:
        BackendUnavailable: the native module is missing.
    """

    def __init__(self, colors: Iterable[Tensor], cameras: Cameras, shown: Sequence[Tensor | None] = ()) -> None:
        if _cpu is None:
            raise BackendUnavailable(
                "cpu", "the native module is not built", "Install with its native code: pip install ."
            )
        self._native: list[Any] = []
        for i, rgb in enumerate(colors):
            grey = (255 * less_white(rgb)).round().to(torch.uint8).contiguous()
            viewmat, K = (value[i].double().contiguous() for value in (cameras.viewmats, cameras.Ks))
            where = shown[i] if shown else None
            mask = None if where is None else where.to(torch.uint8).contiguous()
            self._native.append(_cpu.StereoPhoto(grey, K, viewmat, mask))

    def match(self, i: int, partners: list[int], planes: Tensor, search: Search) -> tuple[Tensor, Tensor]:
        """Better planes of photo i [3, H, W], and how unlike their patches are in the partners, 0 to 2 [H, W]."""
        planes = planes.to(torch.float32, copy=True).contiguous()
        costs = torch.empty(planes.shape[1:])
        others = [self._native[j] for j in partners]
        _cpu.match_planes(self._native[i], others, search.n_rounds, search.spread, search.tilt, 64 * i, planes, costs)
        return planes, costs

    def vote(self, i: int, planes: Tensor, trust: Tensor, n_rounds: int, apart: float) -> Tensor:
        """Planes of photo i made even: means of where those around pass, where they belong to one surface.

        Args:
            i: Which photo.
            planes: [3, H, W]
            trust: Weight of each plane. [H, W]
            n_rounds: The first one is of slopes alone.
            apart: Planes that pass each other farther away belong to two surfaces: share of the depth.
        """
        planes = planes.to(torch.float32, copy=True).contiguous()
        _cpu.vote_planes(self._native[i], trust.float().contiguous(), n_rounds, apart, planes)
        return planes

    def offsets(
        self, i: int, partners: list[int], planes: Tensor, nearness: Sequence[Tensor], n_offsets: int, step: float
    ) -> tuple[Tensor, Tensor]:
        """How far before a surface the partners show what photo i shows: patches are compared, as bent as it is.

        Args:
            i: Which photo.
            partners: Others that see the surface.
            planes: Of the surface. [3, H, W]
            nearness: Its inverse depth in every photo, 0 = nothing: what it hides is not compared. [H, W]
            n_offsets: Looked at; odd, 3 to 9.
            step: How far apart they are along the normal, pixels.

        Returns:
            Offsets, pixels along the normal, towards the camera [H, W], and their trust: how much likeness bends over a
            pixel, times how large it is, 0 to 0.7 [H, W].
        """
        offsets, trust = torch.empty(planes.shape[1:]), torch.empty(planes.shape[1:])
        others, near = [self._native[j] for j in partners], [nearness[j].float().contiguous() for j in partners]
        _cpu.vote_offsets(self._native[i], others, near, n_offsets, step, planes.float().contiguous(), offsets, trust)
        return offsets, trust


def less_white(colors: Tensor) -> Tensor:
    """Brightness, 0 to 1, with half of what is white in it left out: what surfaces mirror is whiter than they are.

    Args:
        colors: 0 to 1. [H, W, 3]

    Returns:
        [H, W].
    """
    # 1.5 takes yellow to 1.
    return 1.5 * (colors.mean(dim=-1) - WHITE * colors.amin(dim=-1))


def partner_views(cameras: Cameras, depths: Tensor) -> list[list[int]]:
    """For every view the others that see what it sees from well different places, best first, N_PARTNERS at most.

    Args:
        cameras: The views.
        depths: How far away each view looks, scene units. [C]
    """
    centers = cameras.centers().double()
    table = []
    for i in range(len(cameras)):
        middle = centers[i] + depths[i] * cameras.viewmats[i, 2, :3].double()
        sights = torch.nn.functional.normalize(centers - middle, dim=1)
        angles = torch.rad2deg((sights @ sights[i]).clamp(-1, 1).acos())
        cost = (angles - BEST_DEG).abs()
        cost[(angles < LEAST_DEG) | (angles > LARGEST_DEG)] = torch.inf
        cost[i] = torch.inf
        order = cost.argsort()[:N_PARTNERS]
        table.append([int(k) for k in order if cost[k] < torch.inf])
    return table


def depth_of(planes: Tensor) -> Tensor:
    """z at every pixel, 0 where there is no plane. [H, W]"""
    return torch.where(planes[0] > FARTHEST, 1 / planes[0].clamp_min(FARTHEST), 0.0)


def planes_of(depth: Tensor, normals: Tensor, camera: Cameras) -> Tensor:
    """The planes through places of a view.

    Args:
        depth: z, 0 = unknown. [H, W]
        normals: Unit, world; 0 where unknown, for planes that face the camera. [H, W, 3]
        camera: The view.
    """
    K = camera.Ks[0].to(depth.dtype)
    in_cam = normals @ camera.viewmats[0, :3, :3].T.to(depth.dtype)
    x, y = pixel_rays(camera, depth)
    # 1 / z = (nx X + ny Y + nz) / (z n . ray) along the ray (X, Y, 1).
    facing = in_cam[..., 0] * x + in_cam[..., 1] * y + in_cam[..., 2]
    inverse = nearness_of(depth)
    per_distance = torch.where(facing.abs() > MIN_FACING, inverse / facing, 0.0)
    return torch.stack([inverse, in_cam[..., 0] * per_distance / K[0, 0], in_cam[..., 1] * per_distance / K[1, 1]])


def plane_normals(planes: Tensor, camera: Cameras) -> Tensor:
    """Unit normals of planes, world, facing the camera. [H, W, 3]"""
    K = camera.Ks[0].to(planes.dtype)
    height, width = planes.shape[1:]
    x = torch.arange(width) + 0.5 - K[0, 2]
    y = (torch.arange(height) + 0.5 - K[1, 2])[:, None]
    # 1 = z (a + b X + c Y) in space: the plane's normal is (b, c, a), pointing away from the camera.
    away = torch.stack([planes[1] * K[0, 0], planes[2] * K[1, 1], planes[0] - planes[1] * x - planes[2] * y], dim=-1)
    return -torch.nn.functional.normalize(away, dim=-1, eps=1e-20) @ camera.viewmats[0, :3, :3].to(planes.dtype)


def enlarged(planes: Tensor, width: int, height: int) -> Tensor:
    """Planes of a smaller image in a larger one. [3, h, w] -> [3, H, W]"""
    rows, columns = planes.shape[1:]
    x = ((torch.arange(width) + 0.5) * columns / width).clamp_max(columns - 1e-3)
    y = ((torch.arange(height) + 0.5) * rows / height).clamp_max(rows - 1e-3)
    near = planes[:, y.long()][:, :, x.long()]
    dx, dy = x - x.long() - 0.5, (y - y.long() - 0.5)[:, None]
    inverse = torch.where(near[0] > 0, (near[0] + near[1] * dx + near[2] * dy).clamp_min(0), 0.0)
    return torch.stack([inverse, near[1] * columns / width, near[2] * rows / height])
