"""First Gaussians for what lies too far away to be triangulated: sky, hills, the walls of a hall, environment images.

A direction shows something far where photos from different places see the same colour along it. Such directions get a
point on a sphere so large that its parallax stays below the photos' pixels. Street scenes are begun with a sky sphere
in the same way (Kerbl et al. 2024, A Hierarchical 3D Gaussian Representation, section 4.1), but regardless of photos.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.capture import Capture
from scene3d.ops.directions import even_directions
from scene3d.recon.photos import PhotoStore
from scene3d.recon.scene_frame import focus_point, look_up_photo, scene_extent

DIRECTIONS = 5000  # Over the whole sphere: 3 degrees from one to the next; growth does the rest.
MOST_VIEWS = 48
FEWEST_VIEWS = 3  # That see a direction and agree.
AGREEMENT = 0.06  # Largest difference of a colour channel from the median of the views.
AGREEING_PART = 0.6  # Of the views that see a direction; others see something near in front of it.
LEAST_PART = 0.12  # Of the directions: some plain walls look alike from everywhere, and are no reason for a far sphere.
PARALLAX = 2.0  # Pixels that a far point may move when the camera crosses the scene.


def far_points(capture: Capture) -> tuple[Tensor, Tensor]:
    """Points in the directions in which the training photos show the same far things.

    Returns:
        Points on a sphere around the middle of the scene [P, 3], and their colours, sRGB 0 to 1 [P, 3]. None where
        photos have alpha, or where so few directions agree that there may be nothing far.
    """
    if capture.has_alpha:
        return torch.zeros(0, 3), torch.zeros(0, 3)
    train = capture.train or tuple(range(len(capture)))
    cameras = capture.cameras.select(train)
    radius = scene_extent(cameras) * float(cameras.Ks[:, 0, 0].mean()) / PARALLAX
    directions = even_directions(DIRECTIONS).float()
    points = focus_point(cameras) + radius * directions
    chosen = [train[i] for i in torch.linspace(0, len(train) - 1, min(MOST_VIEWS, len(train))).long().tolist()]
    store = PhotoStore(capture)
    looks = [look_up_photo(store, view, points) for view in chosen]
    seen = torch.stack([look[0] for look in looks])  # [V, D]
    colors = torch.stack([look[1] for look in looks])  # [V, D, 3]
    colors = torch.where(seen[..., None], colors, torch.nan)
    median = colors.nanmedian(dim=0).values
    agrees = ((colors - median).abs().amax(dim=2) < AGREEMENT).sum(dim=0)
    n_seen = seen.sum(dim=0)
    is_far = (agrees >= FEWEST_VIEWS) & (agrees >= AGREEING_PART * n_seen)
    if is_far.sum() < LEAST_PART * (n_seen >= FEWEST_VIEWS).sum():
        is_far[:] = False
    return points[is_far], median[is_far]
