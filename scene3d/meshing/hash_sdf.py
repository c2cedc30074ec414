"""Signed distances in a hash grid whose levels come in one by one, coarse ones first (Li et al. 2023, Neuralangelo).

Fitted to any field of signed distances by asking it at random places, most of them near its surface. Coarse levels
alone find the shape; fine ones, switched on later, only add what is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.core.mesh import Mesh
from scene3d.ops.hash_field import HashField, new_field
from scene3d.ops.triangles import sample_surface

# Places near the surface lie off it by these shares of the size of the scene, others anywhere in the box.
NEAR = (0.005, 0.05)


@dataclass(frozen=True)
class HashSdfSettings:
    """How to fit.

    Attributes:
        n_levels: Grids, each finer than the one before.
        n_row_bits: Logarithm of the rows of a table, base 2.
        first_levels: Levels in use at the beginning.
        all_from: Fraction of the steps from which all are.
        n_steps: Of Adam.
        n_points: Places a step.
        lr: First step size, falling to a twentieth.
        seed: Of tables and places.
    """

    n_levels: int = 8
    n_row_bits: int = 13
    first_levels: int = 2
    all_from: float = 0.6
    n_steps: int = 300
    n_points: int = 4096
    lr: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.first_levels <= self.n_levels <= 16:
            raise ValueError(f"first_levels: expected 1 to n_levels, at most 16, got {self.first_levels}")
        if not 0 < self.all_from <= 1:
            raise ValueError(f"all_from: expected a fraction above 0, got {self.all_from}")


@dataclass(frozen=True)
class HashSdf:
    """Signed distances, negative inside.

    Attributes:
        field: Its one output is the distance in units of `size`.
        size: Half the longest side of what it was fitted to.
    """

    field: HashField
    size: float

    @torch.no_grad()
    def __call__(self, points: Tensor) -> Tensor:
        """Distances at points [P, 3]. [P]"""
        return self.size * self.field(points)[:, 0]


def active_levels(settings: HashSdfSettings, fraction: float) -> int:
    """Levels in use at a fraction of the run."""
    more = (settings.n_levels - settings.first_levels) * min(1.0, fraction / settings.all_from)
    return settings.first_levels + int(more + 1e-9)


def fit_hash_sdf(
    target: Mesh,
    distance: Callable[[Tensor], Tensor],
    settings: HashSdfSettings = HashSdfSettings(),
) -> HashSdf:
    """Fit a hash grid to signed distances.

    Args:
        target: The surface: places are drawn near it.
        distance: Signed distances from places [P, 3] to [P], of the target or of whatever lies near it.
        settings: How.
    """
    low, high = target.vertices.amin(dim=0), target.vertices.amax(dim=0)
    size = float((high - low).max()) / 2
    field = new_field(target.vertices, 1, settings.n_levels, settings.n_row_bits, seed=settings.seed)
    # All of the box lies in the part of space that is not contracted.
    field = replace(field, center=(low + high) / 2, scale=2 * size)
    learned = [field.tables, *field.layers]
    for value in learned:
        value.requires_grad_()
    optimizer = torch.optim.Adam(learned, lr=settings.lr)
    generator = torch.Generator().manual_seed(settings.seed)
    for step in range(settings.n_steps):
        done = step / settings.n_steps
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * 0.05**done
        places = _places(target, size, settings, settings.seed + step, generator)
        used = torch.arange(settings.n_levels) < active_levels(settings, done)
        # A level that is off gives zeros, and gets no gradient.
        masked = replace(field, tables=field.tables * used[:, None, None])
        loss = (masked(places)[:, 0] - distance(places) / size).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    final = replace(field, tables=field.tables.detach(), layers=tuple(v.detach() for v in field.layers))
    return HashSdf(final, size)


def _places(target: Mesh, size: float, settings: HashSdfSettings, seed: int, generator: torch.Generator) -> Tensor:
    n = settings.n_points
    points, _ = sample_surface(target, n * 3 // 4, seed)
    sigma = torch.where(torch.rand(len(points), 1, generator=generator) < 0.5, *(2 * size * share for share in NEAR))
    near = points + sigma * torch.randn(len(points), 3, generator=generator)
    middle = (target.vertices.amin(dim=0) + target.vertices.amax(dim=0)) / 2
    anywhere = middle + 1.2 * size * (2 * torch.rand(n - len(points), 3, generator=generator) - 1)
    return torch.cat([near, anywhere])
