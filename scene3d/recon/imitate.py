"""The first block of a conversion: what a teacher knows of its volume is taken over before any view is rendered.

Occupied cells come from the teacher's density; then the student's factors of density are fitted to that
density at random points (the volume-aligned losses of progressive volume distillation, Fang et al. 2023). Colours are
fitted along short rays that reach through the surfaces seen in the teacher's views: a few samples instead of fifty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.core.fields import Field
from scene3d.core.warp import Warp
from scene3d.ops.factor_grid import density_feature, node_coordinates
from scene3d.ops.occupancy import cell_centers, dilate
from scene3d.ops.warp import near_frame, weights_of
from scene3d.recon.field_adam import update
from scene3d.recon.field_settings import FieldFitSettings
from scene3d.recon.field_state import FieldState
from scene3d.recon.teacher import Teacher
from scene3d.render.field_cpu import NativeDecoder, NativeField
from scene3d.render.field_march import MarchSettings, RaySums

N_STEPS, N_POINTS, LR = 50, 8192, 0.05
# Short rays of one step, and how far they reach on either side of the surface, steps of the field.
N_RAYS, REACH = 8192, 3.0
CELLS = 128
# A cell of less opacity is empty.
MIN_ALPHA = 0.02
# Of fields without bounds: what counts as near, by the weight of the frame.
NEAR_WEIGHT = 1.5
# Of the feature, before shift: far above, matter is opaque anyway; below, there is none.
MOST = 14.0


@dataclass(frozen=True)
class Surfaces:
    """Where a teacher's views meet its surfaces.

    Attributes:
        points: World. [P, 3]
        directions: Of the rays that meet them, unit vectors. [P, 3]
        normals: Unit, facing the camera; 0 where neighbours are missing. [P, 3]
        colors: sRGB. [P, 3] uint8
    """

    points: Tensor
    directions: Tensor
    normals: Tensor
    colors: Tensor


@torch.no_grad()
def occupied_cells(teacher: Teacher) -> Tensor:
    """Cells of the teacher's box that hold something, with their neighbours. [Z, Y, X] bool"""
    box = teacher.box
    size = box[1] - box[0]
    x, y, z = (size / size.amax() * CELLS).round().clamp_min(4).long().tolist()
    # Matter thinner than a cell lies between the centres: eight places are asked in each.
    fine = cell_centers((2 * z, 2 * y, 2 * x), box).reshape(-1, 3)
    edge = float((size / torch.tensor([x, y, z])).mean())
    alpha = (1 - torch.exp(-teacher.density_in_frame(fine) * edge)).reshape(1, 1, 2 * z, 2 * y, 2 * x)
    taken = torch.nn.functional.max_pool3d(alpha, 2)[0, 0] > MIN_ALPHA
    if not bool(taken.any()):
        raise ValueError("scene: expected some matter, got density that is nowhere above 0")
    return dilate(taken)


def imitate_density(field: Field, teacher: Teacher, generator: torch.Generator) -> Field:
    """Fit the factors of density to the teacher's density in the occupied cells of the field.

    Args:
        field: To begin with; needs its occupied cells.
        teacher: To imitate.
        generator: Of the points.
    """
    if field.occupancy is None:
        raise ValueError("field: expected one with occupied cells")
    centers = cell_centers((*field.occupancy.shape,), field.box)[field.occupancy]
    cell = (field.box[1] - field.box[0]) / torch.tensor(list(reversed(field.occupancy.shape)))
    n = len(field.density)
    leaves = [value.clone().requires_grad_() for value in field.density]
    optimizer = torch.optim.Adam(leaves, lr=LR)
    with torch.enable_grad():
        for _ in range(N_STEPS):
            rows = torch.randint(len(centers), (N_POINTS,), generator=generator)
            points = centers[rows] + cell * (torch.rand(N_POINTS, 3, generator=generator) - 0.5)
            target = _feature_of(teacher.density_in_frame(points), field)
            student = field.with_factors((*leaves, *field.factors()[n:]))
            feature = density_feature(student, node_coordinates(student, points))
            error = feature - target
            # Where nothing is, less than nothing is as good.
            error = torch.where((target <= 0) & (error < 0), 0.0, error)
            optimizer.zero_grad()
            error.square().mean().backward()
            optimizer.step()
    return replace(field, density=tuple(leaf.detach() for leaf in leaves))


@torch.no_grad()
def imitate_colors(state: FieldState, surfaces: Surfaces, settings: FieldFitSettings, n_steps: int) -> None:
    """Fit the factors of colour and the decoder to the colours of surfaces; density stays as it is.

    Args:
        state: Changed in place; its density must be near the teacher's.
        surfaces: Seen by the teacher's views.
        settings: Step sizes.
        n_steps: Of Adam.
    """
    reach, warp = REACH * state.field.step, state.field.warp
    if warp is not None:
        # Short rays are equally long in the world: those to far things would not reach through a cell.
        surfaces = _near_part(surfaces, warp)
        reach /= warp.scale
    if len(surfaces.points) == 0:
        return
    native = NativeField(state.field, MarchSettings(far=2 * reach, min_weight=0.0))
    tape, n_density = native.new_tape(), len(state.field.density)
    for _ in range(n_steps):
        rows = torch.randint(len(surfaces.points), (N_RAYS,), generator=state.generator)
        directions = surfaces.directions[rows]
        origins = surfaces.points[rows] - reach * directions
        sums = native.march(origins, directions, torch.rand(N_RAYS, generator=state.generator), tape)
        decoder = NativeDecoder(state.field.decoder)
        colors = decoder.decode(sums.features, sums.opacity, directions)
        # Colours come multiplied by opacity: where nothing was met, nothing is learnt.
        error = colors - sums.opacity[:, None] * surfaces.colors[rows].float() / 255
        v_features, _, v_decoder = decoder.decode_backward(
            sums.features, sums.opacity, directions, error * (2 / error.numel())
        )
        nothing = torch.zeros_like(sums.opacity)
        native.march_backward(tape, RaySums(v_features, nothing, nothing), state.grads, state.marks)
        for value in (*state.grads[:n_density], *state.marks[:n_density]):
            value.zero_()
        update(state, settings, v_decoder)


def _near_part(surfaces: Surfaces, warp: Warp) -> Surfaces:
    near = weights_of(warp, near_frame(warp, surfaces.points)) <= NEAR_WEIGHT
    return Surfaces(surfaces.points[near], surfaces.directions[near], surfaces.normals[near], surfaces.colors[near])


def _feature_of(density: Tensor, field: Field) -> Tensor:
    """The feature before shift that gives this density: softplus backwards."""
    units = density / field.density_scale
    inverse = units + torch.log(-torch.expm1(-units.clamp_min(1e-12)))
    return (inverse - field.density_shift).clamp(0.0, MOST)
