"""Density of a scene at points: what level sets, occupancy and conversions ask for."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.fields import Field
from scene3d.ops.factor_grid import density_feature, node_coordinates
from scene3d.ops.occupancy import is_occupied
from scene3d.ops.warp import frame_points, stretch
from scene3d.render import field_cpu


@torch.no_grad()
def density_at(field: Field, points: Tensor) -> Tensor:
    """Density per scene unit; 0 outside of the box and in empty cells. Of a field without bounds what is far is as
    dense as it is along rays from the near region.

    Args:
        field: What to ask.
        points: World, dtype and device of the field. [P, 3]

    Returns:
        [P].
    """
    world_step: Tensor | float = 1.0
    if field.warp is not None:
        points = frame_points(field.warp, points)
        world_step = stretch(field.warp, points.nan_to_num(0.0))
    is_inside = ((points >= field.box[0]) & (points <= field.box[1])).all(dim=1)
    if field.occupancy is not None:
        is_inside &= is_occupied(field.occupancy, field.box, points.nan_to_num(0.0))
    # What lies outside is looked up somewhere inside, and then left out.
    held = torch.minimum(torch.maximum(points.nan_to_num(0.0), field.box[0]), field.box[1])
    if field_cpu.is_available() and field.device.type == "cpu":
        feature = field_cpu.NativeField(field).density_features(held)
    else:
        feature = density_feature(field, node_coordinates(field, held))
    density = field.density_scale * torch.nn.functional.softplus(feature + field.density_shift)
    return torch.where(is_inside, density * world_step, 0.0)
