"""Discs: flat Gaussians as one camera sees them, which is what every kind of native code draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Discs:
    """Gaussians as one camera sees them.

    Attributes:
        matrices: Columns: both axes times their scales, and the centre, in the camera. [N, 3, 3]
        opacities: [N]
        rgb: [N, 3]
        normals: Unit, facing the camera, world. [N, 3]
    """

    matrices: Tensor
    opacities: Tensor
    rgb: Tensor
    normals: Tensor

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All of them."""
        return self.matrices, self.opacities, self.rgb, self.normals


def screen_gradient(matrices: Tensor, v_matrices: Tensor, focal: tuple[float, float], radii: Tensor) -> Tensor:
    """Length of the gradient by the centre on the screen, per pixel; 0 for discs that are not seen. [N]"""
    # A step of one pixel moves the centre by z / f.
    v_center, z = v_matrices[:, :2, 2], matrices[:, 2, 2]
    per_pixel = v_center * z[:, None] / torch.tensor(focal, dtype=z.dtype, device=z.device)
    return torch.where(radii > 0, per_pixel.norm(dim=1), 0.0)
