"""Leaves around the matter of a coarse field: where they are, their first values, finer nodes, and fewer of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.core.fields import Field, LeafLevel
from scene3d.ops.occupancy import cell_centers, is_occupied
from scene3d.ops.tensor_rank import Cores, fit_ranks
from scene3d.recon.field_settings import FieldFitSettings
from scene3d.render.field_device import native_field

MAX_CELLS = 160**3
# Features of density are fitted within these bounds: below the first nothing shows, above the second all is opaque.
DENSITY_RANGE = (0.0, 20.0)
# Where a leaf is empty its vectors would be 0, and their gradients with them.
SPREAD = 0.05
LEAVES_AT_ONCE = 1024

Vectors = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Lattice:
    """Cubes over a box.

    Attributes:
        box: [2, 3]
        edges: Of the smallest cubes along x y z.
    """

    box: Tensor
    edges: tuple[int, int, int]


def leaf_nodes(settings: FieldFitSettings, n_growths: int) -> int:
    """Nodes along a leaf after so many growths; the first makes the leaves, with half of the nodes, then evenly up."""
    first, n = (settings.leaf_nodes + 1) // 2, len(settings.grow_at)
    share = 1.0 if n == 1 else (n_growths - 1) / (n - 1)
    return max(2, round(first + share * (settings.leaf_nodes - first)))


def to_leaves(field: Field, settings: FieldFitSettings, generator: torch.Generator) -> Field:
    """The field as leaves where its occupied cells are; values are fitted to those of `field`, leaf by leaf.

    Args:
        field: Of planes or lines.
        settings: leaves, leaf_nodes, last_voxels and ranks count.
        generator: For the small random part of all values.
    """
    lattice = _lattice(field.box, settings)
    cells = _cells(field, lattice, settings.leaf_nodes - 1)
    levels: tuple[LeafLevel, ...] = ()
    factors: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = []
    basis, made = torch.zeros(0, settings.n_features, device=field.device), field
    for edges, is_shifted in _level_edges(lattice, settings):
        level = LeafLevel(cubes_around(cells, edges, is_shifted), leaf_nodes(settings, 1), is_shifted)
        # Levels that are added fit what the ones before leave; a cover has the whole field twice.
        before = None if is_shifted or not levels else made
        density, color = _fit(field, before, lattice.box, level, settings, generator)
        levels, basis = (*levels, level), torch.cat([basis, color.basis])
        factors.append((density.vectors, color.vectors))
        made = replace(
            field,
            kind="trivec",
            box=lattice.box,
            density=tuple(v for vectors, _ in factors for v in vectors),
            color=tuple(v for _, vectors in factors for v in vectors),
            decoder=replace(field.decoder, basis=basis),
            occupancy=cells,
            levels=levels,
        )
    return with_step(made, settings.step_in_voxels)


def refine(field: Field, nodes: int, step_in_voxels: float) -> Field:
    """The same with so many nodes along each leaf, interpolated."""

    def finer(value: Tensor) -> Tensor:
        grown = torch.nn.functional.interpolate(value.movedim(1, 2), size=nodes, mode="linear", align_corners=True)
        return grown.movedim(2, 1).contiguous()

    levels = tuple(replace(level, nodes=nodes) for level in field.levels)
    n, factors = len(field.density), tuple(finer(value) for value in field.factors())
    return with_step(replace(field, density=factors[:n], color=factors[n:], levels=levels), step_in_voxels)


def kept_leaves(field: Field) -> tuple[Tensor, ...]:
    """Which leaves of each level have an occupied cell in them; all where that would leave a level without any. [L]"""
    if field.occupancy is None:
        return tuple(torch.ones(level.n_leaves, dtype=torch.bool, device=field.device) for level in field.levels)
    kept = []
    for level in field.levels:
        flags = cubes_around(field.occupancy, level.edges, level.is_shifted)[level.taken]
        kept.append(flags if bool(flags.any()) else torch.ones_like(flags))
    return tuple(kept)


def select_leaves(field: Field, kept: tuple[Tensor, ...]) -> Field:
    """The field of these leaves only."""
    levels = []
    for level, flags in zip(field.levels, kept, strict=True):
        taken = level.taken.clone()
        taken[level.taken] = flags
        levels.append(replace(level, taken=taken))
    rows = [kept[i // 3 % len(kept)] for i in range(len(field.factors()))]
    factors = tuple(value[flags].contiguous() for value, flags in zip(field.factors(), rows, strict=True))
    n = len(field.density)
    return replace(field, density=factors[:n], color=factors[n:], levels=tuple(levels))


def cubes_around(cells: Tensor, edges: tuple[int, int, int], is_shifted: bool) -> Tensor:
    """Cubes of a lattice over the same box that touch an occupied cell. [Z, Y, X] bool to the same of cubes"""
    device = cells.device
    shape = torch.tensor(cells.shape, dtype=torch.float64, device=device)
    size = torch.tensor(list(reversed(edges)), dtype=torch.float64, device=device)
    taken = torch.zeros([n + is_shifted for n in reversed(edges)], dtype=torch.bool, device=device)
    places = cells.nonzero().double()
    # A corner on a face belongs to the cube that the cell lies in.
    for corner in itertools.product((1e-6, 1 - 1e-6), repeat=3):
        at = (places + torch.tensor(corner, dtype=torch.float64, device=device)) / shape * size + 0.5 * is_shifted
        z, y, x = at.long().unbind(dim=1)
        taken[z, y, x] = True
    return taken


def step_size(box: Tensor, resolution: tuple[int, int, int], step_in_voxels: float) -> float:
    """Distance of samples, scene units; voxels may be oblong."""
    voxels = (box[1] - box[0]).double() / (torch.tensor(resolution, device=box.device) - 1)
    return step_in_voxels * float(voxels.mean())


def with_step(field: Field, step_in_voxels: float) -> Field:
    """The field with samples so many voxels apart."""
    return replace(field, step=step_size(field.box, field.resolution, step_in_voxels))


def _lattice(box: Tensor, settings: FieldFitSettings) -> Lattice:
    """Whole cubes around the box, whose nodes are as near to each other as those of last_voxels would be."""
    size = box[1] - box[0]
    voxel = float((size.double().prod() / settings.last_voxels) ** (1 / 3))
    multiple = 2 if settings.leaves == "two" else 1
    cube = voxel * (settings.leaf_nodes - 1) * multiple
    counts = (size / cube - 1e-3).ceil().clamp_min(1)
    middle, half = box.mean(dim=0), counts * cube / 2
    x, y, z = (counts * multiple).long().tolist()
    return Lattice(torch.stack([middle - half, middle + half]), (x, y, z))


def _level_edges(lattice: Lattice, settings: FieldFitSettings) -> list[tuple[tuple[int, int, int], bool]]:
    x, y, z = lattice.edges
    if settings.leaves == "two":
        return [((x // 2, y // 2, z // 2), False), ((x, y, z), False)]
    return [((x, y, z), is_shifted) for is_shifted in ((False, True) if settings.leaves == "cover" else (False,))]


def _cells(field: Field, lattice: Lattice, per_edge: int) -> Tensor:
    """Occupied cells of the field on a grid over the box of the lattice. [Z, Y, X] bool"""
    x, y, z = lattice.edges
    while per_edge > 1 and x * y * z * per_edge**3 > MAX_CELLS:
        per_edge -= 1
    centers = cell_centers((z * per_edge, y * per_edge, x * per_edge), lattice.box)
    inside = ((centers >= field.box[0]) & (centers <= field.box[1])).all(dim=3)
    return inside if field.occupancy is None else inside & is_occupied(field.occupancy, field.box, centers)


def _fit(
    field: Field,
    before: Field | None,  # what levels below hold already
    box: Tensor,
    level: LeafLevel,
    settings: FieldFitSettings,
    generator: torch.Generator,
) -> tuple[Cores, Cores]:
    """Vectors of density and of colour of one level."""
    points = _leaf_points(level, box)
    densities, colors = [], []
    for part in points.split(LEAVES_AT_ONCE):
        density, color = _features(field, part)
        density = density.clamp(*DENSITY_RANGE)
        if before is not None:
            lower = _features(before, part)
            density, color = density - lower[0], color - lower[1]
        densities.append(density)
        colors.append(color)
    ones = torch.ones(settings.density_rank, 1, device=box.device)
    results = (
        fit_ranks(torch.cat(densities), settings.density_rank, ones, generator),
        fit_ranks(torch.cat(colors), settings.color_rank, None, generator),
    )
    noisy = [Cores(_blurred(cores.vectors, generator), cores.basis) for cores in results]
    return noisy[0], noisy[1]


def _blurred(vectors: Vectors, generator: torch.Generator) -> Vectors:
    x, y, z = (v + SPREAD * torch.randn(v.shape, generator=generator).to(v.device) for v in vectors)
    return x, y, z


def _features(field: Field, points: Tensor) -> tuple[Tensor, Tensor]:  # [L, D, D, D, 3] -> [..., 1], [..., F]
    native, flat = native_field(field), points.reshape(-1, 3)
    held = torch.minimum(torch.maximum(flat, field.box[0]), field.box[1])
    density, color = native.density_features(held), native.color_features(held) @ field.decoder.basis
    return density.reshape(*points.shape[:-1], 1), color.reshape(*points.shape[:-1], -1)


def _leaf_points(level: LeafLevel, box: Tensor) -> Tensor:
    """Nodes of all leaves in the world. [L, D, D, D, 3]; z, y, x"""
    corners = level.taken.nonzero().flip(1).float() - 0.5 * level.is_shifted
    axis = torch.linspace(0, 1, level.nodes, device=box.device)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    unit = (corners[:, None, None, None] + torch.stack([x, y, z], dim=-1)) / torch.tensor(
        level.edges, device=box.device
    )
    return box[0] + unit * (box[1] - box[0])
