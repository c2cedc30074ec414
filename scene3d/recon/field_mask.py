"""Which cells of a field are empty: found from its density, and never so that nothing is left."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from scene3d.core.fields import Field
from scene3d.ops.occupancy import cell_centers, dilate, is_occupied
from scene3d.render.field_device import native_field

# A cell whose opacity along one step is below counts as empty.
MIN_CELL_ALPHA = 1e-4
MAX_CELLS = 160**3

logger = logging.getLogger(__name__)


@torch.no_grad()
def find_occupied(field: Field, keep_cells: float, min_alpha: float = MIN_CELL_ALPHA) -> Tensor:
    """Cells of the box that hold density, with their neighbours; empty ones of before stay empty. [Z, Y, X] bool

    Args:
        field: As fitted so far.
        keep_cells: Where fewer than this share of the cells hold anything, the densest ones are kept, with a warning.
        min_alpha: Opacity along one step below which a cell is empty.

    Raises:
        ValueError: a density is not finite.
    """
    shape = _cell_shape(field)
    centers = cell_centers(shape, field.box).reshape(-1, 3)
    asked = torch.arange(len(centers), device=centers.device)
    if field.occupancy is not None:
        asked = asked[is_occupied(field.occupancy, field.box, centers)]
    features = native_field(field).density_features(centers[asked])
    if not bool(features.isfinite().all()):
        words = "expected finite densities, got others: check the poses and photos, or use a smaller --field.lr-factors"
        raise ValueError(f"field: {words}")
    optical = torch.nn.functional.softplus(features + field.density_shift) * (field.density_scale * field.step)
    alpha = torch.zeros_like(centers[:, 0])
    alpha[asked] = (1 - torch.exp(-optical)).nan_to_num(0.0)
    taken = alpha > min_alpha
    n_least = max(1, round(keep_cells * len(alpha)))
    if int(taken.sum()) < n_least:
        logger.warning(
            "the field is nearly empty (%d of %d cells): kept the densest %.2g %%. Check the box, the background and "
            "the poses",
            int(taken.sum()),
            len(taken),
            100 * keep_cells,
        )
        taken = torch.zeros_like(taken)
        taken[alpha.topk(n_least).indices] = True
    cells = dilate(taken.reshape(shape))
    if field.occupancy is not None:
        # Dilation must not creep back, mask after mask.
        cells &= is_occupied(field.occupancy, field.box, centers).reshape(shape)
    return cells


def _cell_shape(field: Field) -> tuple[int, int, int]:  # Z Y X, about a cell per node
    x, y, z = field.resolution
    shrink = min(1.0, (MAX_CELLS / (x * y * z)) ** (1 / 3))
    return max(2, round(z * shrink)), max(2, round(y * shrink)), max(2, round(x * shrink))
