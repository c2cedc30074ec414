"""How near to a camera things may be: a length that grows and shrinks with the scene.

A scene in millimetres is the same scene as one in metres; with one nearest depth for all, small ones would vanish.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.fields import Field
from scene3d.render.types import USUAL_NEAR, RasterSettings

# Least and most of the nearest depth, over how far things usually are.
LEAST, MOST = 4e-4, 0.02
# Depths of less than this share of the third quartile are none.
TOUCHING = 1e-6
# About so many Gaussians and views tell how far things are.
N_ASKED, N_VIEWS = 4096, 64


def with_near(settings: RasterSettings, means: Tensor, cameras: Cameras) -> RasterSettings:
    """The settings with a nearest depth that suits Gaussians [N, 3] as cameras see them, where they leave it open."""
    if settings.near is not None:
        return settings
    return replace(settings, near=min(nearest(_usual_depth(means.detach(), cameras)), settings.far))


def with_near_of_field(settings: RasterSettings, field: Field) -> RasterSettings:
    """The settings with a nearest distance that suits a field, where they leave it open."""
    if settings.near is not None:
        return settings
    low, high = field.box.detach().double()
    side = float((high - low).amax()) * (1.0 if field.warp is None else 1 / field.warp.scale)
    return replace(settings, near=min(nearest(side / 2), settings.far))


def nearest(usual_depth: float | None) -> float:
    """That of scenes of usual size, as far as it is within bounds for things so far away."""
    if usual_depth is None:
        return USUAL_NEAR
    return min(max(USUAL_NEAR, LEAST * usual_depth), MOST * usual_depth)


def _usual_depth(means: Tensor, cameras: Cameras) -> float | None:
    """Median depth of what is in front of the cameras."""
    asked = means[:: max(len(means) // N_ASKED, 1)]
    viewmats = cameras.viewmats.detach()[:: max(len(cameras) // N_VIEWS, 1)].to(means)
    depths = asked @ viewmats[:, 2, :3].T + viewmats[:, 2, 3]
    depths = depths[depths.isfinite()]
    if len(depths):
        # What lies in the plane of the camera says nothing.
        depths = depths[depths > TOUCHING * depths.abs().quantile(0.75)]
    return float(depths.median()) if len(depths) else None
