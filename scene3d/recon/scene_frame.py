"""Where the cameras of a capture look, how large the scene is, and what photos show of points in it."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.ops.pinhole import in_image, to_pixels
from scene3d.recon.photos import PhotoStore

LOOK_SCALE = 4  # Points are looked up in photos reduced by this factor.


def focus_point(cameras: Cameras) -> Tensor:
    """Point nearest to all optical axes in the least-squares sense. [3]"""
    axes = cameras.viewmats[:, 2, :3].double()
    centers = cameras.centers().double()
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    # Parallel axes meet nowhere: the small prior then takes a point a little in front of the cameras.
    prior = 1e-4 * torch.eye(3, dtype=torch.float64) * len(axes)
    ahead = (centers + axes * scene_extent(cameras)).mean(dim=0)
    moments = (across @ centers[:, :, None]).sum(dim=0)[:, 0] + prior @ ahead
    return torch.linalg.solve(across.sum(dim=0) + prior, moments).float()


def scene_extent(cameras: Cameras) -> float:
    """Size of a scene: 1.1 times the largest distance of a camera from their middle; 1 for a single camera."""
    centers = cameras.centers().double()
    radius = float((centers - centers.mean(dim=0)).norm(dim=1).max()) if len(centers) else 0.0
    return 1.1 * radius if radius > 1e-9 else 1.0


def look_up_photo(store: PhotoStore, view: int, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether a photo sees each point [P], and the premultiplied colour [P, 3] and alpha [P] there."""
    camera, target = store.camera(view, LOOK_SCALE), store.target(view, LOOK_SCALE)
    pixels, z = to_pixels(points, camera.viewmats[0], camera.Ks[0])
    width, height = camera.width(), camera.height()
    seen = in_image(pixels, z, width, height)
    column, row = pixels.floor().unbind(dim=1)
    flat = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
    alpha = torch.ones(len(points)) if target.alpha is None else target.alpha.reshape(-1)[flat]
    return seen, target.colors().reshape(-1, 3)[flat], alpha
