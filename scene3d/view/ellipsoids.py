"""Gaussians as solid ellipsoids of one standard deviation: where they are, how large, how they overlap."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.ops import quaternions, sh
from scene3d.ops.covariance import from_quats_scales
from scene3d.ops.projection import project

NEAR = 0.01
# Half extents beyond this are cut: such an ellipsoid is around the camera or fills the window anyway.
MAX_EXTENT = 192.0
# Tests of a pixel against an ellipsoid in one go: what bounds the memory.
PAIRS_AT_ONCE = 1_500_000
# The rim, seen at a grazing angle, keeps this share of the colour.
RIM = 0.35
# Axes shorter than this share of the longest are lengthened: a disc without thickness has no surface to hit.
MIN_AXIS = 1e-3


def draw(gaussians: Gaussians, camera: Cameras, background: tuple[float, float, float]) -> Tensor:
    """Draw what the ray through each pixel hits first, in the colour of degree 0, lit from the camera.

    Args:
        gaussians: The scene, float32, on the CPU.
        camera: One view.
        background: sRGB.

    Returns:
        sRGB. [H, W, 3]
    """
    width, height = camera.width(), camera.height()
    K, viewmat = camera.Ks[0], camera.viewmats[0]
    rows = _in_front(gaussians, viewmat)
    centers = rows.means @ viewmat[:3, :3].T + viewmat[:3, 3]
    precisions = _precisions(rows, viewmat)
    boxes = _boxes(rows, viewmat, K, width, height)
    colors = sh.to_rgb(rows.sh0[:, 0]).clamp(0, 1)
    nearest = torch.full((height * width,), torch.inf)
    picture = torch.tensor(background).repeat(height * width, 1)
    for index, x, y in _pairs(boxes):
        rays = torch.stack([(x + 0.5 - K[0, 2]) / K[0, 0], (y + 0.5 - K[1, 2]) / K[1, 1], torch.ones(len(x))], dim=1)
        depth, shade = _hit(rays, centers[index], precisions[index])
        pixel = y * width + x
        nearest.scatter_reduce_(0, pixel, depth, "amin")
        wins = depth.isfinite() & (depth <= nearest[pixel])
        picture[pixel[wins]] = colors[index[wins]] * shade[wins, None]
    return picture.view(height, width, 3)


def _in_front(gaussians: Gaussians, viewmat: Tensor) -> Gaussians:
    depths = gaussians.means @ viewmat[2, :3] + viewmat[2, 3]
    sound = gaussians.is_finite() & (gaussians.quats.norm(dim=1) > 0)
    return gaussians.select(sound & (depths - gaussians.scales.amax(dim=1) > NEAR))


def _precisions(rows: Gaussians, viewmat: Tensor) -> Tensor:  # [M, 3, 3]
    """Inverse covariances in the camera: R S^-2 R^T."""
    scales = rows.scales.maximum(MIN_AXIS * rows.scales.amax(dim=1, keepdim=True))
    half = viewmat[:3, :3] @ quaternions.to_rotmat(rows.quats) / scales[:, None, :]
    return half @ half.transpose(1, 2)


def _boxes(rows: Gaussians, viewmat: Tensor, K: Tensor, width: int, height: int) -> Tensor:
    """First and last pixel of each ellipse, inside of the image; empty where first > last. x0 y0 x1 y1 [M, 4] int64"""
    covars = from_quats_scales(rows.quats, rows.scales)
    flat = project(rows.means, covars, viewmat, K, (width, height), eps2d=0.0)
    # The linearised outline is a little too small for what is large and near.
    extent = (1.2 * flat.covars2d[:, [0, 2]].clamp_min(0).sqrt() + 0.5).clamp(max=MAX_EXTENT)
    last = torch.tensor([width - 1, height - 1])
    low = (flat.means2d - extent).floor().long().clamp_min(0)
    high = (flat.means2d + extent).floor().long().minimum(last)
    return torch.cat([low, high], dim=1)


def _pairs(boxes: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Every pixel of every box: index of the box, x and y, in parts. [P], [P], [P]"""
    spans = (boxes[:, 2:] - boxes[:, :2] + 1).clamp_min(0)
    areas = spans.prod(dim=1)
    shown = torch.nonzero(areas)[:, 0]
    # Parts of about equal work: a cut wherever the running sum passes another PAIRS_AT_ONCE.
    part = areas[shown].cumsum(0) // PAIRS_AT_ONCE
    for index in shown.split(torch.unique_consecutive(part, return_counts=True)[1].tolist()) if len(shown) else ():
        owner = index.repeat_interleave(areas[index])
        starts = areas[index].cumsum(0) - areas[index]
        place = torch.arange(len(owner)) - starts.repeat_interleave(areas[index])
        yield owner, boxes[owner, 0] + place % spans[owner, 0], boxes[owner, 1] + place // spans[owner, 0]


def _hit(rays: Tensor, centers: Tensor, precisions: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays r z (r with z = 1) meet (r z - c)^T P (r z - c) = 1 first: depth z, inf if nowhere, and shade. [P]"""
    Pr = (precisions @ rays[:, :, None])[:, :, 0]
    a, b = (rays * Pr).sum(dim=1), (centers * Pr).sum(dim=1)
    # The point of the ray closest to the centre in the metric of P: subtracting there keeps the digits.
    offset = rays * (b / a)[:, None] - centers
    Po = (precisions @ offset[:, :, None])[:, :, 0]
    inside = 1 - (offset * Po).sum(dim=1)
    depth = b / a - (inside.clamp_min(0) / a).sqrt()
    depth = torch.where((inside >= 0) & (depth > 0), depth, torch.inf)
    normal = Po - Pr * (inside.clamp_min(0) / a).sqrt()[:, None]
    facing = -(normal * rays).sum(dim=1) / (normal.norm(dim=1) * rays.norm(dim=1)).clamp_min(1e-20)
    return depth, RIM + (1 - RIM) * facing.clamp(0, 1)
