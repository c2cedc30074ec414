"""What the two ways to march rays through a field take and give: the native one and the torch oracle."""

from __future__ import annotations

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
class RaySums:
    """What rays gathered.

    Attributes:
        features: Weights times features of colour. [R, A]
        opacity: Sum of weights. [R]
        distance: Sum of weights times distance from the origin, scene units. [R]
    """

    features: Tensor
    opacity: Tensor
    distance: Tensor
