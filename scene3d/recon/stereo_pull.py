"""Stereo pull: Gaussians begin on the surfaces that stereo sees and stay there while colours are fitted.

Each step asks the stereo of its photo about every Gaussian that it shows: those near the surface are drawn into it and
turned along it, those that float in front of it fade. No image of depth is rendered for that. Stereo as a guide of
Gaussians: Wang et al. 2024, GausSurf, which draws rendered depth instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from scene3d.core.capture import Capture
from scene3d.core.gaussians import SH_COUNTS, Gaussians
from scene3d.ops import sh
from scene3d.ops.knn import mean_neighbor_distance
from scene3d.ops.pinhole import NEAR, from_pixels, in_image, to_pixels
from scene3d.ops.quaternions import from_rotmat, to_rotmat
from scene3d.recon.stereo import StereoView

# Gaussians within so many pixels of a surface, measured across it, belong to it.
BAND = 4.0
# Beyond so many they float in front of it.
FLOATING = 6.0
# Half side of the window in which everything must be farther away than what floats, pixels: edges are not exact.
MARGIN = 4
# First Gaussians: opacity, and thickness over their other scales.
FIRST_OPACITY, FIRST_THICKNESS = 0.5, 0.1
# Share of the largest number of Gaussians that stereo places where it is sure of all pixels, less by the mean square of
# its trust: the rest needs others. With those of the points, they leave room to grow.
PLACED_SHARE, FIRST_SHARE = 0.7, 0.75


@dataclass(frozen=True)
class PullSettings:
    """Weights; means over the Gaussians that a photo shows.

    Attributes:
        distance: Of the distance from the surface, pixels.
        normals: Of 1 - cosine between the shortest axis and the normal.
        flat: Of the shortest scale of what lies on surfaces, pixels.
        floating: Of the opacity of what floats in front of surfaces.
        opaque: Of the transparency of what lies on surfaces. More makes surfaces no better and photos worse.
        until: Fraction of the run after which only photos count. Objects on nothing win 0.3 dB from 0.7 instead of 0.8
            and 0.6 from 0.6, which takes 0.04 from F at half a pixel.
    """

    distance: float = 0.05
    normals: float = 0.05
    flat: float = 0.2
    floating: float = 0.05
    opaque: float = 0.02
    until: float = 0.7


@dataclass(frozen=True)
class _Guide:
    """A stereo view as steps look at it."""

    viewmat: Tensor
    K: Tensor
    center: Tensor
    depth: Tensor
    normals: Tensor
    trust: Tensor
    nearest: Tensor  # least depth in the window around, 0 where some of it is unknown

    def to(self, device: torch.device) -> _Guide:
        return _Guide(*(getattr(self, f.name).to(device) for f in fields(self)))


class StereoPull:
    """The terms of one fit.

    Args:
        views: What stereo knows of the training photos.
        settings: Weights.

    Attributes:
        settings: Weights.
    """

    def __init__(self, views: Mapping[int, StereoView], settings: PullSettings | None = None) -> None:
        self.settings = settings or PullSettings()
        self._guides = {view: _guide(stereo) for view, stereo in views.items()}

    def penalty(self, gaussians: Gaussians, visible: Tensor, view: int) -> Tensor:
        """The weighted sum for one photo.

        Args:
            gaussians: The scene.
            visible: Which ones the photo shows. [N] bool
            view: Number of the photo.

        Differentiable in means, quats, log_scales and opacity_logits.
        """
        guide, weights = self._guides[view].to(gaussians.device), self.settings
        rows = visible.nonzero()[:, 0]
        means = gaussians.means[rows]
        pixels, z = to_pixels(means.detach(), guide.viewmat, guide.K)
        height, width = guide.depth.shape
        inside, z = in_image(pixels, z, width, height), z.clamp_min(NEAR)
        column, row = pixels[:, 0].clamp(0, width - 1).long(), pixels[:, 1].clamp(0, height - 1).long()
        depth, trust = guide.depth[row, column], guide.trust[row, column].float() * inside
        normals = guide.normals[row, column].float()
        focal = (guide.K[0, 0] * guide.K[1, 1]).sqrt()
        ray_x, ray_y = (column + 0.5 - guide.K[0, 2]) / guide.K[0, 0], (row + 0.5 - guide.K[1, 2]) / guide.K[1, 1]
        rays = torch.stack([ray_x, ray_y, torch.ones_like(ray_x)], dim=1) @ guide.viewmat[:3, :3]
        gap = ((means - guide.center - rays * depth[:, None]) * normals).sum(dim=1) * focal / z
        near = (trust > 0) & (gap.detach().abs() < BAND)
        pulled = torch.where(near, trust, 0.0)
        unlike = 1 - (_shortest_axes(gaussians, rows) * normals).sum(dim=1).abs()
        thickness = gaussians.log_scales[rows].amin(dim=1).exp() * focal / z
        floats = inside & (z < guide.nearest[row, column] * (1 - FLOATING / focal))
        opacities = gaussians.opacity_logits[rows].sigmoid()
        total = weights.distance * torch.where(near, gap.abs(), 0.0) + weights.normals * unlike
        total = pulled * (total + weights.flat * thickness + weights.opaque * (1 - opacities))
        return (total + weights.floating * torch.where(floats, opacities, 0.0)).sum() / max(len(rows), 1)


def place_gaussians(
    views: Mapping[int, StereoView], capture: Capture, first: Gaussians, cap_max: int, seed: int
) -> Gaussians:
    """`first`, and flat Gaussians on the surfaces that stereo sees, evenly by the size of pixels.

    Args:
        views: What stereo knows of the training photos.
        capture: For colours.
        first: Those that a fit would begin with otherwise.
        cap_max: Most Gaussians of the fit.
        seed: Of the choice.
    """
    trust = torch.cat([stereo.trust.flatten() for stereo in views.values()]).double()
    n = int(PLACED_SHARE * cap_max * float(trust.square().mean()))
    places = [_surface_points(capture, view, stereo) for view, stereo in views.items()]
    points, normals, colors, sizes = (torch.cat(parts) for parts in zip(*places, strict=True))
    if n < 1 or len(points) == 0:
        return first
    generator = torch.Generator().manual_seed(seed)
    first = _thinned(first, int(FIRST_SHARE * cap_max) - n, generator)
    order = torch.randperm(len(points), generator=generator)
    chosen = _evenly(points[order], sizes[order], n)
    points, normals, colors = (value[order][chosen] for value in (points, normals, colors))
    spacing = mean_neighbor_distance(points).clamp_min(1e-9)
    spacing = spacing.clamp_max(10 * float(spacing.median()))
    log_scales = torch.stack([spacing, spacing, FIRST_THICKNESS * spacing], dim=1).log()
    placed = Gaussians(
        means=points,
        quats=from_rotmat(_frames(normals)),
        log_scales=log_scales,
        opacity_logits=torch.full((len(points),), math.log(FIRST_OPACITY / (1 - FIRST_OPACITY))),
        sh0=sh.from_rgb(colors)[:, None, :],
        shN=torch.zeros(len(points), SH_COUNTS[first.sh_degree] - 1, 3),
    )
    both = zip(first.params().items(), placed.params().values(), strict=True)
    return Gaussians(**{name: torch.cat([a, b]) for (name, a), b in both})


def _guide(stereo: StereoView) -> _Guide:
    camera, depth = stereo.camera, stereo.depth
    known = torch.where(stereo.trust > 0, depth, 0.0)
    window = 2 * MARGIN + 1
    nearest = -torch.nn.functional.max_pool2d(-known[None, None], window, 1, MARGIN)[0, 0]
    return _Guide(
        camera.viewmats[0].float(),
        camera.Ks[0].float(),
        camera.centers()[0].float(),
        depth,
        stereo.normals,
        stereo.trust,
        nearest,
    )


def _shortest_axes(gaussians: Gaussians, rows: Tensor) -> Tensor:  # [P, 3]
    shortest = gaussians.log_scales.detach()[rows].argmin(dim=1)
    return to_rotmat(gaussians.quats[rows]).gather(2, shortest[:, None, None].expand(-1, 3, 1))[:, :, 0]


def _surface_points(capture: Capture, view: int, stereo: StereoView) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Places [P, 3], normals [P, 3], colours 0 to 1 [P, 3] and sizes of pixels [P] of one view."""
    camera = stereo.camera
    row, column = (stereo.trust > 0).nonzero(as_tuple=True)
    z = stereo.depth[row, column]
    points = from_pixels(column, row, z, camera.viewmats[0], camera.Ks[0])
    photo = capture.load(view).rgb
    height, width = stereo.depth.shape
    colors = photo[row * photo.shape[0] // height, column * photo.shape[1] // width].float() / 255
    return points, stereo.normals[row, column].float(), colors, z / float(camera.Ks[0, 0, 0])


def _thinned(gaussians: Gaussians, n: int, generator: torch.Generator) -> Gaussians:
    """At most n of them, drawn: random ones that a fit without points begins with would leave no room for others."""
    if len(gaussians) <= n:
        return gaussians
    return gaussians.select(torch.randperm(len(gaussians), generator=generator)[:n].sort().values)


def _evenly(points: Tensor, sizes: Tensor, n: int) -> Tensor:
    """Rows of at most n points: the first one in each cell of a grid that is as coarse as pixels are large."""
    level = sizes.log2().floor()
    low, high = 0.0, 16.0
    chosen = torch.arange(min(n, len(points)))
    for _ in range(8):
        middle = (low + high) / 2
        # Pixels twice as large have cells twice as large.
        cells = (points / torch.exp2(level + middle)[:, None]).floor().long()
        keys = ((cells[:, 2] * 1_000_003 + cells[:, 1]) * 1_000_003 + cells[:, 0]) * 64 + level.long()
        unique, inverse = torch.unique(keys, return_inverse=True)
        if len(unique) > n:
            low = middle
            continue
        high = middle
        rows = torch.full((len(unique),), len(points))
        chosen = rows.scatter_reduce(0, inverse, torch.arange(len(points)), "amin")
    return chosen


def _frames(normals: Tensor) -> Tensor:
    """Rotations whose third axis is the normal. [P, 3, 3]"""
    helper = torch.where(normals[:, :1].abs() < 0.7, torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]))
    first = torch.nn.functional.normalize(torch.linalg.cross(normals, helper), dim=1)
    return torch.stack([first, torch.linalg.cross(normals, first), normals], dim=2)
