"""Adaptive shells (Wang et al. 2023): two meshes around the matter of a scene; fields are sampled between them only.

The outer mesh is the border of all cells that hold matter, filled up, and a margin; no ray needs a sample before it.
The inner one lies where no light of a million rays from all around gets: no ray needs a sample behind it. So the band
is narrow at hard surfaces and wide in haze. Matter is where a field is dense, or where splats are (by their opacity);
of splats, the inner mesh lies at a fixed depth.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from scene3d.core.fields import Field
from scene3d.core.gaussians import Gaussians
from scene3d.core.mesh import Mesh
from scene3d.core.scene import Scene
from scene3d.core.shell import Shell
from scene3d.meshing.block_grid import SIDE, evaluate_blocks, extract_surface
from scene3d.ops.occupancy import cell_centers, dilate, is_occupied
from scene3d.render.density import density_at
from scene3d.render.field_cpu import NativeField
from scene3d.render.splat_matter import splat_matter

CELLS = 128
# Rays that look for places with light, and the share of their light that counts.
N_RAYS, RAYS_AT_ONCE, MIN_LIGHT = 1 << 20, 1 << 17, 1 / 64
# Cells between the inner mesh and the last light, and of splats between it and the border of matter.
DEPTH, SPLAT_DEPTH = 0.5, 3.0
# The meshes are drawn for each view: triangles are so many cells long.
MESH_CELLS = 2
# A cell of less opacity holds nothing. Splats are drawn from, point by point: what few points hit is chance.
MIN_ALPHA, MIN_SPLAT_ALPHA = 2e-3, 2e-2
# Cells, outwards from the border of what holds something.
OUTER_MARGIN = 1.25
# Between points drawn from splats, cells up to so many apart are one.
GAP_CELLS = 2
# The box of splats, so many standard deviations around each, leaves out this share of them on every side.
SPLAT_OUTLIERS, SPLAT_REACH = 0.002, 3.0

logger = logging.getLogger(__name__)


@torch.no_grad()
def extract_shell(scene: Scene, min_light: float = MIN_LIGHT) -> Shell:
    """The shell of a scene, from its density or its opacity.

    Args:
        scene: With matter in it.
        min_light: The inner mesh lies where a smaller share of light gets. Larger values need fewer samples, and may
            cut what is seen. Of splats it lies three cells behind the border of matter.

    Raises:
        ValueError: nothing is dense, or the scene has no bounds.
    """
    from scipy import ndimage

    if not 0 < min_light < 1:
        raise ValueError(f"min_light: expected more than 0 and less than 1, got {min_light}")
    box = _box(scene)
    size = box[1] - box[0]
    edge = float(size.amax()) / CELLS
    # Two empty cells on every side close the meshes.
    n = [int(v) + 5 for v in (size / edge).ceil().tolist()]
    low = box[0] - 2 * edge
    box = torch.stack([low, low + edge * torch.tensor(n)])
    shape = (n[2], n[1], n[0])
    payload, depth = scene.payload, DEPTH
    if isinstance(payload, Gaussians):
        depth = SPLAT_DEPTH
        taken = -torch.expm1(-splat_matter(payload, box, shape).density * edge) > MIN_SPLAT_ALPHA
        taken = _without_border(torch.from_numpy(ndimage.binary_closing(taken.numpy(), np.ones((3, 3, 3)), GAP_CELLS)))
        dark = taken
    else:
        field = payload.detach().to("cpu", torch.float32)
        taken = _holds_matter(field, box, shape, edge)
        dark = taken & ~_is_lit(field, box, shape, edge, min_light)
    if not bool(taken.any()):
        raise ValueError(f"scene: expected matter to put a shell around, found none in {scene.size_text()}")
    levels = ((taken, OUTER_MARGIN), (dark, -depth))
    return Shell(*(_level_set(_distances(cells) - level, box, edge) for cells, level in levels))


def _box(scene: Scene) -> Tensor:  # [2, 3] float32
    payload = scene.payload
    if isinstance(payload, Field):
        if payload.warp is not None:
            raise ValueError("scene: expected one in a box, got a field without bounds: no mesh goes around it")
        return payload.box.detach().cpu().float()
    splats = payload.detach().to("cpu", torch.float32)
    splats = splats.select(splats.is_finite())
    if len(splats) == 0:
        raise ValueError("scene: expected matter to put a shell around, found no finite Gaussian")
    reach = SPLAT_REACH * splats.scales.amax(dim=1, keepdim=True)
    ends = np.quantile((splats.means - reach).numpy(), SPLAT_OUTLIERS, axis=0)
    box = torch.from_numpy(
        np.stack([ends, np.quantile((splats.means + reach).numpy(), 1 - SPLAT_OUTLIERS, axis=0)])
    ).float()
    outside = ((splats.means < box[0]) | (splats.means > box[1])).any(dim=1).float().mean()
    if outside > 2 * SPLAT_OUTLIERS:
        logger.warning("%.1f %% of the Gaussians lie outside of the shell", 100 * float(outside))
    return box


def _without_border(taken: Tensor) -> Tensor:
    """Two empty cells on every side: Gaussians reach beyond any box."""
    inside = torch.zeros_like(taken)
    inside[2:-2, 2:-2, 2:-2] = taken[2:-2, 2:-2, 2:-2]
    return inside


def _holds_matter(field: Field, box: Tensor, shape: tuple[int, int, int], edge: float) -> Tensor:
    """Cells with matter at one of eight places in them. [Z, Y, X] bool"""
    centers = cell_centers(shape, box).reshape(-1, 3)
    taken = torch.zeros(len(centers), dtype=torch.bool)
    for corner in torch.cartesian_prod(*[torch.tensor([-0.25, 0.25])] * 3):
        alpha = 1 - torch.exp(-density_at(field, centers + corner * edge) * edge)
        taken |= alpha > MIN_ALPHA
    return taken.reshape(shape)


def _is_lit(field: Field, box: Tensor, shape: tuple[int, int, int], edge: float, least: float) -> Tensor:
    """Cells that more than the least light from anywhere reaches, and those around them. [Z, Y, X] bool"""
    generator = torch.Generator().manual_seed(0)
    low, size = field.box[0], field.box[1] - field.box[0]
    x, y, z = (int(v) for v in (size / edge).ceil().tolist())
    lit, native = torch.zeros(z, y, x, dtype=torch.uint8), NativeField(field)
    for _ in range(N_RAYS // RAYS_AT_ONCE):
        way = torch.randn(RAYS_AT_ONCE, 3, generator=generator)
        way = way / way.norm(dim=1, keepdim=True)
        places = low + size * torch.rand(RAYS_AT_ONCE, 3, generator=generator)
        native.seen_cells(places - float(size.norm()) * way, way, least, lit, is_light=True)
    return dilate(is_occupied(lit.bool(), field.box, cell_centers(shape, box)))


def _distances(cells: Tensor) -> Tensor:
    """To the border of cells and what they enclose, in cells, negative inside. [Z, Y, X] bool to float32"""
    from scipy import ndimage

    filled = ndimage.binary_fill_holes(cells.numpy())
    distance = ndimage.distance_transform_edt(~filled) - ndimage.distance_transform_edt(filled)
    return torch.from_numpy(distance.astype(np.float32))


def _level_set(values: Tensor, box: Tensor, edge: float) -> Mesh:  # [Z, Y, X] at the centres of cells
    counts = torch.tensor(list(reversed(values.shape)))
    blocks = torch.cartesian_prod(*(torch.arange(-(-int(n) // (MESH_CELLS * SIDE))) for n in counts))

    def at(points: Tensor) -> Tensor:
        # Lattice points are the centres of cells; beyond the last ones everything is outside.
        place = ((points - box[0]) / edge - 0.5).round().long()
        inside = ((place >= 0) & (place < counts)).all(dim=1)
        x, y, z = torch.minimum(place.clamp_min(0), counts - 1).unbind(dim=1)
        return torch.where(inside, values[z, y, x], 1.0)

    grid = evaluate_blocks(blocks, box[0].double() + edge / 2, MESH_CELLS * edge, at)
    return extract_surface(grid)
