"""Surface: what pulls Gaussians onto surfaces while they are fitted, in one of four manners.

stereo (see recon.stereo_pull): flat Gaussians drawn to what stereo sees before the fit begins.

pgsr (Chen et al. 2024), the most exact, several times slower than a plain fit:
- flat: the shortest axis shrinks, a Gaussian becomes a disc;
- normals: the normals of the discs agree with those of the depth that they give, away from edges of the photo;
- geometry: depths of neighbouring views agree, by going there and back again in pixels;
- photos: patches warped along the discs look alike in both photos (normalised cross-correlation).

2dgs (Huang et al. 2024): flat discs met by rays; what lies on one ray draws together (distortion), and normals agree.
rade (Zhang et al. 2024): plain Gaussians with a plane of depth each, whose normals agree with those of their depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture
from scene3d.core.errors import CaptureError
from scene3d.core.gaussians import Gaussians
from scene3d.recon.descent import Objective
from scene3d.recon.photos import on_device
from scene3d.recon.scene_frame import scene_extent
from scene3d.recon.settings import FitSettings, SurfaceName
from scene3d.recon.stereo import match_views
from scene3d.recon.stereo_pull import StereoPull, place_gaussians
from scene3d.recon.view_pairs import PairLosses, neighbor_table, pair_losses
from scene3d.render.planes import MIN_ALPHA, Planes, depth_normals, render_planes
from scene3d.render.ray_planes import render_ray_planes
from scene3d.render.surfels import SurfelRender, rasterize_surfels
from scene3d.render.types import RasterSettings, Render

# Length unit of the distortion, in scene extents: with it, weights of 10 to 1000 mean what they do in the paper.
DISTORTION_UNIT = 0.075
# Third scale of discs over their shorter one.
THINNESS = 0.01


@dataclass(frozen=True)
class SurfaceSettings:
    """Weights of the terms and when they begin.

    Attributes:
        flat: Of the mean shortest scale, in scene extents.
        normals: Of the normals.
        geometry: Of the agreement of depths, pixels.
        photos: Of the cross-correlation.
        normals_from: Fraction of the run from which normals count.
        pairs_from: Fraction of the run from which neighbouring views count.
        distortion: 2dgs: of the spread of depths along rays.
        distortion_from: Fraction of the run from which it counts.
        n_pixels: Pixels compared with a neighbour in one step.
        n_neighbors: Views from which the neighbour is taken.
    """

    flat: float = 100.0
    normals: float = 0.05
    geometry: float = 0.03
    photos: float = 0.15
    normals_from: float = 0.3
    pairs_from: float = 0.5
    distortion: float = 100.0
    distortion_from: float = 0.1
    n_pixels: int = 3000
    n_neighbors: int = 4


class SurfaceTerms:
    """The terms of one fit.

    Args:
        capture: Photos and cameras.
        settings: Of the fit.
        surface: Weights.
    """

    def __init__(self, capture: Capture, settings: FitSettings, surface: SurfaceSettings) -> None:
        _refuse_poses(capture, settings)
        self._capture, self._fit, self._surface = capture, settings, surface
        self._extent = scene_extent(capture.cameras.select(capture.train))
        self._neighbors = neighbor_table(capture.cameras, capture.train, surface.n_neighbors)
        self._greys: dict[int, Tensor] = {}
        self._surfels: SurfelRender | None = None

    def objective(self) -> Objective:
        """As a fit takes it."""
        method = self._fit.surface_method
        if method == "2dgs":
            return Objective(penalty=self.surfel_penalty, rasterize=self._rasterize_surfels)
        if method == "rade":
            return Objective(penalty=self.ray_plane_penalty)
        return Objective(penalty=self.penalty, with_normals=True)

    def surfel_penalty(self, gaussians: Gaussians, render: Render, view: int, fraction: float) -> Tensor | None:
        """Distortion and normals of discs met by rays, for one training photo."""
        assert self._surfels is not None
        total = None
        if fraction >= self._surface.distortion_from:
            total = self._surface.distortion * self._surfels.distortion.mean()
        if fraction >= self._surface.normals_from:
            assert total is not None
            assert render.depth is not None
            assert render.normals is not None
            alpha = render.alpha[0, ..., 0]
            depth = torch.where(alpha > MIN_ALPHA, render.depth[0, ..., 0], 0.0)
            total = total + self._normals(Planes(render.normals[0], depth, alpha), view)
        return total

    def ray_plane_penalty(self, gaussians: Gaussians, render: Render, view: int, fraction: float) -> Tensor | None:
        """Normals of the planes of plain Gaussians, for one training photo."""
        if fraction < self._surface.normals_from:
            return None
        height, width = render.rgb.shape[1:3]
        camera = self._camera(view, width, height)
        planes = render_ray_planes(gaussians, camera, self._raster(view, width), self._fit.backend)
        return self._normals(planes, view)

    def _normals(self, planes: Planes, view: int) -> Tensor:
        height, width = planes.depth.shape
        grey = on_device(self._grey(view, width, height), planes.depth.device)
        return self._surface.normals * normal_loss(planes, self._camera(view, width, height), grey)

    def _rasterize_surfels(self, gaussians: Gaussians, camera: Cameras, raster: RasterSettings, backend: str) -> Render:
        self._surfels = rasterize_surfels(gaussians, camera, raster, DISTORTION_UNIT * self._extent, backend)
        return self._surfels.render

    def penalty(self, gaussians: Gaussians, render: Render, view: int, fraction: float) -> Tensor:
        """The weighted sum of all terms that count by now, for one training photo."""
        surface = self._surface
        visible = render.stats.radii[0] > 0
        shortest = gaussians.log_scales.amin(dim=1).exp()
        total = surface.flat * (shortest * visible).sum() / visible.sum().clamp_min(1) / self._extent
        if fraction < surface.normals_from:
            return total
        assert render.normals is not None
        height, width = render.rgb.shape[1:3]
        camera = self._camera(view, width, height)
        raster = self._raster(view, width)
        planes = render_planes(gaussians, camera, raster, self._fit.backend, render.normals[0])
        total = total + self._normals(planes, view)
        if fraction < surface.pairs_from or len(self._neighbors[view]) == 0:
            return total
        pair = self._pair(gaussians, planes, view, fraction, (width, height))
        return total + surface.geometry * pair.geometry + surface.photos * pair.photos

    def _pair(
        self, gaussians: Gaussians, planes: Planes, view: int, fraction: float, size: tuple[int, int]
    ) -> PairLosses:
        # Drawn from the place in the run alone, so that a resumed run draws the same.
        generator = torch.Generator().manual_seed(self._fit.seed + 1009 * view + round(fraction * 1e9))
        choices = self._neighbors[view]
        other = choices[int(torch.randint(len(choices), (1,), generator=generator))]
        other_camera = self._camera(other, *size)
        device = planes.depth.device
        with torch.no_grad():
            seen = render_planes(gaussians.detach(), other_camera, self._raster(other, size[0]), self._fit.backend)
        return pair_losses(
            planes,
            self._camera(view, *size),
            on_device(self._grey(view, *size), device),
            seen.depth,
            other_camera,
            on_device(self._grey(other, *size), device),
            self._surface.n_pixels,
            generator,
        )

    def _camera(self, view: int, width: int, height: int) -> Cameras:
        camera = self._capture.cameras.select([view]).to(dtype=torch.float32)
        return camera.resized(torch.tensor([[width, height]]))

    def _raster(self, view: int, width: int) -> RasterSettings:
        blur = RasterSettings().eps2d * width / self._capture.cameras.width(view)
        return RasterSettings(antialiased=self._fit.antialiased, eps2d=blur)

    def _grey(self, view: int, width: int, height: int) -> Tensor:  # [H, W]
        """The photo's brightness; whole ones are kept, reduced ones are made anew."""
        if view not in self._greys:
            self._greys[view] = self._capture.load(view).rgb.float().mean(dim=-1) / 255
        grey = self._greys[view]
        if tuple(grey.shape) == (height, width):
            return grey
        return torch.nn.functional.interpolate(grey[None, None], (height, width), mode="area")[0, 0]


