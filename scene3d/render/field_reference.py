"""Rays through a field in plain torch: dense samples, no shortcuts. The oracle; any floating dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.fields import DIRECTION_TERMS, HARMONIC_DIVISORS, Decoder, Field
from scene3d.ops.factor_grid import density_feature, node_coordinates, products
from scene3d.ops.occupancy import is_occupied
from scene3d.ops.sh import basis as sh_basis
from scene3d.ops.warp import ray_pieces
from scene3d.render.field_march import USUAL, MarchSettings, RaySums, SampleRows

MIN_PIXEL_OPACITY = 1e-6


def march(
    field: Field, origins: Tensor, directions: Tensor, jitter: Tensor | None, settings: MarchSettings = USUAL
) -> RaySums:
    """Sample and composite along rays.

    Args:
        field: What to look at.
        origins: [R, 3]
        directions: Unit vectors. [R, 3]
        jitter: Place of the samples within their steps, 0 to 1; None = 1/2. [R]
        settings: How.

    Differentiable in the factors of the field.
    """
    take = _samples if field.warp is None else _warped_samples
    t, points, is_taken = take(field, origins, directions, jitter, settings)
    if field.occupancy is not None:
        is_taken = is_taken & is_occupied(field.occupancy, field.box, points)
    nodes = node_coordinates(field, points[is_taken])
    feature = density_feature(field, nodes)
    optical = torch.nn.functional.softplus(feature + field.density_shift) * (field.density_scale * field.step)
    alpha = torch.zeros_like(t).masked_scatter(is_taken, 1 - torch.exp(-optical))
    passing = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha[:, :-1]], dim=1), dim=1)
    weights = torch.where(passing >= settings.min_transmittance, passing * alpha, 0.0)
    colored = torch.where(weights > settings.min_weight, weights, 0.0)[is_taken]
    rays = torch.arange(len(t), device=t.device)[:, None].expand_as(t)[is_taken]
    opacity, distance = weights.sum(dim=1), (weights * t).sum(dim=1)
    if field.shading == "sample":
        has_color = (weights > settings.min_weight)[is_taken]
        nodes, colored, rays = nodes[has_color], colored[has_color], rays[has_color]
        values = colored[:, None] * products(field, field.color, nodes)
        nothing = values.new_zeros(0, field.n_features)
        return RaySums(nothing, opacity, distance, SampleRows(values, colored, rays))
    values = colored[:, None] * products(field, field.color, nodes)
    features = torch.zeros(len(t), field.n_features, dtype=t.dtype, device=t.device).index_add(0, rays, values)
    return RaySums(features, opacity, distance)


def decode(decoder: Decoder, features: Tensor, opacity: Tensor, directions: Tensor) -> Tensor:
    """Colours of pixels, premultiplied by opacity.

    Args:
        decoder: The network.
        features: Sums along rays. [R, A]
        opacity: [R]
        directions: Unit vectors. [R, 3]

    Returns:
        [R, 3].

    Differentiable in everything but directions.
    """
    has_color = (opacity > MIN_PIXEL_OPACITY)[:, None]
    mean = features / torch.where(has_color[:, 0], opacity, 1.0)[:, None]
    x = torch.where(has_color, mean, 0.0) @ decoder.basis
    if decoder.is_harmonic:
        harmonics = sh_basis(directions, 3) / torch.tensor(HARMONIC_DIVISORS).to(x)
        waves = (x.reshape(len(x), 3, DIRECTION_TERMS) * harmonics[:, None]).sum(dim=2)
        return torch.where(has_color, opacity[:, None] * (0.5 + waves), 0.0)
    hidden = torch.cat([x, x.sin(), x.cos(), (2 * x).sin(), (2 * x).cos(), sh_basis(directions, 3)], dim=1)
    for weights, bias in list(zip(decoder.weights, decoder.biases, strict=True))[:2]:
        hidden = (hidden @ weights + bias).relu()
    colors = (hidden @ decoder.weights[2] + decoder.biases[2]).sigmoid()
    return torch.where(has_color, opacity[:, None] * colors, 0.0)


def _samples(
    field: Field, origins: Tensor, directions: Tensor, jitter: Tensor | None, settings: MarchSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Distances [R, S], places [R, S, 3] and which of them lie in the box [R, S]."""
    enters, leaves = _crossings(field, origins, directions, settings.near, settings.far)
    offset = torch.full_like(enters, 0.5) if jitter is None else jitter
    t, is_taken, _ = _steps(enters, leaves, offset, field.step)
    return t, origins[:, None] + directions[:, None] * t[..., None], is_taken


def _warped_samples(
    field: Field, origins: Tensor, directions: Tensor, jitter: Tensor | None, settings: MarchSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """The same of a field with a warp: steps are equal in its frame, and go on from piece to piece of a ray."""
    assert field.warp is not None
    pieces = ray_pieces(field.warp, origins, directions, settings.near, settings.far)
    offset = torch.full_like(origins[:, 0], 0.5) if jitter is None else jitter
    parts = []
    for k in range(pieces.lengths.shape[1]):
        begin, way, length = pieces.origins[:, k], pieces.directions[:, k], pieces.lengths[:, k]
        enters, leaves = _crossings(field, begin, way, 0.0, torch.inf)
        leaves = torch.where(length > 0, torch.minimum(leaves, length), -1.0)
        s, is_taken, offset = _steps(enters, leaves, offset, field.step)
        spread = [value[:, None].expand(*s.shape, *value.shape[1:]) for value in (begin, way)]
        parts.append((pieces.distances_on(k, s), spread[0] + spread[1] * s[..., None], is_taken))
    t, points, is_taken = (torch.cat(values, dim=1) for values in zip(*parts, strict=True))
    return t, points, is_taken


def _crossings(field: Field, origins: Tensor, directions: Tensor, near: float, far: float) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the box. [R] each"""
    a, b = (field.box[0] - origins) / directions, (field.box[1] - origins) / directions
    inside = (origins >= field.box[0]) & (origins <= field.box[1])
    # A ray along a face has no crossing with it: it is inside for ever or never.
    never = torch.where(inside, torch.inf, -torch.inf)
    enters = torch.where(directions == 0, -never, torch.minimum(a, b)).amax(dim=1).clamp_min(near)
    leaves = torch.where(directions == 0, never, torch.maximum(a, b)).amin(dim=1).clamp_max(far)
    return enters, leaves


def _steps(enters: Tensor, leaves: Tensor, offset: Tensor, step: float) -> tuple[Tensor, Tensor, Tensor]:
    """Samples [R, S], which of them there are [R, S], and the offset [R] with which they go on behind the end."""
    last = (leaves - enters) / step - offset
    n = int(last.amax().clamp_min(-1)) + 1
    k = torch.arange(max(n, 1), device=enters.device)
    beyond = torch.where(last >= 0, last.floor() + 1, 0.0) - last
    enters = torch.where(last >= 0, enters, 0.0)
    return (
        enters[:, None] + (k + offset[:, None]) * step,
        k <= last[:, None],
        torch.where(leaves > enters, beyond, offset),
    )
