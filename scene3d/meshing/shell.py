"""Adaptive shells (Wang et al. 2023): two meshes around the matter of a field, and marching between them only.

The outer mesh is the border of all cells that hold matter, filled up, and a margin; no ray needs a sample before it.
The inner one lies so deep in it that hardly any light gets there: no ray needs a sample behind it. Both are rasterized
like any mesh; of a ray, only the stretch between the two depths is sampled. Where no inner mesh lies behind a pixel the
ray goes on to the far side of the box.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.fields import Field
from scene3d.core.mesh import Mesh
from scene3d.meshing.block_grid import SIDE, evaluate_blocks, extract_surface
from scene3d.ops.occupancy import cell_centers
from scene3d.ops.rays import camera_rays, tiled_pixels
from scene3d.ops.triangles import view_mesh
from scene3d.render.density import density_at
from scene3d.render.field_cpu import NativeDecoder, NativeField
from scene3d.render.field_march import MarchSettings

CELLS = 160
# A cell of less opacity holds nothing.
MIN_ALPHA = 2e-3
# Cells, outwards from the border of what holds something.
OUTER_MARGIN = 0.75
# Lengths of stretches are rounded up to so many sizes: rays of one size are marched together.
N_LENGTHS = 12


@dataclass(frozen=True)
class Shell:
    """The band in which a field is looked at.

    Attributes:
        outer: Around all matter.
        inner: Behind which nothing is seen; may be empty.
    """

    outer: Mesh
    inner: Mesh


@dataclass(frozen=True)
class ShellView:
    """What a camera sees through a shell.

    Attributes:
        rgb: Over black. [H, W, 3]
        alpha: [H, W]
        n_samples: Of density, in all.
        n_rays: That met the shell.
    """

    rgb: Tensor
    alpha: Tensor
    n_samples: int
    n_rays: int


@torch.no_grad()
def extract_shell(field: Field, depth_cells: float = 3.0) -> Shell:
    """The shell of a field, from its density.

    Args:
        field: With matter in it.
        depth_cells: How far inside of the border of matter the inner mesh lies, cells of which the longest side of
            the box has 160. Smaller ones need fewer samples and cut matter that light reaches.

    Raises:
        ValueError: nothing in the box is dense, or the field has no bounds.
    """
    from scipy import ndimage

    if field.warp is not None:
        raise ValueError("field: expected one in a box, got one without bounds: no mesh goes around it")
    field = field.detach().to("cpu", torch.float32)
    size = field.box[1] - field.box[0]
    edge = float(size.amax()) / CELLS
    # Two empty cells on every side close the meshes.
    n = [int(v) + 5 for v in (size / edge).ceil().tolist()]
    low = field.box[0] - 2 * edge
    box = torch.stack([low, low + edge * torch.tensor(n)])
    shape = (n[2], n[1], n[0])
    taken = _holds_matter(field, box, shape, edge).numpy()
    if not taken.any():
        raise ValueError("field: expected matter in its box, found none")
    filled = ndimage.binary_fill_holes(taken)
    distance = ndimage.distance_transform_edt(~filled) - ndimage.distance_transform_edt(filled)
    values = torch.from_numpy(distance.astype(np.float32))
    meshes = [_level_set(values - level, box, edge) for level in (OUTER_MARGIN, -depth_cells)]
    return Shell(*meshes)


@torch.no_grad()
def render_shell(field: Field, shell: Shell, camera: Cameras) -> ShellView:
    """One view of a field, sampled between the meshes only.

    Args:
        field: Float32 on the CPU.
        shell: Of it.
        camera: One view.
    """
    width, height = camera.width(), camera.height()
    columns, rows = tiled_pixels(width, height)
    near, far = (view_mesh(mesh, camera).depth[rows, columns] for mesh in (shell.outer, shell.inner))
    met = near > 0
    columns, rows, near, far = columns[met], rows[met], near[met], far[met]
    view = torch.zeros(len(columns), dtype=torch.long)
    origins, directions = camera_rays(camera, view, columns, rows)
    ahead = directions @ camera.viewmats[0, 2, :3]
    begins = near / ahead
    span = float((field.box[1] - field.box[0]).norm())
    lengths = torch.where(far > near, (far - near) / ahead, span).clamp(max=span)
    rgb, alpha = torch.zeros(height, width, 3), torch.zeros(height, width)
    n_samples = 0
    decoder = NativeDecoder(field.decoder)
    size = (lengths / span * N_LENGTHS).ceil().clamp(1, N_LENGTHS)
    for k in size.unique().tolist():
        group = size == k
        native = NativeField(field, MarchSettings(far=k / N_LENGTHS * span))
        starts = origins[group] + begins[group, None] * directions[group]
        tape = native.new_tape()
        sums = native.march(starts, directions[group].contiguous(), None, tape)
        n_samples += tape.n_samples
        rgb[rows[group], columns[group]] = decoder.decode(sums.features, sums.opacity, directions[group].contiguous())
        alpha[rows[group], columns[group]] = sums.opacity
    return ShellView(rgb, alpha, n_samples, int(met.sum()))


def boxed(field: Field) -> Field:
    """The same without its knowledge of empty cells: what a march through the whole box costs."""
    return replace(field, occupancy=None)


def _holds_matter(field: Field, box: Tensor, shape: tuple[int, int, int], edge: float) -> Tensor:
    """Cells with matter at one of eight places in them. [Z, Y, X] bool"""
    centers = cell_centers(shape, box).reshape(-1, 3)
    taken = torch.zeros(len(centers), dtype=torch.bool)
    for corner in torch.cartesian_prod(*[torch.tensor([-0.25, 0.25])] * 3):
        alpha = 1 - torch.exp(-density_at(field, centers + corner * edge) * edge)
        taken |= alpha > MIN_ALPHA
    return taken.reshape(shape)


def _level_set(values: Tensor, box: Tensor, edge: float) -> Mesh:  # [Z, Y, X] at the centres of cells
    counts = torch.tensor(list(reversed(values.shape)))
    blocks = torch.cartesian_prod(*(torch.arange(-(-int(n) // SIDE)) for n in counts))

    def at(points: Tensor) -> Tensor:
        # Lattice points are the centres of cells; beyond the last ones everything is outside.
        place = ((points - box[0]) / edge - 0.5).round().long()
        inside = ((place >= 0) & (place < counts)).all(dim=1)
        x, y, z = torch.minimum(place.clamp_min(0), counts - 1).unbind(dim=1)
        return torch.where(inside, values[z, y, x], 1.0)

    grid = evaluate_blocks(blocks, box[0].double() + edge / 2, edge, at)
    return extract_surface(grid)
