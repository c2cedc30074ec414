"""Radial bases: bumps with centres and shapes of their own in a box, and which of them reach each cell of the box.

Places are 0 to 1 along every axis of the box. A basis is an ellipsoid: with q = |U (x - c)|^2, U upper triangular,
    phi(x) = (1 - q)^2 / (1 + 4 q) where q < 1, else 0:
the inverse quadratic of NeuRBF (Chen et al. 2023), brought to 0 at a distance. Channel r of a basis is sin(f_r phi):
one basis gives as many shapes as it has channels. Frequencies are evenly spaced in the logarithm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.core.checks import Dims

STEEPNESS = 4.0
# Bases that reach one cell, at most: native code has room for so many.
MAX_LISTED = 64


@dataclass(frozen=True)
class RadialBases:
    """N bases in two or three dimensions.

    Attributes:
        centers: 0 to 1 in the box. [N, D]
        shapes: Upper triangle of U, row by row. [N, D (D + 1) / 2]
        waves: Least and greatest frequency; 0 and 0: each channel is phi itself.
        cells: Of the box, along z y x (y x in two dimensions).
        starts: First item of each cell, x fastest, and the end of the last. [cells + 1] int32
        items: Bases that reach the cell. [E] int32
    """

    centers: Tensor
    shapes: Tensor
    waves: tuple[float, float]
    cells: tuple[int, ...]
    starts: Tensor
    items: Tensor

    def __post_init__(self) -> None:
        dims, d = Dims(), self.n_dims
        if d not in (2, 3) or len(self.cells) != d:
            raise ValueError(f"bases: expected two or three dimensions, got {d} and cells {list(self.cells)}")
        dims.check("centers", self.centers, f"N {d}")
        dims.check("shapes", self.shapes, f"N {d * (d + 1) // 2}", self.centers.dtype)
        dims.check("items", self.items, "E", torch.int32)
        dims.check("starts", self.starts, f"{torch.Size(self.cells).numel() + 1}", torch.int32)
        check_waves(self.waves)

    @property
    def n_dims(self) -> int:
        return self.centers.shape[-1]

    def __len__(self) -> int:
        return len(self.centers)

    def frequencies(self, n: int) -> Tensor:
        """Frequency of each of n channels; all 0 where channels are phi itself. [n]"""
        if self.waves[1] == 0:
            return torch.zeros(n, dtype=self.centers.dtype, device=self.centers.device)
        least, greatest = (torch.tensor(wave, dtype=torch.float64).log() for wave in self.waves)
        steps = torch.linspace(0, 1, n, dtype=torch.float64)
        return (least + steps * (greatest - least)).exp().to(self.centers)

    def map(self, function: Callable[[Tensor], Tensor]) -> RadialBases:
        """Apply `function` to centres and shapes."""
        return replace(self, centers=function(self.centers), shapes=function(self.shapes))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> RadialBases:
        moved = self.map(lambda value: value.to(device=device, dtype=dtype))
        return replace(moved, starts=self.starts.to(device=device), items=self.items.to(device=device))


def check_waves(waves: tuple[float, float]) -> None:
    """Check the least and the greatest frequency.

    Raises:
        ValueError: they are none.
    """
    least, greatest = waves
    if not (0 < least <= greatest <= 1000 or least == greatest == 0):
        raise ValueError(f"waves: expected 0 < least <= greatest <= 1000, or 0 and 0, got {list(waves)}")
