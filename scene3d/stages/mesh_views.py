"""The part of `scene3d mesh` that finds views of a scene: given ones, those of its fit, or made-up ones."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture
from scene3d.core.scene import Scene
from scene3d.io.camera_path import find_cameras, read_cameras
from scene3d.meshing.depth_views import dome_cameras
from scene3d.render.scene_points import scene_points
from scene3d.render.scene_view import render_scene
from scene3d.render.surround import Surround, from_cameras, from_points, is_object
from scene3d.render.types import RasterSettings
from scene3d.render.viewpoints import synthesize_surface_views

logger = logging.getLogger(__name__)

N_MADE_VIEWS = 64
MADE_SIDE = 512
# Seen from all around, an object has nothing along the borders of small pictures, but for a stray splat.
GLANCE_SIDE, N_GLANCES, BORDER = 64, 14, 4
MAX_BORDER_ALPHA = 0.003


def choose(
    scene: Scene, path: Path, capture: Capture | None, file: Path | None, up: tuple[float, float, float] | None
) -> tuple[Cameras, Surround]:
    """Views that show the scene, and what lies amid them.

    Args:
        scene: The scene.
        path: Its file: a fit leaves its cameras near it.
        capture: Its photos, if given: their training views.
        file: Cameras, if given.
        up: World direction that is up, if known.
    """
    if capture is not None:
        cameras = capture.cameras.select(capture.train)
        return cameras, from_cameras(cameras, up)
    file = file or find_cameras(path)
    if file is not None:
        cameras = read_cameras(file)
        logger.info("%s", f"{len(cameras)} views of {file}")
        return cameras, from_cameras(cameras, up)
    points = scene_points(scene)
    surround = from_points(points, up)
    dome = dome_cameras(surround)
    if len(points.positions) == 0 or (is_object(points) and _stands_free(scene, dome)):
        logger.info("no cameras given: %d views from all around", len(dome))
        return dome, surround
    if "splats" not in scene.capabilities:
        logger.warning("the scene has a background, which views from outside see from behind: give --cameras")
        return dome, surround
    return _made_up(scene, surround)


def _made_up(scene: Scene, around: Surround) -> tuple[Cameras, Surround]:
    splats = scene.splats()
    settings = RasterSettings(antialiased=scene.info.antialiased)
    cameras = synthesize_surface_views(splats.select(splats.is_finite()), N_MADE_VIEWS, settings)
    logger.warning(
        "no cameras given, and the scene has a background: %d views are made up near the splats, photos were taken "
        "elsewhere. Give --cameras or --capture for more and better surfaces",
        len(cameras),
    )
    if len(cameras) == 0:
        return dome_cameras(around), around
    cameras = cameras.resized(torch.full_like(cameras.sizes, MADE_SIDE))
    return cameras, from_cameras(cameras, tuple(around.up.tolist()))


def _stands_free(scene: Scene, cameras: Cameras) -> bool:
    """Whether most views see nothing at their borders."""
    picked = cameras.select([i * len(cameras) // N_GLANCES for i in range(N_GLANCES)]).to(dtype=torch.float32)
    picked = picked.resized(torch.full_like(picked.sizes, GLANCE_SIDE))
    border = torch.ones(GLANCE_SIDE, GLANCE_SIDE, dtype=torch.bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    raster = RasterSettings(antialiased=scene.info.antialiased)
    seen = [render_scene(scene, picked.select([i]), raster).alpha[0, ..., 0][border].mean() for i in range(N_GLANCES)]
    return float(torch.stack(seen).median()) < MAX_BORDER_ALPHA
