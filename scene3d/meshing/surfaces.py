"""From what views show of a scene to a raw surface, by each of the methods."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scene3d.core.mesh import Mesh
from scene3d.core.scene import Scene
from scene3d.meshing.block_grid import extract_surface
from scene3d.meshing.depth_views import SurfaceViews
from scene3d.meshing.fusion import FusionSettings, fuse, suggest_voxel_size, world_points
from scene3d.meshing.level_set import LEVEL, level_surface
from scene3d.meshing.opacity_field import opacity_function
from scene3d.meshing.tetrahedra import tetra_points, tetra_surface

logger = logging.getLogger(__name__)

Method = Literal["tsdf", "levelset", "tetrahedra"]

# Points of tetrahedra nearer than this share of a voxel become one.
SPACING = 0.25
# The region of tetrahedra holds all but this share of the depths at each end of each axis.
OUTSIDE = 0.002


@dataclass(frozen=True)
class SurfaceSettings:
    """How a raw surface is found.

    Attributes:
        method: tsdf = average depths into signed distances; levelset = where the opacity of places crosses a level, on
            a lattice; tetrahedra = the same between points of the splats.
        voxel_size: Scene units; None from the resolution of the views.
        truncation_voxels: See FusionSettings.
        min_weight: See FusionSettings.
        level: Opacity at which levelset and tetrahedra see a surface.
        max_bytes: Memory at most.
    """

    method: Method = "tsdf"
    voxel_size: float | None = None
    truncation_voxels: float = 4.0
    min_weight: float = 1.0
    level: float = LEVEL
    max_bytes: int = 2 << 30


def find_surface(scene: Scene, views: SurfaceViews, settings: SurfaceSettings) -> Mesh:
    """The raw surface of a scene.

    Args:
        scene: Asked for opacity by levelset and tetrahedra.
        views: What its views show.
        settings: How.

    Raises:
        ValueError: no view shows anything, or a setting asks for too much.
    """
    voxel_size = settings.voxel_size
    if voxel_size is None:
        voxel_size = suggest_voxel_size(views.depths, views.cameras)
    fusion = FusionSettings(voxel_size, settings.truncation_voxels, settings.min_weight, settings.max_bytes)
    if settings.method == "tsdf":
        mesh = extract_surface(fuse(views.depths, views.cameras, fusion))
    elif settings.method == "levelset":
        mesh = level_surface(opacity_function(scene, views.cameras), views, fusion, settings.level)
    else:
        points = tetra_points(scene.splats(), depth_region(views), SPACING * voxel_size)
        mesh = tetra_surface(opacity_function(scene, views.cameras), points, settings.level, settings.max_bytes)
    logger.info("%s", f"voxels of {voxel_size:.4g}: {mesh.n_faces:,} triangles")
    return mesh


def depth_region(views: SurfaceViews) -> Tensor:
    """Low and high corner of the box in which the views see surfaces. [2, 3]"""
    points = torch.cat([world_points(image, views.cameras, i)[::7] for i, image in enumerate(views.depths)]).float()
    ends = torch.stack(
        [torch.quantile(points[:: 1 + len(points) // 200_000], q, dim=0) for q in (OUTSIDE, 1 - OUTSIDE)]
    )
    margin = 0.05 * (ends[1] - ends[0]).norm()
    return ends + torch.stack([-margin, margin])[:, None]
