"""Radial bases for a field of planes and lines: where its density changes colour, and shaped like what is there."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scene3d.core.fields import Field
from scene3d.ops.occupancy import cell_centers, cells_with, dilate, is_occupied
from scene3d.ops.radial_bases import clustered, even, listed
from scene3d.ops.warp import frame_points
from scene3d.recon.field_rays import RayPool
from scene3d.recon.field_settings import FieldFitSettings
from scene3d.render.field_cpu import NativeField

# Places that are clustered: more would tell the clusters nothing new.
MAX_POINTS = 300_000
# Rays that tell what is seen, and the opacity from which one has ended somewhere.
N_DRAWS, RAYS_A_DRAW, MIN_OPACITY = 8, 1 << 15, 0.5
# Least half extent of a basis.
FLOOR_IN_VOXELS = 3.75
# Rows begin near 0, so that the field does not change.
SPREAD = 1e-3
LEAST_WAVE = 1.0
# Centres are kept in so many steps along the box, shapes with 11 bits: a file then holds them in a few bytes.
CENTER_STEPS = 65536


def with_bases(field: Field, settings: FieldFitSettings, pool: RayPool, generator: torch.Generator) -> Field:
    """The field with bases whose rows are all but 0 (Chen et al. 2023, section 3.2).

    Args:
        field: Of planes and lines.
        settings: bases, placing and waves count.
        pool: Rays that tell which cells are seen.
        generator: Of places, rows, and the decoder's rows for their features.
    """
    unit, volume = _places(field, generator)
    seed = int(torch.randint(2**31, (1,), generator=generator))
    if settings.placing == "kmeans":
        voxel = 1 / (torch.tensor(field.resolution) - 1).float().mean()
        weights = _weights(field, unit, _seen_cells(field, pool, generator))
        centers, shapes = clustered(unit, weights, settings.bases, FLOOR_IN_VOXELS * float(voxel), seed)
    else:
        centers, shapes = even(unit, volume, settings.bases, generator)
    centers = (centers * CENTER_STEPS).round() / CENTER_STEPS
    waves = (LEAST_WAVE, settings.waves) if settings.waves > 0 else (0.0, 0.0)
    bases = listed(centers, shapes.half().float(), waves)
    rows = [SPREAD * torch.randn(len(bases), rank, generator=generator) for rank in field.ranks]
    basis = field.decoder.basis
    more = torch.randn(field.ranks[1], basis.shape[1], generator=generator) / (len(basis) + field.ranks[1]) ** 0.5
    return replace(
        field,
        kind="rbf",
        density=(*field.density, rows[0]),
        color=(*field.color, rows[1]),
        decoder=replace(field.decoder, basis=torch.cat([basis, more])),
        bases=bases,
    )


def _places(field: Field, generator: torch.Generator) -> tuple[Tensor, float]:
    """Random places in occupied cells, 0 to 1 [P, 3], and the volume of those cells."""
    x, y, z = (n - 1 for n in field.resolution)
    cells = torch.ones(z, y, x, dtype=torch.bool) if field.occupancy is None else field.occupancy
    box = torch.tensor([[0.0] * 3, [1.0] * 3])
    centers = cell_centers((cells.shape[0], cells.shape[1], cells.shape[2]), box)[cells]
    volume = float(cells.float().mean())
    if len(centers) > MAX_POINTS:
        centers = centers[torch.randperm(len(centers), generator=generator)[:MAX_POINTS]]
    size = 1 / torch.tensor(list(reversed(cells.shape)))
    return centers + size * (torch.rand(centers.shape, generator=generator) - 0.5), volume


def _seen_cells(field: Field, pool: RayPool, generator: torch.Generator) -> Tensor:
    """Cells around the mean depths of random rays: what lies deeper is opaque, but nobody sees it. [Z, Y, X] bool"""
    native, points = NativeField(field), []
    for _ in range(N_DRAWS):
        batch = pool.draw(RAYS_A_DRAW, generator)
        sums = native.march(batch.origins, batch.directions, None)
        met = sums.opacity > MIN_OPACITY
        depth = (sums.distance[met] / sums.opacity[met])[:, None]
        points.append(batch.origins[met] + depth * batch.directions[met])
    x, y, z = (n - 1 for n in field.resolution)
    seen = torch.cat(points)
    if field.warp is not None:
        seen = frame_points(field.warp, seen).nan_to_num(0.0)
    return dilate(cells_with(seen, field.box, (z, y, x)))


def _weights(field: Field, unit: Tensor, seen: Tensor) -> Tensor:
    """Opacity along a step times how fast the features of colour change, where rays end: what a grid is too coarse
    for. [P]"""
    native, size = NativeField(field), field.box[1] - field.box[0]
    points = field.box[0] + unit * size
    optical = torch.nn.functional.softplus(native.density_features(points) + field.density_shift)
    alpha = 1 - torch.exp(-optical * (field.density_scale * field.step))
    voxel = size / (torch.tensor(field.resolution) - 1)
    change = torch.zeros(len(unit))
    for axis in range(3):
        offset = torch.zeros(3)
        offset[axis] = voxel[axis]
        ends = [torch.minimum(torch.maximum(points + s * offset, field.box[0]), field.box[1]) for s in (1, -1)]
        features = [_features(native, field, end) for end in ends]
        change += (features[0] - features[1]).square().sum(dim=1)
    weights = (alpha * change.sqrt()).nan_to_num(0.0)
    weights = torch.where(is_occupied(seen, field.box, points), weights, 0.0)
    # Where nothing has formed yet everything counts alike.
    return weights + 1e-3 * weights.mean() + 1e-12


def _features(native: NativeField, field: Field, points: Tensor) -> Tensor:
    return torch.cat([native.color_features(part) @ field.decoder.basis for part in points.split(65536)])
