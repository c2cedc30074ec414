"""Everything of a field fit that changes from step to step, and the ways in which the grid changes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.core.fields import (
    BASES,
    DIRECTION_TERMS,
    FACTORS,
    NETWORK_KINDS,
    TABLE,
    Decoder,
    Field,
    FieldKind,
    decoder_of,
    n_modes,
    network_rows,
)
from scene3d.core.hash_grid import HashGrid, hash_grid
from scene3d.core.warp import Warp
from scene3d.recon.field_leaves import kept_leaves, select_leaves, step_size
from scene3d.recon.field_settings import FieldFitSettings
from scene3d.render.field_cpu import empty_marks

# Optical depth of a box's diagonal per unit of softplus: TensoRF's 25 per unit in boxes of side 3.
DENSITY_PER_DIAGONAL = 130.0
# Before shift, of fields without bounds: thin fog everywhere, that clears where photos disagree.
OPEN_SHIFT = -4.0
FACTOR_SPREAD = {"vm": 0.1, "cp": 0.4}
TABLE_SPREAD, WAVE_SHARE = 0.1, 0.05
# Of density, of networks in a box: thin fog, so that rays meet something from the first step.
FIRST_FEATURE = 8.0
# Cells of the first level of a hash grid along the longest edge of the box.
COARSEST = 16


@dataclass
class FieldState:
    """A run after some steps.

    Attributes:
        field: Values; they are changed in place.
        moments: For each factor: mean and mean square of its gradients.
        decoder_moments: Of all numbers of the decoder, flat.
        generator: Source of every random number.
        step: Steps done.
        since_growth: Steps since the moments were started anew.
        fraction: Part of the run done.
        seconds: Time of fitting, without evaluations.
        n_growths: Of the grid, done.
        n_masks: Searches for empty cells, done.
        hit_step: Step size with which rays that miss everything were sorted out; 0 = they were not.
        n_skipped: Steps without effect because the loss was not finite.
        n_bad: Gradient values that were not finite and counted as 0.
        grads: Of each factor; zero between steps, not saved.
        marks: Nodes reached in this step; zero between steps, not saved.
        bad: What n_bad lacks, on a GPU.
    """

    field: Field
    moments: list[tuple[Tensor, Tensor]]
    decoder_moments: tuple[Tensor, Tensor]
    generator: torch.Generator
    step: int = 0
    since_growth: int = 0
    fraction: float = 0.0
    seconds: float = 0.0
    n_growths: int = 0
    n_masks: int = 0
    hit_step: float = 0.0
    n_skipped: int = 0
    n_bad: int = 0
    grads: list[Tensor] = dataclasses.field(default_factory=list)
    marks: list[Tensor] = dataclasses.field(default_factory=list)
    bad: Tensor | None = None

    def to(self, device: torch.device) -> FieldState:
        """The same with everything but the source of random numbers on another device."""

        def moved(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return pair[0].to(device), pair[1].to(device)

        state = replace(
            self,
            field=self.field.to(device),
            moments=[moved(pair) for pair in self.moments],
            decoder_moments=moved(self.decoder_moments),
        )
        state.make_room()
        return state

    def count_bad(self, count: Tensor | int) -> None:
        """Add gradient values that were not finite; a number on a GPU is not waited for."""
        if isinstance(count, Tensor) and count.device.type != "cpu":
            self.bad = count if self.bad is None else self.bad + count
        else:
            self.n_bad += int(count)

    def settle(self) -> None:
        """Read what was not waited for."""
        if self.bad is not None:
            self.n_bad += int(self.bad)
            self.bad = None

    def start_moments(self) -> None:
        """Forget the moments of the factors, and make room for those of the grid as it is."""
        factors = self.field.factors()
        self.moments = [(torch.zeros_like(v), torch.zeros_like(v)) for v in factors]
        self.since_growth = 0
        self.make_room()

    def make_room(self) -> None:
        """Zero gradients and marks for the grid as it is."""
        self.grads = [torch.zeros_like(v) for v in self.field.factors()]
        self.marks = empty_marks(self.grads)

    def grow(self, resolution: tuple[int, int, int], step_in_voxels: float) -> None:
        """Interpolate the factors to another number of nodes."""
        names = self.field.names * 2
        sizes = dict(zip("xyz", resolution, strict=True))
        factors = tuple(
            value if name == BASES else _resampled(value, tuple(sizes[axis] for axis in reversed(name)))
            for value, name in zip(self.field.factors(), names, strict=True)
        )
        self.field = replace(
            self.field.with_factors(factors), step=step_size(self.field.box, resolution, step_in_voxels)
        )
        self.start_moments()

    def shrink(self, box: Tensor) -> None:
        """Cut the field to the nodes around a smaller box; the new box runs from node to node."""
        low, high = self.field.box
        last = torch.tensor(self.field.resolution, device=low.device) - 1
        spacing = (high - low) / last
        first = ((box[0] - low) / spacing).floor().long().clamp_min(0)
        end = torch.minimum(((box[1] - low) / spacing).ceil().long(), last)
        end = torch.maximum(end, torch.minimum(first + 1, last))
        first = torch.minimum(first, end - 1)
        ranges = {axis: slice(int(first[i]), int(end[i]) + 1) for i, axis in enumerate("xyz")}
        names = self.field.names * 2
        factors = tuple(
            value[tuple(ranges[axis] for axis in reversed(name))].contiguous()
            for value, name in zip(self.field.factors(), names, strict=True)
        )
        box = torch.stack([low + first * spacing, low + end * spacing])
        # The step is kept: the spacing of the nodes is the same.
        self.field = replace(
            self.field, density=factors[: len(names) // 2], color=factors[len(names) // 2 :], box=box, occupancy=None
        )
        self.start_moments()

    def become(self, field: Field) -> None:
        """Go on with another field: all moments are forgotten, those of a decoder of other sizes too."""
        n_numbers = sum(v.numel() for v in field.decoder.tensors())
        if n_numbers != self.decoder_moments[0].numel():
            self.decoder_moments = (
                torch.zeros(n_numbers, device=field.device),
                torch.zeros(n_numbers, device=field.device),
            )
        self.field = field
        self.start_moments()

    def drop_leaves(self) -> None:
        """Drop the leaves without an occupied cell; the moments of the others stay."""
        kept = kept_leaves(self.field)
        if all(bool(flags.all()) for flags in kept):
            return
        rows = [kept[i // 3 % len(kept)] for i in range(len(self.moments))]
        self.field = select_leaves(self.field, kept)
        self.moments = [
            (mean[flags].contiguous(), square[flags].contiguous())
            for (mean, square), flags in zip(self.moments, rows, strict=True)
        ]
        self.make_room()


def first_state(
    settings: FieldFitSettings, box: Tensor, occupancy: Tensor | None, warp: Warp | None = None
) -> FieldState:
    """Step 0: small random factors; of planes and lines where leaves or bases are to come."""
    kind: FieldKind = "vm" if settings.kind in ("trivec", "rbf") else settings.kind
    generator = torch.Generator().manual_seed(settings.seed)
    resolution = resolution_of(box, settings.first_voxels)
    sizes = dict(zip("xyz", resolution, strict=True))
    grid = None
    if kind == "hash":
        grid = hash_grid(box, settings.hash_levels, COARSEST, max(COARSEST, *resolution), settings.row_bits)

    def factors(rank: int) -> tuple[Tensor, ...]:
        if kind in NETWORK_KINDS:
            return tuple(_first_rows(name, rank, grid, generator) for name in FACTORS[kind])
        spread = FACTOR_SPREAD[kind]
        shapes = [tuple(sizes[axis] for axis in reversed(name)) for name in FACTORS[kind]]
        return tuple(spread * torch.randn(*shape, rank, generator=generator) for shape in shapes)

    density = factors(settings.density_rank)
    if kind == "mlp":
        # Waves are as large as numbers of a table become: their random sum would be dense here and empty there.
        density[-1].mul_(WAVE_SHARE)
    if kind in NETWORK_KINDS and warp is None:
        density[-1][-1, : settings.density_rank // 2] = 2 * FIRST_FEATURE / settings.density_rank
    values = Field(
        kind,
        box,
        density,
        factors(settings.color_rank),
        _first_decoder(settings.color_rank * n_modes(kind, 0), settings, generator),
        DENSITY_PER_DIAGONAL / float((box[1] - box[0]).norm()),
        step_size(box, resolution, settings.step_in_voxels),
        occupancy=occupancy,
        density_shift=-10.0 if warp is None else OPEN_SHIFT,
        warp=warp,
        shading=settings.decoder,
        grid=grid,
    )
    n_numbers = sum(v.numel() for v in values.decoder.tensors())
    state = FieldState(values, [], (torch.zeros(n_numbers), torch.zeros(n_numbers)), generator)
    state.start_moments()
    return state


def resolution_of(box: Tensor, n_voxels: int) -> tuple[int, int, int]:
    """Nodes along x y z of cubic voxels, about n_voxels of them in all."""
    size = (box[1] - box[0]).double()
    voxel = float((size.prod() / n_voxels) ** (1 / 3))
    x, y, z = (max(2, round(float(s) / voxel)) for s in size)
    return x, y, z


def grid_sizes(settings: FieldFitSettings) -> list[int]:
    """Nodes of the grid after each growth, evenly spaced in the logarithm."""
    n = len(settings.grow_at)
    first, last = math.log(settings.first_voxels), math.log(settings.last_voxels)
    return [round(math.exp(first + (last - first) * (i + 1) / n)) for i in range(n)]


def _first_rows(name: str, rank: int, grid: HashGrid | None, generator: torch.Generator) -> Tensor:
    """A table, or a layer of rectified units: He initialisation, biases 0."""
    rows = network_rows(name, rank, grid)
    if name == TABLE:
        return TABLE_SPREAD * torch.randn(rows, rank, generator=generator)
    layer = math.sqrt(2 / (rows - 1)) * torch.randn(rows, rank, generator=generator)
    layer[-1] = 0
    return layer


def _first_decoder(n_sums: int, settings: FieldFitSettings, generator: torch.Generator) -> Decoder:
    """He initialisation; the last bias gives grey."""
    width, hidden = settings.n_features, settings.hidden

    def layer(n_in: int, n_out: int, gain: float) -> Tensor:
        return gain / math.sqrt(n_in) * torch.randn(n_in, n_out, generator=generator)

    if settings.coloring == "harmonics":
        return decoder_of([layer(n_sums, width, 1.0)])
    inputs = 5 * width + DIRECTION_TERMS
    weights = [layer(inputs, hidden, 2**0.5), layer(hidden, hidden, 2**0.5), layer(hidden, 3, 1.0)]
    biases = [torch.zeros(hidden), torch.zeros(hidden), torch.zeros(3)]
    return decoder_of([layer(n_sums, width, 1.0), *weights, *biases])


def _resampled(value: Tensor, shape: tuple[int, ...]) -> Tensor:  # [*nodes, R] -> [*shape, R]
    mode = "linear" if len(shape) == 1 else "bilinear"
    channels = value.movedim(-1, 0)[None]
    grown = torch.nn.functional.interpolate(channels, size=shape, mode=mode, align_corners=True)
    return grown[0].movedim(0, -1).contiguous()
