"""Frames: views of a scene as 8-bit pictures, one at a time: colour, depth, normals or alpha."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.ops.colormap import DEPTH, colorize
from scene3d.render.scene_view import on_device_of, render_scene
from scene3d.render.types import RasterSettings, Render

Mode = Literal["rgb", "depth", "normals", "alpha"]

# Views and pixels from which the depth range of a whole video is taken.
RANGE_VIEWS = 12
RANGE_SIDE = 160
# Larger pictures (8K fits) are drawn in strips of so many pixels: as floats a pixel takes ten times its bytes and more.
STRIP_PIXELS = 1 << 25
# Rows drawn beyond a strip, as a share of it. How a Gaussian is flattened depends on how far outside of the picture its
# centre is, and a strip has its edges elsewhere than the picture: with this, only such as reach farther are concerned.
# Three strips of a scene agree with the whole to 61 dB.
STRIP_OVERLAP = 0.25


@dataclass(frozen=True)
class FrameSettings:
    """What frames show.

    Attributes:
        mode: rgb; depth = near bright, far dark; normals = x y z as red green blue; alpha = opacity.
        background: sRGB behind the scene.
        sh_degree: Degree evaluated; None takes all.
        depth_percentiles: Depths of the whole path that become the brightest and the darkest colour.
        backend: Of the rasterizer.
    """

    mode: Mode = "rgb"
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sh_degree: int | None = None
    depth_percentiles: tuple[float, float] = (2.0, 98.0)
    backend: str = "auto"


def frames(scene: Scene, cameras: Cameras, settings: FrameSettings) -> Iterator[np.ndarray]:
    """Render view after view.

    Args:
        scene: What to render.
        cameras: The views; sizes may differ.
        settings: What to show.

    Yields:
        One picture per view, uint8. [H, W, 3]
    """
    raster = raster_settings(scene, settings)
    scene = on_device_of(scene, settings.backend)
    depth_range = depth_range_of(scene, cameras, settings) if settings.mode == "depth" else (0.0, 1.0)
    for i in range(len(cameras)):
        view = cameras.select([i])
        whole = np.empty((view.height(), view.width(), 3), np.uint8)
        for strip in _strips(view):
            render = _render(scene, strip.view, raster, settings.backend)
            pixels = picture(render, settings, depth_range).cpu().numpy()
            whole[strip.top : strip.bottom] = pixels[strip.skip : strip.skip + strip.bottom - strip.top]
        yield whole


@dataclass(frozen=True)
class _Strip:
    """Rows of a picture: what to render for them, and which rows of that they are."""

    view: Cameras
    top: int
    bottom: int
    skip: int


def _strips(view: Cameras) -> Iterator[_Strip]:
    """One view in strips from top to bottom; one strip where it is small enough."""
    width, height = view.width(), view.height()
    rows = max(1, STRIP_PIXELS // width)
    overlap = 0 if rows >= height else math.ceil(STRIP_OVERLAP * rows)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        low, high = max(0, top - overlap), min(height, bottom + overlap)
        Ks = view.Ks.clone()
        Ks[:, 1, 2] -= low
        yield _Strip(replace(view, Ks=Ks, sizes=view.sizes.new_tensor([[width, high - low]])), top, bottom, top - low)


def depth_range_of(scene: Scene, cameras: Cameras, settings: FrameSettings) -> tuple[float, float]:
    """Depths between which to spread colours: percentiles over views picked evenly along the path, rendered small."""
    picked = sorted({round(i * (len(cameras) - 1) / (RANGE_VIEWS - 1)) for i in range(RANGE_VIEWS)})
    raster = replace(raster_settings(scene, settings), with_depth=True)
    found = []
    for i in picked:
        view = cameras.select([i])
        shrink = min(1.0, RANGE_SIDE / max(view.width(), view.height()))
        view = view.resized((view.sizes * shrink).round().long().clamp_min(1))
        render = _render(scene, view, raster, settings.backend)
        assert render.depth is not None
        found.append(render.depth[render.alpha > 0.5])
    return spread(torch.cat(found), settings.depth_percentiles)


def spread(depths: Tensor, percentiles: tuple[float, float]) -> tuple[float, float]:
    """The depths at these percentiles, never equal; 0 and 1 where there are none. [M]"""
    if len(depths) == 0:
        return 0.0, 1.0
    low, high = (float(depths.double().quantile(p / 100)) for p in percentiles)
    return low, max(high, low * (1 + 1e-6) + 1e-12)


def raster_settings(scene: Scene, settings: FrameSettings) -> RasterSettings:
    """What the rasterizer has to do for these frames."""
    stored = scene.payload.sh_degree if isinstance(scene.payload, Gaussians) else 0
    return RasterSettings(
        sh_degree=stored if settings.sh_degree is None else min(settings.sh_degree, stored),
        antialiased=scene.info.antialiased,
        background=settings.background,
        with_depth=settings.mode == "depth",
        with_normals=settings.mode == "normals",
    )


def _render(scene: Scene, view: Cameras, raster: RasterSettings, backend: str) -> Render:
    return render_scene(scene, view, raster, backend)


def picture(render: Render, settings: FrameSettings, depth_range: tuple[float, float]) -> Tensor:
    """What is shown of the first view of a render, depths between those of the range. [H, W, 3] uint8"""
    alpha = render.alpha[0]
    if settings.mode == "rgb":
        return to_bytes(render.rgb[0])
    if settings.mode == "alpha":
        return to_bytes(alpha.expand(-1, -1, 3))
    background = alpha.new_tensor(settings.background)
    if settings.mode == "normals":
        assert render.normals is not None
        unit = torch.nn.functional.normalize(render.normals[0], dim=-1)
        return to_bytes((0.5 + 0.5 * unit) * alpha + background * (1 - alpha))
    assert render.depth is not None
    near, far = depth_range
    # Even steps of 1 / depth: near things, where depth matters to the eye, get most of the colours.
    inverse = (1 / render.depth[0, ..., 0].clamp_min(1e-12) - 1 / far) / (1 / max(near, 1e-12) - 1 / far)
    color = colorize(inverse, DEPTH).to(alpha.dtype).to(alpha.device) / 255
    return to_bytes(color * alpha + background * (1 - alpha))


def to_bytes(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1], clamped, to uint8; NaN becomes 0."""
    return (rgb.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
