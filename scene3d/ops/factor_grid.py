"""Products of planes and lines at points, in plain torch: the oracle of the native kernels. Any floating dtype.

Coordinates are in nodes: 0 is the first node of an axis, n - 1 the last. See scene3d.core.fields for the layouts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.fields import AXES, FACTORS, Field


def node_coordinates(field: Field, points: Tensor) -> Tensor:
    """Places of world points in nodes. [P, 3] to [P, 3]. Differentiable in points."""
    low, high = field.box
    last = torch.tensor(field.resolution, dtype=points.dtype, device=points.device) - 1
    return (points - low) / (high - low) * last


def products(field: Field, factors: tuple[Tensor, ...], nodes: Tensor) -> Tensor:
    """Products of all modes side by side.

    Args:
        field: Whose kind and resolution count.
        factors: Of density or of colour.
        nodes: Points in nodes. [P, 3]

    Returns:
        [P, n_modes R].

    Differentiable in factors and nodes. Chen et al. 2022, equations 3 and 4.
    """
    names = FACTORS[field.kind]
    places = _places(nodes, field.resolution)
    values = [_interpolate(value, name, places) for value, name in zip(factors, names, strict=True)]
    if field.kind == "cp":
        return values[0] * values[1] * values[2]
    return torch.cat([values[mode] * values[3 + mode] for mode in range(3)], dim=1)


def density_feature(field: Field, nodes: Tensor) -> Tensor:
    """Sum of all products of density, before shift and softplus. [P, 3] to [P]"""
    return products(field, field.density, nodes).sum(dim=1)


def _places(nodes: Tensor, resolution: tuple[int, int, int]) -> dict[str, tuple[Tensor, Tensor]]:
    places = {}
    for i, axis in enumerate(AXES):
        index = nodes[:, i].detach().long().clamp(0, resolution[i] - 2)
        places[axis] = (index, nodes[:, i] - index)
    return places


def _interpolate(value: Tensor, name: str, places: dict[str, tuple[Tensor, Tensor]]) -> Tensor:  # [P, R]
    if len(name) == 1:
        index, f = places[name]
        return value[index] * (1 - f[:, None]) + value[index + 1] * f[:, None]
    (a, fa), (b, fb) = places[name[0]], places[name[1]]
    fa, fb = fa[:, None], fb[:, None]
    lower = value[b, a] * (1 - fa) + value[b, a + 1] * fa
    upper = value[b + 1, a] * (1 - fa) + value[b + 1, a + 1] * fa
    return lower * (1 - fb) + upper * fb
