"""Colours of points on surfaces, in all directions at once: least squares over the views in which each is seen.

What a fit finds in hundreds of steps, harmonics of colour by the direction of view, has a closed form where places are
known: of each point the colours in the views that see it, and a little pull towards no change with direction.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scene3d.core.capture import Capture
from scene3d.core.gaussians import SH_COUNTS, Gaussians
from scene3d.ops import sh
from scene3d.ops.pinhole import in_image, to_pixels

# Of the harmonics; beyond, views are too few.
DEGREE = 2
# Views that count as seen colours whose weight the pull of a harmonic towards 0 has.
PULL = 1.0
# Farther from the surface that a view shows than this share of the extent of all points, a point is hidden.
TOLERANCE = 0.005
MAX_VIEWS = 40


@torch.no_grad()
def with_view_colors(splats: Gaussians, capture: Capture) -> Gaussians:
    """Splats with harmonics of degree 3 fitted to what the training views show at their centres.

    Args:
        splats: On surfaces; those that no view shows keep their colour.
        capture: With depth maps.
    """
    size = SH_COUNTS[DEGREE]
    n = len(splats)
    extent = float((splats.means.amax(dim=0) - splats.means.amin(dim=0)).norm())
    products, sums = torch.zeros(n, size, size), torch.zeros(n, size, 3)
    is_seen = torch.zeros(n, dtype=torch.bool)
    every = -(-len(capture.train) // MAX_VIEWS)
    for view in capture.train[::every]:
        rows, colors = _seen_colors(splats.means, capture, view, TOLERANCE * extent)
        center = capture.cameras.centers()[view]
        basis = sh.basis(torch.nn.functional.normalize(splats.means[rows] - center, dim=1), DEGREE)
        products.index_add_(0, rows, basis[:, :, None] * basis[:, None])
        sums.index_add_(0, rows, basis[:, :, None] * (colors - 0.5)[:, None])
        is_seen[rows] = True
    # The first harmonic is the mean: nothing pulls it, but a point that nobody saw must not divide by 0.
    pulls = torch.full((size,), PULL)
    pulls[0] = 1e-3
    found = torch.linalg.solve(products + torch.diag(pulls), sums)
    found = torch.where(is_seen[:, None, None], found, 0.0)
    rest = torch.zeros(n, SH_COUNTS[3] - size, 3)
    return replace(
        splats,
        sh0=torch.where(is_seen[:, None, None], found[:, :1], splats.sh0),
        shN=torch.cat([found[:, 1:], rest], dim=1),
    )


def _seen_colors(points: Tensor, capture: Capture, view: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """Points that a view shows, and their colours there, 0 to 1. [P, 3] to [S], [S, 3]"""
    photo, depth = capture.load(view), capture.load_depth(view)
    if depth is None:
        raise ValueError(f"capture: expected a depth map of view {view}, got none")
    height, width = depth.shape
    pixels, z = to_pixels(points, capture.cameras.viewmats[view], capture.cameras.Ks[view])
    x, y = pixels.unbind(dim=1)
    shown = depth[y.clamp(0, height - 1).long(), x.clamp(0, width - 1).long()]
    is_there = in_image(pixels, z, width, height) & (shown > 0) & ((z - shown).abs() < tolerance)
    rows = is_there.nonzero()[:, 0]
    places = 2 * torch.stack([x[rows] / width, y[rows] / height], dim=1) - 1
    image = photo.rgb.movedim(-1, 0)[None].float() / 255
    colors = torch.nn.functional.grid_sample(image, places[None, None], align_corners=False, padding_mode="border")
    return rows, colors[0, :, 0].T
