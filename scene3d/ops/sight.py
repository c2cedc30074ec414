"""Sight: which views really see what a view sees, unoccluded and from well different places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.ops.agreement import neighbor_views
from scene3d.ops.pinhole import from_pixels, in_image, to_pixels
from scene3d.ops.plane_match import BEST_DEG, LARGEST_DEG, LEAST_DEG

# About so many places along the longer side of a view are looked at.
N_PLACES = 80
# Views that are looked at for each one, the nearest.
N_CANDIDATES = 40
# Deviation of the angle between two views of a place from the best one at which such a view is worth 0.6.
SPREAD_DEG = 10.0
# A place farther than what a view sees there by more than this share of its distance is hidden.
HIDDEN = 0.01
# Cosine of the angle of sight below which a view says nothing, and from which on it says all.
LEAST_COSINE, ENOUGH_COSINE = 0.1, 0.5


@dataclass(frozen=True)
class Sights:
    """How much other views say of places of one view.

    Attributes:
        views: The other views, the nearest first. [V] int64
        worth: Of each place in each of them, 0 = not seen, 1 = seen straight and from a good angle. [V, P] float64
    """

    views: Tensor
    worth: Tensor

    def picked(self, n: int, enough: float) -> list[int]:
        """At most n views that together say most, the best first; a place needs no more than worth `enough`."""
        total = torch.zeros_like(self.worth[:1])
        picked: list[int] = []
        for _ in range(min(n, len(self.views))):
            gain = ((total + self.worth).clamp_max(enough) - total.clamp_max(enough)).sum(dim=1)
            gain[picked] = 0
            best = int(gain.argmax())
            if not float(gain[best]) > 0:
                break
            picked.append(best)
            total = total + self.worth[best]
        return self.views[picked].tolist()


def sights_of(depths: Sequence[Tensor], normals: Tensor, cameras: Cameras, i: int) -> Sights:
    """What other views say of the places that view i sees.

    Args:
        depths: z of the surface in every view, 0 = nothing. [H, W]
        normals: Unit, world, of view i. [H, W, 3]
        cameras: The views.
        i: Which one.
    """
    depth = depths[i]
    step = max(1, max(depth.shape) // N_PLACES)
    is_place = torch.zeros_like(depth, dtype=torch.bool)
    is_place[step // 2 :: step, step // 2 :: step] = True
    rows, columns = (is_place & (depth > 0)).nonzero(as_tuple=True)
    points = from_pixels(columns, rows, depth[rows, columns].double(), cameras.viewmats[i], cameras.Ks[i])
    centers = cameras.centers().double()
    from_here = torch.nn.functional.normalize(centers[i] - points, dim=1)
    facing = normals[rows, columns].double()
    views = neighbor_views(cameras, N_CANDIDATES)[i]
    worth = torch.zeros(len(views), len(points), dtype=torch.float64)
    for k, j in enumerate(views.tolist()):
        sight = torch.nn.functional.normalize(centers[j] - points, dim=1)
        angle = torch.rad2deg((sight * from_here).sum(dim=1).clamp(-1, 1).acos())
        cosine = (sight * facing).sum(dim=1).abs()
        good = torch.exp(-0.5 * ((angle - BEST_DEG) / SPREAD_DEG).square()) * (cosine / ENOUGH_COSINE).clamp_max(1)
        says = (angle >= LEAST_DEG) & (angle <= LARGEST_DEG) & (cosine >= LEAST_COSINE)
        worth[k] = torch.where(says & _seen(points, depths[j], cameras, j), good, 0.0)
    return Sights(views, worth)


def _seen(points: Tensor, depth: Tensor, cameras: Cameras, j: int) -> Tensor:  # [P, 3] -> [P] bool
    height, width = depth.shape
    pixels, z = to_pixels(points, cameras.viewmats[j], cameras.Ks[j])
    columns, rows = pixels[:, 0].long().clamp(0, width - 1), pixels[:, 1].long().clamp(0, height - 1)
    there = depth[rows, columns].double()
    return in_image(pixels, z, width, height) & (there > 0) & (z <= (1 + HIDDEN) * there)
