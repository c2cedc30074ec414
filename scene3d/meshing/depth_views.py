"""Depth views: a scene rendered from all sides, as depth fusion and texturing take it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.scene import Scene
from scene3d.meshing.fusion import DepthImage
from scene3d.ops.facing import facing_cosine
from scene3d.render.disc_depth import disc_depth
from scene3d.render.planes import render_planes
from scene3d.render.ray_planes import render_ray_planes
from scene3d.render.scene_view import render_scene
from scene3d.render.surround import Surround
from scene3d.render.types import RasterSettings, Render

DepthKind = Literal["auto", "median", "expected", "disc", "plane", "ray"]

# Surfaces seen at a flatter angle than 80 degrees have depths that say little; at silhouettes there is no surface.
MIN_COSINE = math.cos(math.radians(80))
# Thickness over the next axis below which most splats of a scene are discs.
FLAT_RATIO = 0.05
# Rings of cameras around a scene without cameras: degrees above the horizon, views.
DOME = ((-15.0, 14), (10.0, 16), (35.0, 14), (60.0, 10), (85.0, 2))
DOME_SIDE = 640


@dataclass(frozen=True)
class ViewSettings:
    """How views are rendered.

    Attributes:
        depth: median = where half of the light is stopped; expected = mean depth of what stops it; disc = where rays
            meet the flat splat that stops half of it; plane = where they meet the blended planes of flat splats; ray =
            mean depth of planes through round splats; auto = disc for flat splats, median for others, expected for
            radiance fields.
        min_alpha: Pixels less opaque show no surface.
        far: Farther surfaces are left out, scene units.
        backend: Of the rasterizer.
    """

    depth: DepthKind = "auto"
    min_alpha: float = 0.5
    far: float = math.inf
    backend: str = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.min_alpha <= 1:
            raise ValueError(f"min_alpha: expected above 0 and at most 1, got {self.min_alpha}")
        if not self.far > 0:
            raise ValueError(f"far: expected a distance above 0, got {self.far}")


@dataclass(frozen=True)
class SurfaceViews:
    """What C views show of a scene.

    Attributes:
        cameras: The views.
        depths: One per view.
        pictures: Colours over black, one per view. [H, W, 3] uint8
        opacities: Of their pixels. [H, W] uint8
    """

    cameras: Cameras
    depths: tuple[DepthImage, ...]
    pictures: tuple[Tensor, ...]
    opacities: tuple[Tensor, ...] = ()


@torch.no_grad()
def render_views(
    scene: Scene, cameras: Cameras, settings: ViewSettings, on_view: Callable[[], None] = lambda: None
) -> SurfaceViews:
    """Render depth and colour of every view.

    Args:
        scene: What to render.
        cameras: Sizes may differ.
        settings: How.
        on_view: Called after each view.
    """
    settings = replace(settings, depth=resolve_depth(scene, settings.depth))
    raster = RasterSettings(antialiased=scene.info.antialiased, with_depth=True, with_normals=settings.depth == "plane")
    depths, pictures, opacities = [], [], []
    for i in range(len(cameras)):
        view = cameras.select([i])
        render = render_scene(scene, view, raster, settings.backend)
        depth, alpha = _chosen_depth(scene, view, raster, render, settings)
        depths.append(depth_image(depth.float().cpu(), alpha.cpu(), view, settings))
        pictures.append(_bytes(render.rgb[0]))
        opacities.append(_bytes(render.alpha[0, ..., 0]))
        on_view()
    return SurfaceViews(cameras, tuple(depths), tuple(pictures), tuple(opacities))


def _bytes(values: Tensor) -> Tensor:
    return (values.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def resolve_depth(scene: Scene, kind: DepthKind) -> DepthKind:
    """What auto stands for.

    Raises:
        ValueError: a kind that only splats have was asked of a radiance field.
    """
    is_splats = "splats" in scene.capabilities
    if kind in ("median", "disc", "plane", "ray") and not is_splats:
        raise ValueError(f"depth: expected auto or expected for a radiance field, got {kind}")
    if kind != "auto":
        return kind
    if not is_splats:
        return "expected"
    axes = scene.splats().log_scales.sort(dim=1).values
    # Plain fits have a few flat splats among round ones, surface fits hardly anything else.
    is_flat = len(axes) > 0 and float((axes[:, 0] - axes[:, 1]).median()) < math.log(FLAT_RATIO)
    return "disc" if is_flat else "median"


def _chosen_depth(
    scene: Scene, view: Cameras, raster: RasterSettings, render: Render, settings: ViewSettings
) -> tuple[Tensor, Tensor]:
    """Depth and opacity, each [H, W]."""
    alpha = render.alpha[0, ..., 0]
    if settings.depth == "disc":
        return disc_depth(scene.splats(), view, raster, render), alpha
    if settings.depth in ("plane", "ray"):
        splats = scene.splats()
        camera = view.to(splats.device, splats.dtype)
        if settings.depth == "ray":
            return render_ray_planes(splats, camera, raster, settings.backend).depth, alpha
        assert render.normals is not None
        return render_planes(splats, camera, raster, settings.backend, render.normals[0]).depth, alpha
    depth = render.depth if settings.depth == "expected" else render.median_depth
    assert depth is not None
    return depth[0, ..., 0], alpha


def depth_image(depth: Tensor, alpha: Tensor, camera: Cameras, settings: ViewSettings) -> DepthImage:
    """Depth [H, W] and opacity [H, W] of one camera as fusion takes it, weighted by the cosine at which it is seen."""
    known = depth.isfinite() & (depth > 0) & (depth <= settings.far) & (alpha >= settings.min_alpha)
    depth = torch.where(known, depth, 0.0)
    cosine = facing_cosine(depth, camera)
    return DepthImage(depth, torch.where(cosine >= MIN_COSINE, cosine, 0.0))


def dome_cameras(surround: Surround) -> Cameras:
    """Views from all around and above for a scene that came without cameras."""
    forward, left = surround.horizontal()
    distance = math.hypot(surround.distance, surround.height)
    viewmats: list[Tensor] = []
    for elevation_deg, n_views in DOME:
        elevation = math.radians(elevation_deg)
        for k in range(n_views):
            # Rings are turned against each other: views of neighbouring rings then do not lie above each other.
            angle = 2 * math.pi * (k + 0.5 * (len(viewmats) % 2)) / n_views
            flat = math.cos(angle) * forward + math.sin(angle) * left
            eye = surround.focus + distance * (math.cos(elevation) * flat + math.sin(elevation) * surround.up)
            viewmats.append(look_at(eye, surround.focus, surround.up))
    focal = surround.focal_ratio * DOME_SIDE
    K = torch.tensor([[focal, 0, DOME_SIDE / 2], [0, focal, DOME_SIDE / 2], [0, 0, 1]], dtype=torch.float64)
    n = len(viewmats)
    sizes = torch.tensor([[DOME_SIDE, DOME_SIDE]]).repeat(n, 1)
    return Cameras(torch.stack(viewmats), K.repeat(n, 1, 1), sizes).to(dtype=torch.float32)


def choose_views(cameras: Cameras, max_views: int, max_size: int) -> Cameras:
    """At most `max_views` views, evenly picked, the longer side at most `max_size` pixels."""
    n = len(cameras)
    if n > max_views:
        cameras = cameras.select([round(i * (n - 1) / max(max_views - 1, 1)) for i in range(max_views)])
    longest = cameras.sizes.amax(dim=1, keepdim=True).double()
    scale = (max_size / longest).clamp_max(1.0)
    return cameras.resized((cameras.sizes * scale).round().long().clamp_min(1))
