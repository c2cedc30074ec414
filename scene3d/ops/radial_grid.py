"""A function of place as a pyramid of grids, radial bases beside it, and a small network: NeuRBF for images and for
signed distances (Chen et al. 2023, section 4).

Places are 0 to 1 along each of two or three axes. Grids know a little everywhere, bases much where something changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from scene3d.core.bases import RadialBases
from scene3d.ops.radial_bases import channels, clustered, even, listed, near

N_LEVELS, N_FEATURES, HIDDEN = 4, 4, 32
# Numbers of a basis besides its row: centre and shape.
PLACE_NUMBERS = {2: 5, 3: 9}
LEAST_WAVE = 1.0
# Steps after which bases that have moved are listed anew.
RELIST_EVERY = 20
# First step sizes of centres and shapes, over the median half extent and the median diagonal.
CENTER_RATE, SHAPE_RATE = 0.02, 0.02
# Bases stay smaller than the box.
LEAST_DIAGONAL = 1.5


@dataclass(frozen=True)
class RadialGridSettings:
    """How to spend numbers, and how to fit.

    Attributes:
        n_numbers: In all, network, centres and shapes among them.
        share: Of them in bases; 0 = grids alone.
        placing: kmeans = where weight is, shaped like what is there; even = round, anywhere.
        waves: Greatest frequency of the sines of a basis; 0 = none.
        rank: Channels of a basis.
        learns_places: Centres and shapes are fitted too.
        n_steps: Of Adam.
        n_points: Samples of a step.
        lr: First step size of grids and rows, falling to a hundredth; the network has a tenth.
        seed: Of first values, clusters and samples.
    """

    n_numbers: int = 50_000
    share: float = 0.5
    placing: Literal["kmeans", "even"] = "kmeans"
    waves: float = 8.0
    rank: int = 8
    learns_places: bool = True
    n_steps: int = 400
    n_points: int = 8192
    lr: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if not 5000 <= self.n_numbers <= 50_000_000:
            raise ValueError(f"n_numbers: expected 5,000 to 50,000,000, got {self.n_numbers}")
        if not 0 <= self.share <= 0.9:
            raise ValueError(f"share: expected 0 to 0.9, got {self.share}")
        if not (self.waves == 0 or 1 <= self.waves <= 1000):
            raise ValueError(f"waves: expected 0 or 1 to 1000, got {self.waves}")
        if min(self.rank, self.n_steps, self.n_points) < 1:
            raise ValueError("rank, n_steps, n_points: expected at least 1")


@dataclass(frozen=True)
class RadialGrid:
    """The function.

    Attributes:
        grids: Features at nodes, coarse to fine; the first and the last node lie on the faces. [F, (Z,) Y, X] each
        bases: None where there are grids alone.
        rows: Of the bases. [N, R]
        layers: Weights and biases: [L F + R, H], [H], [H, H], [H], [H, O], [O]
    """

    grids: tuple[Tensor, ...]
    bases: RadialBases | None
    rows: Tensor
    layers: tuple[Tensor, ...]

    @property
    def n_numbers(self) -> int:
        """Parameters in all, centres and shapes of bases among them."""
        places = 0 if self.bases is None else self.bases.centers.numel() + self.bases.shapes.numel()
        return places + sum(value.numel() for value in (*self.grids, self.rows, *self.layers))

    def __call__(self, points: Tensor) -> Tensor:
        """Values at points [P, D]. [P, O]"""
        return self.at(points, None if self.bases is None else near(self.bases, points))

    def at(self, points: Tensor, pairs: tuple[Tensor, Tensor, Tensor] | None) -> Tensor:
        """The same with the pairs that `near` finds. Differentiable in all but points."""
        parts = [_interpolated(grid, points) for grid in self.grids]
        if self.bases is not None and pairs is not None:
            point, item, phi = pairs
            values = channels(phi, self.bases.frequencies(self.rows.shape[1])) * self.rows[item]
            parts.append(torch.zeros(len(points), self.rows.shape[1]).index_add(0, point, values))
        hidden = torch.cat(parts, dim=1)
        for i in range(0, len(self.layers), 2):
            hidden = hidden @ self.layers[i] + self.layers[i + 1]
            hidden = hidden.relu() if i + 2 < len(self.layers) else hidden
        return hidden


def fit_radial_grid(
    points: Tensor, values: Tensor, weights: Tensor, settings: RadialGridSettings, emphasis: Tensor | None = None
) -> RadialGrid:
    """Fit to values at points by the mean squared error.

    Args:
        points: 0 to 1. [P, D]
        values: [P, O]
        weights: Where bases are wanted, not negative. [P]
        settings: How.
        emphasis: Of the errors of points; None = all alike. [P]
    """
    if not bool(points.isfinite().all() and values.isfinite().all()):
        raise ValueError("points, values: expected finite numbers")
    generator = torch.Generator().manual_seed(settings.seed)
    model = _first(points, weights, values.shape[1], settings, generator)
    groups = _groups(model, settings)
    for value in (v for group in groups for v in group["params"]):
        value.requires_grad_()
    adam = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15)
    pairs = None if model.bases is None or settings.learns_places else _Pairs(model.bases, points)
    for step in range(settings.n_steps):
        for group, first in zip(adam.param_groups, groups, strict=True):
            group["lr"] = first["first"] * 0.01 ** (step / settings.n_steps)
        rows = torch.randint(len(points), (min(settings.n_points, len(points)),), generator=generator)
        found = model(points[rows]) if pairs is None else model.at(points[rows], pairs.of(rows))
        adam.zero_grad()
        errors = (found - values[rows]).square()
        (errors if emphasis is None else errors * emphasis[rows, None]).mean().backward()
        adam.step()
        if model.bases is not None and settings.learns_places:
            model = replace(model, bases=_held(model.bases, step % RELIST_EVERY == RELIST_EVERY - 1))
    bases = None if model.bases is None else _held(model.bases.map(torch.Tensor.detach), True)
    grids, layers = (tuple(v.detach() for v in group) for group in (model.grids, model.layers))
    return replace(model, grids=grids, layers=layers, rows=model.rows.detach(), bases=bases)


def _groups(model: RadialGrid, settings: RadialGridSettings) -> list[dict[str, Any]]:
    """What is fitted, with first step sizes."""
    groups: list[dict[str, Any]] = [
        {"params": [*model.grids, model.rows], "first": settings.lr},
        {"params": list(model.layers), "first": settings.lr / 10},
    ]
    if model.bases is not None and settings.learns_places:
        size = float(model.bases.shapes[:, 0].median())
        groups.append({"params": [model.bases.centers], "first": CENTER_RATE / size})
        groups.append({"params": [model.bases.shapes], "first": SHAPE_RATE * size})
    return groups


@torch.no_grad()
def _held(bases: RadialBases, is_listed: bool) -> RadialBases:
    """The same tensors, kept in the box and smaller than it; with lists of where they are now, where asked."""
    d = bases.n_dims
    rows, columns = torch.triu_indices(d, d)
    bases.centers.clamp_(0, 1)
    bases.shapes[:, rows == columns] = bases.shapes[:, rows == columns].clamp_min(LEAST_DIAGONAL)
    if not is_listed:
        return bases
    fresh = listed(bases.centers.detach(), bases.shapes.detach(), bases.waves)
    return replace(fresh, centers=bases.centers, shapes=bases.shapes)


class _Pairs:
    """Bases around fixed points, found once."""

    def __init__(self, bases: RadialBases, points: Tensor) -> None:
        point, self.item, self.phi = near(bases, points)
        self.count = torch.bincount(point, minlength=len(points))
        self.first = self.count.cumsum(0) - self.count

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Those of some of the points, which are counted from 0."""
        count = self.count[rows]
        point = torch.arange(len(rows)).repeat_interleave(count)
        place = self.first[rows][point] + torch.arange(len(point)) - (count.cumsum(0) - count)[point]
        return point, self.item[place], self.phi[place]


