"""What the strategies of density control share: gradient statistics, the clock of a run, row sampling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.recon.settings import StrategySettings
from scene3d.render.types import RasterStats


@dataclass
class GradStats:
    """Screen gradients since the last refinement.

    Attributes:
        sums: Sum of |dL/d means2d|, half image sizes. [N]
        counts: Number of views in which the Gaussian was visible. [N]
    """

    sums: Tensor
    counts: Tensor

    @classmethod
    def zeros(cls, n: int, device: torch.device | None = None) -> GradStats:
        return cls(torch.zeros(n, device=device), torch.zeros(n, device=device))

    def to(self, device: torch.device) -> GradStats:
        return GradStats(self.sums.to(device), self.counts.to(device))

    def add(self, stats: RasterStats, visible: Tensor, half_size: float) -> None:
        """Add the only view of one call. visible [N] uint8; half_size, pixels, makes resolutions comparable."""
        self.sums.add_(stats.grad2d[0], alpha=half_size)
        self.counts.add_(visible)

    def mean(self) -> Tensor:
        """Mean gradient over the views that saw each Gaussian. [N]"""
        return self.sums / self.counts.clamp(min=1.0)

    def select(self, index: Tensor) -> GradStats:
        return GradStats(self.sums[index], self.counts[index])


@dataclass(frozen=True)
class Clock:
    """Where a run is.

    Attributes:
        step: Steps done.
        fraction: Part of the run done, 0 to 1.
        previous: Fraction one step before.
    """

    step: int
    fraction: float
    previous: float

    def crosses(self, period: float) -> bool:
        """Whether a multiple of `period`, a fraction of the run, was passed by the last step."""
        # The tiny shift keeps 30 * 0.1 and its like on the side of the multiple that is meant.
        return period > 0 and int(self.fraction / period + 1e-9) > int(self.previous / period + 1e-9)


def is_refine_step(settings: StrategySettings, clock: Clock) -> bool:
    """Whether Gaussians are added, moved or removed after this step."""
    in_window = settings.refine_start <= clock.fraction < settings.refine_stop
    return in_window and clock.step % settings.refine_every == 0


def count_limit(settings: StrategySettings, fraction: float, n_start: int) -> int:
    """Most Gaussians at `fraction` of the run: the primitive schedule.

    The count rises in proportion from n_start to cap_max at grow_until: while images are coarse, few are needed,
    and every step costs time in proportion to the count.
    """
    if settings.cap_max <= n_start or fraction >= settings.grow_until:
        return settings.cap_max
    return int(n_start * (settings.cap_max / max(n_start, 1)) ** (fraction / settings.grow_until))


def sample_rows(weights: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw n rows with replacement, in proportion to weights [N] >= 0 (not all zero). Returns indices [n]."""
    # A serial cumulative sum in float64: the same draw on any machine, unlike torch.multinomial's blocks.
    edges = weights.cpu().double().cumsum(0)
    draws = torch.rand(n, dtype=torch.float64, generator=generator) * edges[-1]
    return torch.searchsorted(edges, draws, right=True).clamp(max=len(weights) - 1).to(weights.device)
