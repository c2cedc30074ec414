"""Products of planes, lines or vectors at points, in plain torch: the oracle of native kernels. Any floating dtype.

Coordinates are in nodes: 0 is the first node of an axis, n - 1 the last; of leaves and networks they are in units of
the box, 0 to 1. See scene3d.core.fields for the layouts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.fields import AXES, FACTORS, VM_FACTORS, Field, LeafLevel
from scene3d.ops.network_field import network_units, unit_signs
from scene3d.ops.radial_bases import weighted_sum

# Added to windows, so that their sum is never 0.
WINDOW_FLOOR = 1e-3


def node_coordinates(field: Field, points: Tensor) -> Tensor:
    """Places of world points in nodes. [P, 3] to [P, 3]. Differentiable in points."""
    low, high = field.box
    if field.levels or field.has_network:
        return (points - low) / (high - low)
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

    Differentiable in factors, and of planes and lines in nodes. Chen et al. 2022, equations 3 and 4.
    """
    if field.levels:
        return _leaf_products(field, factors, nodes)
    if field.has_network:
        return network_units(field, factors, nodes)
    names = VM_FACTORS if field.kind == "rbf" else FACTORS[field.kind]
    places = _places(nodes, field.resolution)
    values = [_interpolate(value, name, places) for value, name in zip(factors, names, strict=False)]
    if field.kind == "cp":
        return values[0] * values[1] * values[2]
    parts = [values[mode] * values[3 + mode] for mode in range(3)]
    if field.bases is not None:
        last = torch.tensor(field.resolution, dtype=nodes.dtype, device=nodes.device) - 1
        parts.append(weighted_sum(field.bases, factors[-1], nodes / last))
    return torch.cat(parts, dim=1)


def density_feature(field: Field, nodes: Tensor) -> Tensor:
    """Sum of all products of density, before shift and softplus. [P, 3] to [P]"""
    values = products(field, field.density, nodes)
    return values @ unit_signs(values) if field.has_network else values.sum(dim=1)


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


def _leaf_products(field: Field, factors: tuple[Tensor, ...], unit: Tensor) -> Tensor:  # [P, n_levels R]
    places = [_leaf_place(level, unit.detach()) for level in field.levels]
    windows = torch.stack([window for _, _, window in places])
    if field.levels[-1].is_shifted:
        total = windows.sum(dim=0)
        weights = windows / torch.where(total > 0, total, 1.0)
    else:
        weights = (windows > 0).to(unit.dtype)
    parts = []
    for i, (leaf, nodes, _) in enumerate(places):
        size = (field.levels[i].nodes,) * 3
        at = _places(nodes, size)
        value = weights[i][:, None].expand(-1, factors[3 * i].shape[-1])
        for axis, vectors in zip(AXES, factors[3 * i : 3 * i + 3], strict=True):
            index, f = at[axis]
            value = value * (vectors[leaf, index] * (1 - f[:, None]) + vectors[leaf, index + 1] * f[:, None])
        parts.append(value)
    return torch.cat(parts, dim=1)


def _leaf_place(level: LeafLevel, unit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number of the leaf around each point [P], place in its nodes [P, 3], window [P] that is 0 where there is none."""
    edges = torch.tensor(level.edges, dtype=unit.dtype, device=unit.device)
    at = unit * edges + (0.5 if level.is_shifted else 0.0)
    last = torch.tensor(list(reversed(level.taken.shape)), device=unit.device) - 1
    cell = torch.minimum(at.long().clamp_min(0), last)
    leaf = level.numbers()[cell[:, 2], cell[:, 1], cell[:, 0]].long()
    along = at - cell
    inner = 1 - (2 * along - 1).abs().amax(dim=1)
    window = torch.where(leaf >= 0, inner.clamp_min(0) + WINDOW_FLOOR, 0.0)
    return leaf.clamp_min(0), along * (level.nodes - 1), window
