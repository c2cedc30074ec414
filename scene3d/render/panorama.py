"""Panoramas: all directions around a camera in one picture, longitude across and latitude down (equirectangular).

Six square views, a little wider than the faces of a cube, are blended where they overlap: splats are flattened
differently in each, and a hard edge would show.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.scene import Scene
from scene3d.render.frames import FrameSettings, depth_range_of, picture, raster_settings
from scene3d.render.scene_view import render_scene
from scene3d.render.types import Render

# Tangent of half the angle of a view: 1 is the face of a cube, the rest is blended.
REACH = 1.2


def panoramas(scene: Scene, cameras: Cameras, up: Tensor, width: int, settings: FrameSettings) -> Iterator[np.ndarray]:
    """Render the surroundings of camera after camera.

    Args:
        scene: What to render.
        cameras: Where to stand, and by their lines of sight which way is the middle of the picture.
        up: World direction that is up. [3]
        width: Pixels, even; the height is half of it.
        settings: What to show; depths are distances from the camera.

    Yields:
        One picture per camera, uint8. [width / 2, width, 3]
    """
    if width < 8 or width % 2:
        raise ValueError(f"width: expected an even number of at least 8 pixels, got {width}")
    raster = raster_settings(scene, settings)
    depth_range = depth_range_of(scene, cameras, settings) if settings.mode == "depth" else (0.0, 1.0)
    side = math.ceil(width / 4 * REACH)
    directions = _directions(width)
    faces = [_face(directions, axes) for axes in _cube()]
    total = torch.stack([weight for _, weight in faces]).sum(dim=0)
    for i in range(len(cameras)):
        heading = _heading(cameras.viewmats[i].double(), up.double())
        blended = torch.zeros(width // 2, width, 3)
        for axes, (place, weight) in zip(_cube(), faces, strict=True):
            view = _view(cameras.centers()[i].double(), heading, axes, side)
            render = _with_distances(render_scene(scene, view, raster, settings.backend), side)
            blended += _sampled(picture(render, settings, depth_range).cpu(), place) * weight[..., None]
        yield (blended / total[..., None]).round().clamp(0, 255).to(torch.uint8).numpy()


def _directions(width: int) -> Tensor:  # [H, W, 3]: ahead, right, up
    longitude = ((torch.arange(width) + 0.5) / width * 2 - 1) * math.pi
    latitude = (0.5 - (torch.arange(width // 2) + 0.5) / (width // 2)) * math.pi
    latitude, longitude = torch.meshgrid(latitude, longitude, indexing="ij")
    return torch.stack([latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()], dim=2)


def _cube() -> list[Tensor]:
    """Right, down and forward of the six views, each in ahead, right, up. [3, 3]"""
    ahead, right, up = torch.eye(3)
    around = [(right, ahead), (-ahead, right), (-right, -ahead), (ahead, -right)]
    level = [torch.stack([side, -up, forward]) for side, forward in around]
    return [*level, torch.stack([right, ahead, up]), torch.stack([right, -ahead, -up])]


def _face(directions: Tensor, axes: Tensor) -> tuple[Tensor, Tensor]:
    """Where directions fall in a view, -1 to 1 from edge to edge, and how much it counts. [H, W, 2], [H, W]"""
    local = directions @ axes.T
    place = local[..., :2] / local[..., 2:].clamp_min(1e-6) / REACH
    margin = 1 - place.abs().amax(dim=2)
    return place, torch.where(local[..., 2] > 0, margin.clamp_min(0), 0.0)


def _heading(viewmat: Tensor, up: Tensor) -> Tensor:
    """Ahead, right and up of a level camera that looks the same way, in the world. [3, 3]"""
    up = torch.nn.functional.normalize(up, dim=0)
    ahead = viewmat[2, :3] - (viewmat[2, :3] @ up) * up
    if float(ahead.norm()) < 1e-6:  # Looking straight up or down: the upper edge of the picture is ahead.
        ahead = -viewmat[1, :3] - (-viewmat[1, :3] @ up) * up
    ahead = torch.nn.functional.normalize(ahead, dim=0)
    return torch.stack([ahead, torch.linalg.cross(ahead, up), up])


def _view(center: Tensor, heading: Tensor, axes: Tensor, side: int) -> Cameras:
    right_down_forward = axes.double() @ heading
    viewmat = look_at(center, center + right_down_forward[2], -right_down_forward[1]).float()
    focal = side / 2 / REACH
    K = torch.tensor([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1]])
    return Cameras(viewmat[None], K[None], torch.tensor([[side, side]]))


def _with_distances(render: Render, side: int) -> Render:
    """Depths along the ray instead of along the axis of the view, so that views agree where they meet."""
    if render.depth is None:
        return render
    steps = ((torch.arange(side) + 0.5) / side * 2 - 1) * REACH
    lengths = (1 + steps[:, None].square() + steps[None, :].square()).sqrt()
    return replace(render, depth=render.depth * lengths[None, :, :, None].to(render.depth))


def _sampled(image: Tensor, place: Tensor) -> Tensor:  # [S, S, 3] uint8, [H, W, 2] -> [H, W, 3] in 0..255
    planes = image.float().permute(2, 0, 1)[None]
    found = torch.nn.functional.grid_sample(planes, place[None], padding_mode="border", align_corners=False)
    return found[0].permute(1, 2, 0)
