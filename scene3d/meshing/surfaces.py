"""From what views show of a scene to a raw surface, by each of the methods."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scene3d.core.mesh import Mesh
from scene3d.core.progress import Progress
from scene3d.core.scene import Scene
from scene3d.meshing.as_drawn import as_drawn
from scene3d.meshing.block_grid import extract_surface
from scene3d.meshing.depth_views import SurfaceViews, choose_views
from scene3d.meshing.finish import decimate, remove_specks
from scene3d.meshing.flexi_fit import FlexSettings, fit_open_surface
from scene3d.meshing.fusion import FusionSettings, fuse, suggest_voxel_size, world_points
from scene3d.meshing.level_set import LEVEL, level_surface
from scene3d.meshing.opacity_field import opacity_function
from scene3d.meshing.poisson import FILL, close_surface
from scene3d.meshing.tetrahedra import tetra_points, tetra_surface
from scene3d.ops.triangles import closest_on_mesh

logger = logging.getLogger(__name__)

Method = Literal["tsdf", "levelset", "tetrahedra", "poisson", "flexicubes"]

# Points of tetrahedra nearer than this share of a voxel become one.
SPACING = 0.25
# Where edges of tetrahedra are crossed is known to this share of a voxel.
PRECISION = 0.05
# Voxels of tetrahedra may be so much larger or smaller than usual.
MOST_TIMES = 32
# Longer triangles of tetrahedra, in voxels, must have something behind them.
LONG_EDGE = 8.0
# Views that are asked for the opacity of places at most: the time is in proportion.
OPACITY_VIEWS = 48
ROUGH_VIEWS = 16
# Views follow each other by this share of all, or little more.
GOLDEN = 0.382
# Cells a side of Poisson surfaces at most.
POISSON_CELLS = 320
# Loose pieces of less than this share of the largest one's area are no part of what others are fitted to.
SPECKS = 1e-3
# Faces of what FlexiCubes are fitted to: its search tree is built anew in every step.
TARGET_FACES = 120_000
N_FLEX_STEPS = 60
# The region of tetrahedra holds all but this share of the depths at each end of each axis.
OUTSIDE = 0.002


@dataclass(frozen=True)
class SurfaceSettings:
    """How a raw surface is found.

    Attributes:
        method: tsdf = average depths into signed distances; levelset = where the opacity of places crosses a level, on
            a lattice; tetrahedra = the same between points of the splats; poisson = a smooth surface through that of
            tsdf, open where that is; flexicubes = few triangles fitted to that of tsdf.
        voxel_size: Scene units; None from the resolution of the views.
        truncation_voxels: See FusionSettings.
        min_weight: See FusionSettings.
        level: Opacity at which levelset and tetrahedra see a surface.
        max_bytes: Memory at most.
        resolution: Cubes along the longest side of flexicubes.
        as_drawn: levelset and tetrahedra take splats with the blur of the views: for pictures, not for distances.
    """

    method: Method = "tsdf"
    voxel_size: float | None = None
    truncation_voxels: float = 4.0
    min_weight: float = 0.5
    level: float = LEVEL
    max_bytes: int = 2 << 30
    resolution: int = 128
    as_drawn: bool = False

    def __post_init__(self) -> None:
        if not 16 <= self.resolution <= 256:
            raise ValueError(f"resolution: expected 16 to 256 cubes, got {self.resolution}")

    @property
    def follows_depth(self) -> bool:
        """Whether the surface lies where depths say: what is as it is drawn lies where splats end."""
        return not (self.as_drawn and self.method in ("levelset", "tetrahedra"))


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
    if settings.as_drawn:
        scene = as_drawn(scene, views.cameras)
    fusion = FusionSettings(voxel_size, settings.truncation_voxels, settings.min_weight, settings.max_bytes)
    if settings.method in ("tsdf", "poisson", "flexicubes"):
        mesh = extract_surface(fuse(views.depths, views.cameras, fusion))
        if settings.method == "poisson":
            mesh = smooth_surface(mesh, settings, voxel_size)
        elif settings.method == "flexicubes":
            mesh = few_triangles(mesh, settings)
    elif settings.method == "levelset":
        mesh = level_surface(_opacity(scene, views, settings), views, fusion, settings.level)
    else:
        if settings.voxel_size is not None:
            _check_spacing(voxel_size, suggest_voxel_size(views.depths, views.cameras))
        points = tetra_points(scene.splats(), depth_region(views), SPACING * voxel_size)
        opacity = _opacity(scene, views, settings)
        long, precise = LONG_EDGE * voxel_size, PRECISION * voxel_size
        # Outlines are fitted to pictures later: fewer views are enough for where edges are crossed.
        rough = _opacity(scene, views, settings, ROUGH_VIEWS) if settings.as_drawn else None
        mesh = tetra_surface(opacity, points, settings.level, settings.max_bytes, long, precise, rough)
    logger.info("%s", f"voxels of {voxel_size:.4g}: {mesh.n_faces:,} triangles")
    return mesh


def _opacity(
    scene: Scene, views: SurfaceViews, settings: SurfaceSettings, max_views: int = OPACITY_VIEWS
) -> Callable[[Tensor], Tensor]:
    """Opacity of places by some views at most, exact from the level upwards."""
    some = choose_views(views.cameras, max_views, int(views.cameras.sizes.max()))
    # Neighbours see the same: with far ones next to each other, the first few see through to most of what is empty.
    n = len(some)
    step = next(step for step in range(max(1, round(GOLDEN * n)), n + 2) if math.gcd(step, n) == 1)
    spread = some.select([i * step % n for i in range(n)])
    return opacity_function(scene, spread, settings.level)


def _check_spacing(voxel_size: float, usual: float) -> None:
    """Nothing else tells: corners are those of splats, however large a voxel is."""
    least, most = usual / MOST_TIMES, usual * MOST_TIMES
    if not least <= voxel_size <= most:
        raise ValueError(
            f"voxel_size: {voxel_size:.4g} is far from pixels. Use {least:.3g} to {most:.3g}; {usual:.3g} is usual"
        )


def smooth_surface(raw: Mesh, settings: SurfaceSettings, voxel_size: float) -> Mesh:
    """Poisson's closed surface through a raw one, without what lies farther from it than three voxels or two cells."""
    raw = remove_specks(raw, SPECKS)
    size = float((raw.vertices.amax(dim=0) - raw.vertices.amin(dim=0)).max())
    cells = min(POISSON_CELLS, max(64, int(size / voxel_size / FILL) // 8 * 8))
    closed = close_surface(raw, cells, settings.max_bytes)
    reach = max(3 * voxel_size, 2 * size / (FILL * cells))
    near = closest_on_mesh(raw, closed.corners().mean(dim=1)).distances <= reach
    return closed.with_faces(near)


def few_triangles(raw: Mesh, settings: SurfaceSettings) -> Mesh:
    """FlexiCubes fitted to a raw surface."""
    raw = remove_specks(raw, SPECKS)
    if raw.n_faces > TARGET_FACES:
        raw = decimate(raw, TARGET_FACES)
    how = FlexSettings(settings.resolution, N_FLEX_STEPS, n_samples=4 * settings.resolution**2)
    with Progress(how.n_steps, "fitting cubes") as progress:
        return fit_open_surface(raw, how, lambda loss: progress.advance(), settings.max_bytes)


def depth_region(views: SurfaceViews) -> Tensor:
    """Low and high corner of the box in which the views see surfaces. [2, 3]"""
    points = torch.cat([world_points(image, views.cameras, i)[::7] for i, image in enumerate(views.depths)]).float()
    ends = torch.stack(
        [torch.quantile(points[:: 1 + len(points) // 200_000], q, dim=0) for q in (OUTSIDE, 1 - OUTSIDE)]
    )
    margin = 0.05 * (ends[1] - ends[0]).norm()
    return ends + torch.stack([-margin, margin])[:, None]
