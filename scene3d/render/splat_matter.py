"""Where the matter of splats is: density and occupied cells of a grid, by drawing points from every Gaussian.

Splats have no density, only opacities on the screen. A Gaussian of opacity o and standard deviations s1 >= s2 >= s3
has, seen along its shortest axis, the optical depth -log(1 - o) in its middle, so 2 pi s1 s2 times that in all: this is
shared by points drawn from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.gaussians import Gaussians
from scene3d.ops import quaternions

DRAWS = 64
MAX_OPACITY = 0.99
ROWS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class MatterGrid:
    """Density in cells of a box.

    Attributes:
        box: [2, 3]
        density: Per scene unit. [Z, Y, X]
    """

    box: Tensor
    density: Tensor

    def at(self, points: Tensor) -> Tensor:
        """Density at points, that of their cells; 0 outside. [P, 3] to [P]"""
        size = torch.tensor(list(reversed(self.density.shape)), dtype=points.dtype)
        place = (points - self.box[0]) / (self.box[1] - self.box[0]) * size
        inside = ((place >= 0) & (place < size)).all(dim=1)
        x, y, z = torch.minimum(place.clamp_min(0), size - 1).long().unbind(dim=1)
        return torch.where(inside, self.density[z, y, x], 0.0)


@torch.no_grad()
def splat_matter(gaussians: Gaussians, box: Tensor, shape: tuple[int, int, int], seed: int = 0) -> MatterGrid:
    """Density of splats in the cells of a box.

    Args:
        gaussians: Finite ones; what lies outside of the box is left out.
        box: [2, 3]
        shape: Cells along z, y, x.
        seed: Of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    splats = gaussians.detach().to("cpu", torch.float32)
    size = torch.tensor(list(reversed(shape)), dtype=torch.float32)
    total = torch.zeros(math.prod(shape))
    scales = splats.scales.sort(dim=1, descending=True).values
    depth = -torch.log1p(-splats.opacities.clamp(max=MAX_OPACITY))
    mass = depth * 2 * math.pi * scales[:, 0] * scales[:, 1] / DRAWS
    for start in range(0, len(splats), ROWS_AT_ONCE):
        part = splats.select(torch.arange(start, min(start + ROWS_AT_ONCE, len(splats))))
        draws = torch.randn(len(part), DRAWS, 3, generator=generator)
        axes = quaternions.to_rotmat(part.quats)
        points = part.means[:, None] + (draws * part.scales[:, None]) @ axes.transpose(1, 2)
        place = ((points - box[0]) / (box[1] - box[0]) * size).reshape(-1, 3)
        inside = ((place >= 0) & (place < size)).all(dim=1)
        x, y, z = place[inside].long().unbind(dim=1)
        weights = mass[start : start + len(part), None].expand(-1, DRAWS).reshape(-1)[inside]
        total.index_add_(0, (z * shape[1] + y) * shape[2] + x, weights)
    volume = float(((box[1] - box[0]) / size).prod())
    return MatterGrid(box, (total / volume).reshape(shape))
