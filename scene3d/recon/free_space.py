"""Cells of a field that hold nothing, for cameras look through them: what lies before the nearest points of a photo.

Where nothing forbids it fog grows before each lens, which that photo alone shows, and hides the scene from elsewhere: a
still life between walls far away then has 13.6 dB at held-out photos instead of 20.4 (vm, 500 steps of 240x180).
"""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture
from scene3d.core.warp import Warp
from scene3d.ops.occupancy import cell_centers
from scene3d.ops.pinhole import in_image, to_pixels
from scene3d.ops.warp import world_points
from scene3d.recon.initialize import MIN_POINTS, usable_points
from scene3d.recon.scene_frame import focus_point

CELLS = 96  # On the longest side.
MOST_VIEWS = 300
# Nearest counts only what this share of the points of a photo is nearer than, for some points are wrong, and of its
# depth this share.
WRONG, SAFE = 0.01, 0.7
LEAST_POINTS = 20  # Of a photo.
# Without points: of the distance to what all cameras look at.
BLIND = 0.3


def cells_to_fill(capture: Capture, box: Tensor, warp: Warp | None) -> Tensor:
    """Cells of a box that may hold something. [Z, Y, X] bool

    Args:
        capture: Photos, cameras and points.
        box: In the frame of the warp. [2, 3]
        warp: Of the field, None = the box lies in the world.
    """
    size = box[1] - box[0]
    shape = (size / size.amax() * CELLS).round().clamp_min(4).long().tolist()
    centers = cell_centers((shape[2], shape[1], shape[0]), box)
    places = centers.reshape(-1, 3)
    places = places if warp is None else world_points(warp, places)
    cameras = capture.cameras.select(capture.train).to(dtype=torch.float32)
    is_free = torch.zeros(len(places), dtype=torch.bool)
    depths = clear_depths(cameras, usable_points(capture)[0])
    for i in torch.linspace(0, len(cameras) - 1, min(MOST_VIEWS, len(cameras))).long().tolist():
        pixels, z = to_pixels(places, cameras.viewmats[i], cameras.Ks[i])
        width, height = cameras.sizes[i].tolist()
        is_free |= in_image(pixels, z, width, height) & (z < depths[i])
    return ~is_free.reshape(centers.shape[:3])


def clear_depths(cameras: Cameras, points: Tensor) -> Tensor:
    """Up to which depth each camera has nothing before it. [C]

    Args:
        cameras: Views.
        points: That photos show, of which some may be wrong. [P, 3]
    """
    middle = focus_point(cameras)
    blind = BLIND * (cameras.centers() - middle).norm(dim=1)
    if len(points) < MIN_POINTS:
        return blind
    found = torch.full((len(cameras),), torch.inf)
    for i, (width, height) in enumerate(cameras.sizes.tolist()):
        pixels, z = to_pixels(points, cameras.viewmats[i], cameras.Ks[i])
        seen = z[in_image(pixels, z, width, height)]
        if len(seen) >= LEAST_POINTS:
            found[i] = SAFE * seen.quantile(WRONG)
    # A photo without points may show something nearer than all others do.
    return torch.where(found.isfinite(), found, torch.minimum(blind, found.amin()))
