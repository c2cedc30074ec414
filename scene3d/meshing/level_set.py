"""Level sets: marching cubes over the opacity of places, only in the blocks where views see a surface.

The level is met by bisection between lattice points: opacity rises within a fraction of a voxel, a straight line
between two of its values says little.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scene3d.core.mesh import Mesh
from scene3d.meshing.bisection import bisect
from scene3d.meshing.block_grid import evaluate_blocks, extract_surface
from scene3d.meshing.depth_views import SurfaceViews
from scene3d.meshing.fusion import LATTICE_SHIFT, FusionSettings, blocks_near

LEVEL = 0.5


def level_surface(
    opacity: Callable[[Tensor], Tensor], views: SurfaceViews, settings: FusionSettings, level: float = LEVEL
) -> Mesh:
    """The surface where opacity crosses a level.

    Args:
        opacity: From places [P, 3] to [P], NaN = unknown.
        views: Depths near which surfaces are looked for.
        settings: Of it the voxel size and the memory count.
        level: Between 0 and 1.

    Raises:
        ValueError: the level is out of range, no view knows any depth, or the voxels are too small.
    """
    check_level(level)
    origin = torch.full((3,), LATTICE_SHIFT * settings.voxel_size, dtype=torch.float64)
    blocks = blocks_near(views.depths, views.cameras, origin, settings)
    grid = evaluate_blocks(blocks, origin, settings.voxel_size, lambda places: level - opacity(places), 1 << 22)

    def cross(inner: Tensor, outer: Tensor) -> Tensor:
        return bisect(lambda places: opacity(places) > level, inner, outer)

    return extract_surface(grid, cross)


def check_level(level: float) -> None:
    """Raise ValueError unless 0 < level < 1."""
    if not 0 < level < 1:
        raise ValueError(f"level: expected an opacity between 0 and 1, got {level}")
