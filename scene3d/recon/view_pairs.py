"""View pairs: do the surfaces of two views agree, and do the photos look alike along them?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.ops.pinhole import to_pixels
from scene3d.render.planes import Planes, rays_of

# Pixels whose way there and back misses by more are hidden in the other view, or simply wrong.
MAX_MISS = 1.0
# Half side of a patch, pixels: 7x7.
PATCH = 3
# Patches that look less alike say that something else is between.
MAX_UNLIKE = 0.9
# Neighbours see a point under an angle that shows its depth, and still the same side of it.
MAX_ANGLE_DEG = 40.0
EPS = 1e-8


@dataclass(frozen=True)
class PairLosses:
    """Two terms, both 0 where nothing can be compared.

    Attributes:
        geometry: Mean miss of the way there and back, pixels, weighted by exp(-miss).
        photos: Mean of 1 - squared normalised cross-correlation, weighted the same.
    """

    geometry: Tensor
    photos: Tensor


def neighbor_table(cameras: Cameras, views: Sequence[int], n: int) -> dict[int, list[int]]:
    """The nearest views that look the same way, for every view."""
    centers, forwards = cameras.centers().double(), cameras.viewmats[:, 2, :3].double()
    table = {}
    for view in views:
        others = torch.tensor([other for other in views if other != view], dtype=torch.long)
        cosines = forwards[others] @ forwards[view]
        near = others[cosines > math.cos(math.radians(MAX_ANGLE_DEG))]
        order = (centers[near] - centers[view]).norm(dim=1).argsort()
        table[view] = near[order][:n].tolist()
    return table


def pair_losses(
    planes: Planes,
    camera: Cameras,
    grey: Tensor,
    other_depth: Tensor,
    other: Cameras,
    other_grey: Tensor,
    n_pixels: int,
    generator: torch.Generator,
) -> PairLosses:
    """Compare one view with another.

    Args:
        planes: Of the view.
        camera: The view.
        grey: Its photo. [H, W]
        other_depth: Depth of the other view, 0 = unknown. [H, W]
        other: The other view.
        other_grey: Its photo. [H, W]
        n_pixels: How many pixels, drawn at random.
        generator: Draws them.

    Differentiable in planes. Chen et al. 2024, equations 9 to 14.
    """
    height, width = planes.depth.shape
    device, margin = planes.depth.device, PATCH + 1
    camera, other = camera.to(device), other.to(device)
    y = torch.randint(margin, max(height - margin, margin + 1), (n_pixels,), generator=generator).clamp_max(height - 1)
    x = torch.randint(margin, max(width - margin, margin + 1), (n_pixels,), generator=generator).clamp_max(width - 1)
    x, y = x.to(device), y.to(device)
    known = planes.depth[y, x].detach() > 0
    y, x = y[known], x[known]
    rays = rays_of(camera, planes.depth)
    points = camera.centers()[0] + rays[y, x] * planes.depth[y, x, None]
    miss = _miss(points, x, y, camera, other_depth, other)
    weight = torch.where(miss.detach() < MAX_MISS, torch.exp(-miss.detach()), 0.0)
    count = max(len(miss), 1)
    geometry = (weight * torch.where(weight > 0, miss, 0.0)).sum() / count
    use = weight > 0
    unlike = _unlikeness(planes, rays, (x[use], y[use]), camera, grey, other, other_grey)
    kept = torch.where(unlike.detach() < MAX_UNLIKE, weight[use], 0.0)
    return PairLosses(geometry, (kept * unlike).sum() / count)


def _miss(points: Tensor, x: Tensor, y: Tensor, camera: Cameras, other_depth: Tensor, other: Cameras) -> Tensor:  # [P]
    """Pixels between where a ray starts and where it ends: to the other view, to its surface, and back."""
    there, z = to_pixels(points, other.viewmats[0], other.Ks[0])
    depth, inside = _bilinear(other_depth, there)
    K, rotation = other.Ks[0], other.viewmats[0, :3, :3]
    in_cam = torch.cat([(there - K[:2, 2]) / K[[0, 1], [0, 1]], torch.ones_like(there[:, :1])], dim=1)
    surface = other.centers()[0] + (in_cam @ rotation) * depth[:, None]
    back, z_back = to_pixels(surface, camera.viewmats[0], camera.Ks[0])
    start = torch.stack([x, y], dim=1) + 0.5
    sound = inside & (z > 0) & (z_back > 0) & (depth > 0)
    gap = torch.where(sound[:, None], back - start, 1e3)
    return (gap.square().sum(dim=1) + EPS).sqrt()


def _unlikeness(
    planes: Planes,
    rays: Tensor,
    pixels: tuple[Tensor, Tensor],
    camera: Cameras,
    grey: Tensor,
    other: Cameras,
    other_grey: Tensor,
) -> Tensor:  # [P]
    """1 - ncc^2 of patches, the other one looked up along the plane of the pixel."""
    x, y = pixels
    steps = torch.arange(-PATCH, PATCH + 1, device=x.device)
    dy, dx = (d.reshape(1, -1) for d in torch.meshgrid(steps, steps, indexing="ij"))
    py, px = (y[:, None] + dy).clamp(0, grey.shape[0] - 1), (x[:, None] + dx).clamp(0, grey.shape[1] - 1)
    normals = planes.normals[y, x]
    offset = (normals * rays[y, x]).sum(dim=1) * planes.depth[y, x]
    facing = (normals[:, None] * rays[py, px]).sum(dim=-1)
    facing = torch.where(facing.abs() > 1e-3, facing, -1e-3)
    depth = offset[:, None] / facing
    points = camera.centers()[0] + rays[py, px] * depth[..., None]
    there, z = to_pixels(points.reshape(-1, 3), other.viewmats[0], other.Ks[0])
    values, inside = _bilinear(other_grey, there)
    shape = px.shape
    sound = (inside & (z > 0)).reshape(shape).all(dim=1)
    a, b = grey[py, px], values.reshape(shape)
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    ncc2 = (a * b).sum(dim=1).square() / (a.square().sum(dim=1) * b.square().sum(dim=1) + EPS)
    return torch.where(sound, 1 - ncc2, 1.0)


def _bilinear(image: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:  # [H, W], [P, 2] -> [P], [P] bool
    """Values between pixel centres, and where all four pixels around are inside. Differentiable in pixels."""
    height, width = image.shape
    place = pixels - 0.5
    corner = place.detach().nan_to_num(-1.0).clamp(-1, max(height, width)).floor()
    inside = (corner >= 0).all(dim=1) & (corner[:, 0] < width - 1) & (corner[:, 1] < height - 1)
    x, y = corner[:, 0].clamp(0, width - 2).long(), corner[:, 1].clamp(0, height - 2).long()
    fx, fy = place[:, 0] - x, place[:, 1] - y
    flat = image.reshape(-1)
    at = y * width + x
    top = flat[at] * (1 - fx) + flat[at + 1] * fx
    bottom = flat[at + width] * (1 - fx) + flat[at + width + 1] * fx
    return torch.where(inside, top * (1 - fy) + bottom * fy, 0.0), inside
