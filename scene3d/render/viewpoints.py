"""Views of a scene that came without cameras, made from the splats themselves.

Splats are fitted to pixels: in the photos that a scene was made from, most are about as large as a pixel or two. So
their size tells how far away the photos were taken. Views look at opaque splats from many directions and from about
that distance; those where something else is in front of the splat, or right before the lens, are thrown away. Scenes
are blurred or torn where nobody photographed them from: of what is left the views with most detail are kept.

Views for surfaces are of the same kind. Seen from where nobody stood, light is stopped here and there along a ray, and
its mean depth is not its median: both have to agree. And views that show what others do not show come first.
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
# Mean and median of depth agree within this share; where fewer pixels do, a view counts less, by the square of their
# share.
SOLID_GAP = 0.01
# Cells of the scene, of the median distance of views; so many views of each are of use.
CELL, VIEWS_A_CELL = 0.06, 6
# Backs of walls are seen with less detail: views worth less than this share of the best tenth are left out.
LEAST_WORTH = 0.35
# Cells that are told apart: their numbers are hashes.
N_CELLS = 1 << 15
PRIMES = (73856093, 19349663, 83492791)


@dataclass(frozen=True)
class _Candidates:
    eyes: Tensor  # [M, 3]
    targets: Tensor  # [M, 3]
    distances: Tensor  # [M]


@dataclass(frozen=True)
class _Glance:
    """A small picture of a candidate."""

    detail: float  # Below 0: of no use, the more so the lower.
    solid: float  # Share of the opaque pixels whose depth is sure.
    solid_detail: float  # Of these, where the whole picture counts in `detail`.
    places: Tensor  # World points of these. [P, 3]


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
    worth = torch.tensor([_glance(gaussians, candidates, i, settings).detail for i in range(n_views * TRIES)])
    chosen = worth.argsort(descending=True, stable=True)[:n_views].tolist()
    return _cameras(candidates, chosen, SIDE)


def synthesize_surface_views(gaussians: Gaussians, n_views: int, settings: RasterSettings, seed: int = 0) -> Cameras:
    """Look at a scene from many places near to it that show its surfaces, all of them if possible.

    Args:
        gaussians: Finite, at least one.
        n_views: At most so many views; those that show most first.
        settings: How the scene is rendered.
        seed: Of places and directions.

    Returns:
        Square views, float32; none where nothing is opaque.
    """
    candidates = _draw(gaussians, n_views * TRIES, seed)
    glances = [_glance(gaussians, candidates, i, settings) for i in range(n_views * TRIES)]
    worth = torch.tensor([glance.solid_detail * glance.solid**2 for glance in glances])
    worth[worth < LEAST_WORTH * worth.quantile(0.95)] = 0
    cell = CELL * float(candidates.distances.median())
    shows = torch.stack([_cells(glance.places, cell) for glance in glances])
    wanted = torch.full((N_CELLS,), float(VIEWS_A_CELL))
    chosen: list[int] = []
    while len(chosen) < n_views:
        gain = worth * (shows @ wanted)
        best = int(gain.argmax())
        if not float(gain[best]) > 0:
            break
        chosen.append(best)
        wanted = (wanted - shows[best]).clamp_min(0)
        worth[best] = 0
    return _cameras(candidates, chosen, SIDE)


def _cells(places: Tensor, cell: float) -> Tensor:
    """Which cells of the scene hold one of the places [P, 3]. [N_CELLS], 0 or 1"""
    index = ((places / cell).floor().long() * torch.tensor(PRIMES)).sum(dim=1) % N_CELLS
    return torch.zeros(N_CELLS).index_fill(0, index, 1.0)


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


def _glance(gaussians: Gaussians, candidates: _Candidates, i: int, settings: RasterSettings) -> _Glance:
    camera = _cameras(candidates, [i], GLANCE_SIDE)
    render = rasterize(gaussians, camera, _with_depth(settings))
    assert render.depth is not None
    depth, alpha = render.depth[0, :, :, 0], render.alpha[0, :, :, 0]
    middle = slice(GLANCE_SIDE * 7 // 16, GLANCE_SIDE * 9 // 16)
    distance = float(candidates.distances[i])
    off = abs(float(depth[middle, middle].median()) - distance) / (DEPTH_SHARE * distance)
    near = float(((depth < NEAR_DEPTH * distance) & (alpha > 0.5)).float().mean()) / NEAR_SHARE
    badness = max(off, near, 0.5 / max(float(alpha[middle, middle].mean()), 1e-3))
    if badness > 1:
        return _Glance(-badness, 0.0, 0.0, torch.zeros(0, 3))
    image = render.rgb[0].clamp(0, 1)
    detail = float(image.diff(dim=0).abs().mean() + image.diff(dim=1).abs().mean())
    assert render.median_depth is not None
    gap = (depth - render.median_depth[0, :, :, 0]).abs()
    sure = (alpha > 0.5) & (gap < SOLID_GAP * depth)
    solid = float(sure.sum()) / max(float((alpha > 0.5).sum()), 1.0)
    steps = image[1:, :-1] - image[:-1, :-1], image[:-1, 1:] - image[:-1, :-1]
    inner = (sure[1:, :-1] & sure[:-1, 1:] & sure[:-1, :-1]).float()[..., None]
    solid_detail = float(sum((step.abs() * inner).mean() for step in steps) / inner.mean().clamp_min(1e-6))
    y, x = sure.nonzero(as_tuple=True)
    rays = torch.stack([(x + 0.5 - GLANCE_SIDE / 2), (y + 0.5 - GLANCE_SIDE / 2), torch.ones(len(x))], dim=1)
    rays[:, :2] /= _focal(GLANCE_SIDE)
    rotation = camera.viewmats[0, :3, :3]
    return _Glance(detail, solid, solid_detail, candidates.eyes[i] + depth[y, x, None] * (rays @ rotation))


def _with_depth(settings: RasterSettings) -> RasterSettings:
    return RasterSettings(antialiased=settings.antialiased, with_depth=True)


def _cameras(candidates: _Candidates, rows: list[int], side: int) -> Cameras:
    focal = _focal(side)
    K = torch.tensor([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1]])
    viewmats = [_viewmat(candidates.eyes[i], candidates.targets[i]) for i in rows]
    return Cameras(
        torch.stack(viewmats or [torch.eye(4)])[: len(rows)],
        K.repeat(len(rows), 1, 1),
        torch.full((len(rows), 2), side),
    )


def _viewmat(eye: Tensor, target: Tensor) -> Tensor:
    """From eye to target, with any direction up that is not along."""
    gap = target - eye
    up = torch.zeros(3)
    up[int(gap.abs().argmin())] = 1.0
    return look_at(eye.double(), target.double(), up.double()).float()


def _focal(side: int) -> float:
    return side / 2 / math.tan(math.radians(FOV_DEG / 2))