def begin_on_surfaces(
    capture: Capture, first: Gaussians, settings: FitSettings, on_view: Callable[[], None] = lambda: None
) -> tuple[Gaussians, Objective]:
    """The Gaussians to begin with, and what a fit adds to its loss.

    Args:
        capture: Photos and cameras.
        first: Those that a plain fit begins with.
        settings: Of the fit.
        on_view: Called as stereo goes on, twice for every training photo.

    Raises:
        CaptureError: poses are to be refined too.
    """
    if settings.surface_method != "stereo":
        return lay_flat(first, settings.surface_method), surface_objective(capture, settings)
    _refuse_poses(capture, settings)
    views = match_views(capture, first.means, on_view)
    placed = place_gaussians(views, capture, first, settings.strategy.cap_max, settings.seed)
    return placed, _stereo_objective(StereoPull(views))


def surface_objective(capture: Capture, settings: FitSettings, surface: SurfaceSettings | None = None) -> Objective:
    """What a fit adds to its loss so that Gaussians lie on surfaces.

    Raises:
        CaptureError: poses are to be refined too.
    """
    return SurfaceTerms(capture, settings, surface or SurfaceSettings()).objective()


def _stereo_objective(pull: StereoPull) -> Objective:
    def penalty(gaussians: Gaussians, render: Render, view: int, fraction: float) -> Tensor | None:
        if fraction >= pull.settings.until:
            return None
        return pull.penalty(gaussians, render.stats.radii[0] > 0, view)

    return Objective(penalty=penalty)


def _refuse_poses(capture: Capture, settings: FitSettings) -> None:
    if settings.pose_opt:
        raise CaptureError(capture.source, "surface fitting needs fixed poses", "Leave out --pose-opt or --surface")


def lay_flat(gaussians: Gaussians, method: SurfaceName) -> Gaussians:
    """The Gaussians to begin with: those of 2dgs have a third axis that is thin and stays so."""
    if method != "2dgs":
        return gaussians
    thin = gaussians.log_scales[:, :2].amin(dim=1, keepdim=True) + math.log(THINNESS)
    return replace(gaussians, log_scales=torch.cat([gaussians.log_scales[:, :2], thin], dim=1))


def normal_loss(planes: Planes, camera: Cameras, grey: Tensor) -> Tensor:
    """Mean of 1 - cosine between blended normals and those of the depth, less where the photo has edges.

    Args:
        planes: Of the view.
        camera: The view.
        grey: Its photo. [H, W]

    Differentiable in planes.
    """
    normals, known = depth_normals(planes.depth, camera)
    weight = torch.where(known, (1 - edge_strength(grey)).square(), 0.0)
    cosine = (planes.normals * normals).sum(dim=-1)
    # Normals carry the opacity: 1 - cosine of what is there.
    return (weight * (planes.alpha.detach() - cosine)).mean()


def edge_strength(grey: Tensor) -> Tensor:
    """Gradient of an image over its largest, 0 to 1. [H, W]"""
    padded = torch.nn.functional.pad(grey[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    dx = padded[1:-1, 2:] - padded[1:-1, :-2]
    dy = padded[2:, 1:-1] - padded[:-2, 1:-1]
    size = (dx.square() + dy.square()).sqrt()
    return size / size.amax().clamp_min(1e-6)
