"""Gaussians: the parameters of N anisotropic 3D Gaussians with spherical-harmonics colour.

Stored values are those that are optimised: log scales, opacity logits, quaternions (wxyz) of any length.
The bare names `scales` and `opacities` are the activated values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from scene3d.core.checks import Dims

SH_COUNTS = (1, 4, 9, 16)


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians.

    Attributes:
        means: Centres, world, scene units. [N, 3]
        quats: Rotations, wxyz, any non-zero length. [N, 4]
        log_scales: Natural logarithm of the standard deviations along the axes. [N, 3]
        opacity_logits: Opacity before the sigmoid. [N]
        sh0: Degree-0 colour coefficient. [N, 1, 3]
        shN: Coefficients of the higher degrees, K in (1, 4, 9, 16). [N, K-1, 3]
    """

    means: Tensor
    quats: Tensor
    log_scales: Tensor
    opacity_logits: Tensor
    sh0: Tensor
    shN: Tensor

    def __post_init__(self) -> None:
        dims = Dims()
        dims.check("means", self.means, "N 3")
        dims.check("quats", self.quats, "N 4")
        dims.check("log_scales", self.log_scales, "N 3")
        dims.check("opacity_logits", self.opacity_logits, "N")
        dims.check("sh0", self.sh0, "N 1 3")
        dims.check("shN", self.shN, "N K-1 3")
        if self.shN.shape[1] + 1 not in SH_COUNTS:
            raise ValueError(f"shN: expected 0, 3, 8 or 15 coefficients, got {self.shN.shape[1]}")

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def scales(self) -> Tensor:
        """Standard deviations. [N, 3]"""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Tensor:
        """Opacities in (0, 1). [N]"""
        return self.opacity_logits.sigmoid()

    @property
    def sh_degree(self) -> int:
        """Highest spherical-harmonics degree stored, 0 to 3."""
        return SH_COUNTS.index(self.shN.shape[1] + 1)

    @property
    def device(self) -> torch.device:
        return self.means.device

    @property
    def dtype(self) -> torch.dtype:
        return self.means.dtype

    def params(self) -> dict[str, Tensor]:
        """The tensors by name, in the order of the fields."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def map(self, function: Callable[[Tensor], Tensor]) -> Gaussians:
        """Apply `function` to every tensor."""
        return Gaussians(**{name: function(value) for name, value in self.params().items()})

    def select(self, index: Tensor) -> Gaussians:
        """Keep rows by boolean mask [N] or by index [M]."""
        return self.map(lambda value: value[index])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Gaussians:
        return self.map(lambda value: value.to(device=device, dtype=dtype))

    def detach(self) -> Gaussians:
        return self.map(lambda value: value.detach())

    def is_finite(self) -> Tensor:
        """Which Gaussians hold only finite numbers. [N] bool"""
        flat = [value.reshape(len(self), value[0].numel() if len(self) else 0) for value in self.params().values()]
        return torch.stack([v.isfinite().all(dim=1) for v in flat]).all(dim=0)


def cat(parts: list[Gaussians]) -> Gaussians:
    """Concatenate Gaussians along N, all brought to the highest SH degree among them; none give none."""
    if not parts:
        return Gaussians(*(torch.zeros(0, *shape) for shape in ((3,), (4,), (3,), (), (1, 3), (0, 3))))
    count = max(part.shN.shape[1] for part in parts)
    rows = [{**part.params(), "shN": _padded(part.shN, count)} for part in parts]
    return Gaussians(**{name: torch.cat([row[name] for row in rows]) for name in rows[0]})


def _padded(shN: Tensor, count: int) -> Tensor:  # [N, K-1, 3] -> [N, count, 3]
    missing = count - shN.shape[1]
    return torch.cat([shN, shN.new_zeros(len(shN), missing, 3)], dim=1) if missing else shN