def _first(
    points: Tensor, weights: Tensor, n_out: int, settings: RadialGridSettings, generator: torch.Generator
) -> RadialGrid:
    d = points.shape[1]
    has_bases, rank = settings.share > 0, settings.rank
    n_in = N_LEVELS * N_FEATURES + (rank if has_bases else 0)
    sizes = ((n_in, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, n_out))
    layers: list[Tensor] = []
    for a, b in sizes:
        layers += [(2 / a) ** 0.5 * torch.randn(a, b, generator=generator), torch.zeros(b)]
    left = settings.n_numbers - sum(value.numel() for value in layers)
    n_bases = int(settings.share * left / (PLACE_NUMBERS[d] + rank))
    bases, rows = None, torch.zeros(0, rank)
    if has_bases:
        bases = _bases(points, weights, max(n_bases, 1), settings, generator)
        rows = 1e-2 * torch.randn(len(bases), rank, generator=generator)
        left -= len(bases) * (PLACE_NUMBERS[d] + rank)
    grids = [0.1 * torch.randn(N_FEATURES, *[side] * d, generator=generator) for side in _sides(left // N_FEATURES, d)]
    return RadialGrid(tuple(grids), bases, rows, tuple(layers))


def _bases(
    points: Tensor, weights: Tensor, n: int, settings: RadialGridSettings, generator: torch.Generator
) -> RadialBases:
    d = points.shape[1]
    waves = (LEAST_WAVE, settings.waves) if settings.waves > 0 else (0.0, 0.0)
    if settings.placing == "even":
        return listed(*even(torch.rand(max(len(points), n), d, generator=generator), 1.0, n, generator), waves)
    # At least as far as to the next sample.
    floor = 2.0 * len(points) ** (-1 / d)
    return listed(*clustered(points, weights, n, floor, settings.seed), waves)


def _sides(n_nodes: int, d: int) -> list[int]:
    """Nodes along the sides of N_LEVELS grids, each half as fine as the next, with n_nodes in all."""
    finest = (n_nodes * (1 - 2.0**-d)) ** (1 / d)
    while sum(max(2, round(finest / 2**i)) ** d for i in range(N_LEVELS)) > n_nodes and finest > 2:
        finest -= 0.25
    return [max(2, round(finest / 2**i)) for i in reversed(range(N_LEVELS))]


def _interpolated(grid: Tensor, points: Tensor) -> Tensor:  # [F, ...], [P, D] -> [P, F]
    d = points.shape[1]
    at = (2 * points - 1).reshape(1, -1, *[1] * (d - 1), d)
    found = torch.nn.functional.grid_sample(grid[None], at, align_corners=True, padding_mode="border")
    return found.reshape(len(grid), -1).T
