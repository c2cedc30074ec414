"""Places where the matter of a scene is: what camera paths and conversions begin with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.ops.occupancy import cell_centers
from scene3d.ops.warp import frame_weights, world_points

# Far cells of a field without bounds are large: their weight falls with the power of their distance.
FAR_POWER = -3


@dataclass(frozen=True)
class ScenePoints:
    """P places.

    Attributes:
        positions: World. [P, 3]
        weights: How much of the scene each stands for: opacities of Gaussians, 1 for cells of a field, less for those
            that lie far away in a field without bounds. [P]
    """

    positions: Tensor
    weights: Tensor


@torch.no_grad()
def scene_points(scene: Scene) -> ScenePoints:
    """Centres of finite Gaussians, or of the occupied cells of a field (of its box where none are known)."""
    payload = scene.payload
    if isinstance(payload, Gaussians):
        return gaussian_points(payload)
    cells = payload.occupancy
    if cells is None:
        cells = torch.ones(2, 2, 2, dtype=torch.bool)
    shape = (cells.shape[0], cells.shape[1], cells.shape[2])
    positions = cell_centers(shape, payload.box.detach().cpu())[cells.cpu()]
    if payload.warp is None:
        return ScenePoints(positions, torch.ones(len(positions), dtype=positions.dtype))
    return ScenePoints(world_points(payload.warp, positions), frame_weights(payload.warp, positions) ** FAR_POWER)


@torch.no_grad()
def gaussian_points(gaussians: Gaussians) -> ScenePoints:
    """Centres and opacities of finite Gaussians."""
    finite = gaussians.detach().select(gaussians.is_finite())
    return ScenePoints(finite.means, finite.opacities)
