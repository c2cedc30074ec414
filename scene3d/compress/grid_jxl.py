"""Method "grid-jxl": Self-Organizing Gaussian Grids coded by JPEG XL. Needs the package imagecodecs, also to read."""

from __future__ import annotations

from scene3d.compress.goal import Goal, Packed
from scene3d.compress.grid import compress_with
from scene3d.compress.judge import Judge
from scene3d.core.cameras import Cameras
from scene3d.core.scene import Scene


def compress(scene: Scene, goal: Goal, judge: Judge, views: Cameras) -> Packed:
    """As compress of the method "grid"."""
    return compress_with("jxl", scene, goal, judge, views)
