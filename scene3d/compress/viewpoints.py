"""Views of a scene that came without cameras, made from the splats themselves.

Splats are fitted to pixels: in the photos that a scene was made from, most are about as large as a pixel or two. So
their size tells how far away the photos were taken. Views look at opaque splats from many directions and from about
that distance; those where something else is in front of the splat, or right before the lens, are thrown away. Scenes
are blurred or torn where nobody photographed them from: of what is left the views with most detail are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.gaussians import Gaussians
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings

SIDE, FOV_DEG = 384, 60.0
# Standard deviation of the median splat, pixels: 1.9 in the photos of the trained scene that it was looked up in.
SPLAT_PIXELS = 2.0
# Distances, of that at which the median splat has this size.
NEAREST, FARTHEST = 0.6, 2.5
# Candidates a view, looked at as small pictures.
# Areas of splats count up to this many typical ones: a background of few huge splats must not take all views.
MOST_AREA = 2.0
TRIES, GLANCE_SIDE = 10, 72
# Of a glance: the depth of its middle may differ by this share, and this share of its pixels may be much nearer.
DEPTH_SHARE, NEAR_SHARE, NEAR_DEPTH = 0.35, 0.05, 0.3


@dataclass(frozen=True)
class _Candidates:
    eyes: Tensor  # [M, 3]
    targets: Tensor  # [M, 3]
    distances: Tensor  # [M]


def synthesize_views(gaussians: Gaussians, n_views: int, settings: RasterSettings, seed: int = 0) -> Cameras:
    """Look at a scene from many places near to it.

    Args:
        gaussians: Finite, at least one.
        n_views: How many views; those with more detail first.
        settings: How the scene is rendered.
        seed: Of places and directions.

    Returns:
        Square views, float32.
    """
    candidates = _draw(gaussians, n_views * TRIES, seed)
    worth = torch.tensor([_worth(gaussians, candidates, i, settings) for i in range(n_views * TRIES)])
    chosen = worth.argsort(descending=True, stable=True)[:n_views].tolist()
    return _cameras(candidates, chosen, SIDE)


def _draw(gaussians: Gaussians, n: int, seed: int) -> _Candidates:
    generator = torch.Generator().manual_seed(seed)
    lengths = gaussians.log_scales.sort(dim=1, descending=True).values[:, :2].mean(dim=1).exp()
    typical = float(lengths[gaussians.opacities > 0.5].median()) if bool((gaussians.opacities > 0.5).any()) else 0.0
    typical = max(typical or float(lengths.median()), 1e-6)
    areas = lengths.square().clamp(max=MOST_AREA * typical**2)
    rows = torch.multinomial(gaussians.opacities * areas + 1e-12, n, replacement=True, generator=generator)
    directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1)
    stretch = torch.exp(torch.rand(n, generator=generator) * math.log(FARTHEST / NEAREST)) * NEAREST
    distances = stretch * typical * _focal(SIDE) / SPLAT_PIXELS
    targets = gaussians.means[rows]
    return _Candidates(targets + distances[:, None] * directions, targets, distances)


def _worth(gaussians: Gaussians, candidates: _Candidates, i: int, settings: RasterSettings) -> float:
    """Detail of a view of its target; below 0 where it is not seen."""
    render = rasterize(gaussians, _cameras(candidates, [i], GLANCE_SIDE), _with_depth(settings))
    assert render.depth is not None
    depth, alpha = render.depth[0, :, :, 0], render.alpha[0, :, :, 0]
    middle = slice(GLANCE_SIDE * 7 // 16, GLANCE_SIDE * 9 // 16)
    distance = float(candidates.distances[i])
    off = abs(float(depth[middle, middle].median()) - distance) / (DEPTH_SHARE * distance)
    near = float(((depth < NEAR_DEPTH * distance) & (alpha > 0.5)).float().mean()) / NEAR_SHARE
    badness = max(off, near, 0.5 / max(float(alpha[middle, middle].mean()), 1e-3))
    if badness > 1:
        return -badness
    image = render.rgb[0].clamp(0, 1)
    return float(image.diff(dim=0).abs().mean() + image.diff(dim=1).abs().mean())


def _with_depth(settings: RasterSettings) -> RasterSettings:
    return RasterSettings(antialiased=settings.antialiased, with_depth=True)


def _cameras(candidates: _Candidates, rows: list[int], side: int) -> Cameras:
    focal = _focal(side)
    K = torch.tensor([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1]])
    viewmats = torch.stack([_viewmat(candidates.eyes[i], candidates.targets[i]) for i in rows])
    return Cameras(viewmats, K.repeat(len(rows), 1, 1), torch.full((len(rows), 2), side))


def _viewmat(eye: Tensor, target: Tensor) -> Tensor:
    """From eye to target, with any direction up that is not along."""
    gap = target - eye
    up = torch.zeros(3)
    up[int(gap.abs().argmin())] = 1.0
    return look_at(eye.double(), target.double(), up.double()).float()


def _focal(side: int) -> float:
    return side / 2 / math.tan(math.radians(FOV_DEG / 2))
