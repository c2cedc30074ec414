"""What the two ways to march rays through a field take and give: the native one and the torch oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

# Samples of less weight have no colour; a ray ends where less light than the second passes.
MIN_WEIGHT = 1e-4
MIN_TRANSMITTANCE = 1e-4


@dataclass(frozen=True)
class MarchSettings:
    """How rays are sampled.

    Attributes:
        near: Samples nearer than that are left out, scene units along the ray.
        far: Samples farther than that are left out.
        min_weight: Samples of less weight have no colour; 0 gives every sample its colour.
        min_transmittance: A ray ends below it; 0 takes every sample.
    """

    near: float = 0.0
    far: float = 1e10
    min_weight: float = MIN_WEIGHT
    min_transmittance: float = MIN_TRANSMITTANCE


USUAL = MarchSettings()
# Without cut-offs, so that finite differences hold.
SMOOTH = MarchSettings(min_weight=-1.0, min_transmittance=-1.0)


@dataclass(frozen=True)
class SampleRows:
    """The M samples that have colour, ray after ray.

    Attributes:
        features: Weight times features of colour. [M, A]
        weights: [M]
        rays: Numbers of their rays. [M] int64
    """

    features: Tensor
    weights: Tensor
    rays: Tensor


@dataclass(frozen=True)
class RaySums:
    """What rays gathered.

    Attributes:
        features: Weights times features of colour [R, A]; of none where each sample has a colour of its own. [0, A]
        opacity: Sum of weights. [R]
        distance: Sum of weights times distance from the origin, scene units. [R]
        rows: Where each sample has a colour of its own.
    """

    features: Tensor
    opacity: Tensor
    distance: Tensor
    rows: SampleRows | None = None


def shade(decode: Callable[[Tensor, Tensor, Tensor], Tensor], sums: RaySums, directions: Tensor) -> Tensor:
    """Colours of rays, premultiplied by opacity: of their mean features, or the sum of those of their samples.

    Args:
        decode: From features [N, A], opacity [N] and directions [N, 3] to premultiplied colours [N, 3].
        sums: What the rays gathered.
        directions: Unit vectors. [R, 3]

    Returns:
        [R, 3].

    Differentiable in what decode is differentiable in.
    """
    if sums.rows is None:
        return decode(sums.features, sums.opacity, directions)
    rows = sums.rows
    colors = decode(rows.features, rows.weights, directions[rows.rays])
    return colors.new_zeros(len(directions), 3).index_add(0, rows.rays, colors)
