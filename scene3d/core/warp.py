"""Warp: the frame in which a field without bounds lives, so that what is far takes little room.

y = frame_from_world (x, 1) turns, moves and scales the world. What lies outside of a near region is then divided by a
weight w, so that lines stay straight piece by piece:
    cube     w = max |y_i|. Where w <= 1, u = y; beyond, u_j = sign(y_j) (2 - 1 / w) on the largest axis and y_l / w on
             the others: all of space lies in the cube of side 4 (MERF, Reiser et al. 2023, equation 5).
    frustum  w = y_z, at least 1. u = (y_x / w, y_y / w, 1 - 1 / w): what cameras that look one way see, in the
             normalised device coordinates of NeRF (Mildenhall et al. 2020), z forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scene3d.core.checks import Dims

WarpKind = Literal["cube", "frustum"]
WARP_KINDS: tuple[WarpKind, ...] = ("cube", "frustum")


@dataclass(frozen=True)
class Warp:
    """From the world to the frame of a field.

    Attributes:
        kind: See above.
        frame_from_world: A turn, a shift and one scale. [3, 4]
    """

    kind: WarpKind
    frame_from_world: Tensor

    def __post_init__(self) -> None:
        if self.kind not in WARP_KINDS:
            raise ValueError(f"kind: expected one of {', '.join(WARP_KINDS)}, got {self.kind!r}")
        Dims().check("frame_from_world", self.frame_from_world, "3 4")
        matrix = self.frame_from_world[:, :3].detach().double().cpu()
        square, scale = matrix @ matrix.T, self.scale
        # Numbers of a file are float32.
        is_similar = (square - scale * scale * torch.eye(3, dtype=torch.float64)).abs().amax() < 1e-4 * scale * scale
        if not bool(is_similar and self.frame_from_world.isfinite().all() and scale > 0):
            raise ValueError(f"frame_from_world: expected a turn times one scale, got {matrix.tolist()}")

    @property
    def scale(self) -> float:
        """Lengths in the near region of the frame per scene unit."""
        matrix = self.frame_from_world[:, :3].detach().double().cpu()
        return float(torch.linalg.det(matrix).abs() ** (1 / 3))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Warp:
        return Warp(self.kind, self.frame_from_world.to(device=device, dtype=dtype))
