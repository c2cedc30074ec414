"""Rays through a field in native code: float32, and float64 to check gradients. Threads do not change a bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene3d.core.bases import RadialBases
from scene3d.core.cameras import Cameras
from scene3d.core.errors import BackendUnavailable
from scene3d.core.fields import FIELD_KINDS, LANES, Decoder, Field, decoder_of
from scene3d.core.warp import WARP_KINDS
from scene3d.ops.occupancy import pack_bits
from scene3d.ops.shell_rays import shell_stretches
from scene3d.render.field_march import USUAL, MarchSettings, RaySums, SampleRows

try:
    from scene3d import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]


Color = tuple[float, float, float]


@dataclass(frozen=True)
class FieldImage:
    """One view.

    Attributes:
        rgb: Over the background. [H, W, 3]
        alpha: [H, W, 1]
        depth: Expected z in the camera, 0 where nothing is. [H, W, 1]
        n_samples: Of density, in all.
        n_rays: That gathered some light.
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor
    n_samples: int
    n_rays: int


def is_available() -> bool:
    """Whether the native module is built."""
    return hasattr(_cpu, "Field32")


class NativeField:
    """A field handed to native code, which reads its factors where they are: changes in place are seen.

    Args:
        field: Contiguous factors on the CPU, float32 or float64.
        settings: How rays are sampled.
    """

    def __init__(self, field: Field, settings: MarchSettings = USUAL) -> None:
        if _cpu is None:
            raise BackendUnavailable("cpu", "the native module is not built", "Install scene3d with pip install .")
        if field.dtype not in (torch.float32, torch.float64) or field.device.type != "cpu":
            raise TypeError(f"field: expected float32 or float64 on the CPU, got {field.dtype} on {field.device}")
        self.dtype, self.n_features, self.shell = field.dtype, field.n_features, field.shell
        self.shapes = [value.shape for value in field.factors()]
        numbers = [field.step, field.density_scale, field.density_shift, settings.near, settings.far]
        numbers += [settings.min_weight, settings.min_transmittance]
        self._native = _class("Field", self.dtype)(
            FIELD_KINDS.index(field.kind), _sizes(field), list(field.ranks), numbers
        )
        self.is_per_sample = field.shading == "sample"
        self._native.set_per_sample(self.is_per_sample)
        if field.levels:
            grids = [level.numbers() for level in field.levels]
            self._native.set_levels(grids, [v.nodes for v in field.levels], [v.is_shifted for v in field.levels])
        if field.grid is not None:
            self._native.set_hash([list(cells) for cells in field.grid.cells], field.grid.row_bits)
        if field.bases is not None:
            _set_bases(self._native, field, field.bases)
        self._native.set_box(*field.box.double().tolist())
        if field.warp is not None:
            matrix = field.warp.frame_from_world.double().flatten().tolist()
            self._native.set_warp(1 + WARP_KINDS.index(field.warp.kind), matrix)
        self._native.set_values([value.detach().contiguous() for value in field.factors()])
        words, coarse, size = None, None, [1, 1, 1]
        if field.occupancy is not None:
            words, coarse = pack_bits(field.occupancy) if field.bricks is None else field.bricks.cells
            size = list(reversed(field.occupancy.shape))
        self._native.set_occupancy(words, coarse, size)
        bricks = field.bricks
        if bricks is not None:
            tensors = (bricks.words, bricks.free, bricks.table, bricks.values)
            self._native.set_bricks(*tensors, list(bricks.voxels))

    def march(self, origins: Tensor, directions: Tensor, jitter: Tensor | None, tape: Any = None) -> RaySums:
        """Sample and composite along rays; see field_reference.march. A tape keeps what the way back needs."""
        n = len(origins)
        opacity, distance = torch.empty(n, dtype=self.dtype), torch.empty(n, dtype=self.dtype)
        if self.is_per_sample:
            tape = self.new_tape() if tape is None else tape
            self._native.forward(origins, directions, jitter, None, opacity, distance, tape)
            nothing = torch.empty(0, self.n_features, dtype=self.dtype)
            return RaySums(nothing, opacity, distance, self._rows(tape))
        features = torch.empty(n, self.n_features, dtype=self.dtype)
        self._native.forward(origins, directions, jitter, features, opacity, distance, tape)
        return RaySums(features, opacity, distance)

    def _rows(self, tape: Any) -> SampleRows:
        n = self._native.count_rows(tape)
        rows = SampleRows(
            torch.empty(n, self.n_features, dtype=self.dtype),
            torch.empty(n, dtype=self.dtype),
            torch.empty(n, dtype=torch.int64),
        )
        self._native.gather_rows(tape, rows.features, rows.weights, rows.rays)
        return rows

    def march_backward(
        self, tape: Any, v: RaySums, grads: list[Tensor], touched: list[Tensor], distortion: float = 0.0
    ) -> None:
        """Add the gradients of the factors to `grads`; nodes that were reached are marked in `touched`.

        Args:
            tape: Of the forward call.
            v: Gradients of its results; those of the weights of rows with what comes through their features.
            grads: Of each factor.
            touched: See empty_marks.
            distortion: Weight of the sum over rays of their distortion, 1 / scene unit (Barron et al. 2022, equation
                15): how far weights spread along a ray.
        """
        features = v.features if v.rows is None else v.rows.features
        weights = None if v.rows is None else v.rows.weights
        self._native.backward(tape, features, v.opacity, v.distance, weights, grads, touched, distortion)

    def image(self, decoder: NativeDecoder, camera: Cameras, background: Color) -> FieldImage:
        """One view over a background; within its shell only, where the field has one.

        Where the field has bricks they are used: objects look the same to 55 dB and more, fog to 45.
        """
        height, width = camera.height(), camera.width()
        rgb = torch.empty(height, width, 3, dtype=self.dtype)
        alpha, depth = torch.empty(2, height, width, dtype=self.dtype)
        K, viewmat = camera.Ks[0].double(), camera.viewmats[0].double()
        numbers = [*viewmat[:3].flatten().tolist(), *K[0].tolist(), *K[1, 1:].tolist()]
        numbers += camera.centers()[0].double().tolist()
        begins, ends = None, None
        if self.shell is not None:
            begins, ends = (v.to(self.dtype).contiguous() for v in shell_stretches(self.shell, camera))
        effort = _cpu.field_image(
            self._native, decoder.native, numbers, list(background), rgb, alpha, depth, begins, ends
        )
        return FieldImage(rgb, alpha[..., None], depth[..., None], *effort)

    def hits(self, origins: Tensor, directions: Tensor) -> Tensor:
        """Which rays meet an occupied cell. [R] bool"""
        out = torch.empty(len(origins), dtype=torch.uint8)
        self._native.hits(origins, directions, out)
        return out.bool()

    def seen_cells(
        self, origins: Tensor, directions: Tensor, least: float, cells: Tensor, is_light: bool = False
    ) -> None:
        """Set the cells of the box [Z, Y, X] uint8 in which a sample of some ray has more weight than `least`, or more
        light before it."""
        self._native.mark_seen(origins, directions, least, is_light, cells)

    def density_features(self, points: Tensor) -> Tensor:
        """Density before shift and softplus, at points of the frame of the box. [P, 3] to [P]"""
        out = torch.empty(len(points), dtype=self.dtype)
        self._native.look_up(points.contiguous(), False, out)
        return out

    def color_features(self, points: Tensor) -> Tensor:
        """Features of colour, at points of the frame of the box. [P, 3] to [P, A]"""
        out = torch.empty(len(points), self.n_features, dtype=self.dtype)
        self._native.look_up(points.contiguous(), True, out)
        return out

    def new_tape(self) -> Any:
        """Room for the samples of one forward call; use it again and again."""
        return _class("FieldTape", self.dtype)()


class NativeDecoder:
    """A decoder in native code; values are copied."""

    def __init__(self, decoder: Decoder) -> None:
        tensors = [value.detach().contiguous() for value in decoder.tensors()]
        self.native = _class("FieldDecoder", tensors[0].dtype)()
        self.native.set(tensors[:4], tensors[4:])
        self._shapes = [value.shape for value in tensors]

    def decode(self, features: Tensor, opacity: Tensor, directions: Tensor) -> Tensor:
        """Colours premultiplied by opacity; see field_reference.decode."""
        colors = torch.empty(len(features), 3, dtype=features.dtype)
        self.native.decode(features, opacity, directions, colors)
        return colors

    def decode_backward(
        self, features: Tensor, opacity: Tensor, directions: Tensor, v_colors: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Gradients of features, opacity and of the decoder's tensors."""
        v_features, v_opacity = torch.empty_like(features), torch.empty_like(opacity)
        grads = [torch.empty(shape, dtype=features.dtype) for shape in self._shapes]
        self.native.backward(features, opacity, directions, v_colors, v_features, v_opacity, grads[:4], grads[4:])
        return v_features, v_opacity, grads


class DecoderBackward(Protocol):
    """What has the way back of a decoder; see NativeDecoder."""

    def decode_backward(
        self, features: Tensor, opacity: Tensor, directions: Tensor, v_colors: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]: ...


def shade_backward(
    decoder: DecoderBackward, sums: RaySums, directions: Tensor, v_rgb: Tensor
) -> tuple[RaySums, list[Tensor]]:
    """The way back of field_march.shade.

    Args:
        decoder: Of the rays.
        sums: What the rays gathered.
        directions: Unit vectors. [R, 3]
        v_rgb: Gradients of the premultiplied colours. [R, 3]

    Returns:
        Gradients of the sums, that of distance 0, and of the decoder's tensors.
    """
    if sums.rows is None:
        v_features, v_opacity, grads = decoder.decode_backward(sums.features, sums.opacity, directions, v_rgb)
        return RaySums(v_features, v_opacity, torch.zeros_like(v_opacity)), grads
    rows = sums.rows
    v_rows, v_weights, grads = decoder.decode_backward(
        rows.features, rows.weights, directions[rows.rays], v_rgb[rows.rays]
    )
    v = SampleRows(v_rows, _with_features(rows, v_rows, v_weights), rows.rays)
    nothing = torch.zeros_like(sums.opacity)
    return RaySums(sums.features, nothing, nothing.clone(), v), grads


def _with_features(rows: SampleRows, v_rows: Tensor, v_weights: Tensor) -> Tensor:
    """Gradients of weights, with those that come through weight times features. [M]"""
    tiny = torch.finfo(rows.weights.dtype).tiny
    through = torch.linalg.vecdot(v_rows, rows.features) / rows.weights.clamp_min(tiny)
    return torch.where(rows.weights > 0, v_weights + through, v_weights)


def empty_marks(factors: list[Tensor]) -> list[Tensor]:
    """Marks of nodes that were reached: none. [R / 16, nodes] each"""
    return [
        torch.zeros(v.shape[-1] // LANES, v.numel() // v.shape[-1], dtype=torch.uint8, device=v.device) for v in factors
    ]


def march(
    field: Field, origins: Tensor, directions: Tensor, jitter: Tensor | None, settings: MarchSettings = USUAL
) -> RaySums:
    """Sample and composite along rays, differentiable in the factors; see field_reference.march."""
    native = NativeField(field, settings)
    if native.is_per_sample:
        found = _MarchRows.apply(native, origins, directions, jitter, *field.factors())
        rows = SampleRows(found[0], found[1], found[2])
        return RaySums(rows.features[:0], found[3], found[4], rows)
    return RaySums(*_March.apply(native, origins, directions, jitter, *field.factors()))


def decode(decoder: Decoder, features: Tensor, opacity: Tensor, directions: Tensor) -> Tensor:
    """Colours premultiplied by opacity, differentiable; see field_reference.decode."""
    return _Decode.apply(features, opacity, directions.contiguous(), *decoder.tensors())


def _sizes(field: Field) -> list[int]:
    """Nodes along x, y, z; with 2 native code has positions from 0 to 1, which is what leaves and networks want."""
    return [2, 2, 2] if field.levels or field.has_network else list(field.resolution)


def _set_bases(native: Any, field: Field, bases: RadialBases) -> None:
    numbers = torch.cat([bases.centers, bases.shapes], dim=1).contiguous()
    waves = [bases.frequencies(rank).contiguous() for rank in field.ranks]
    cells = list(reversed(bases.cells))
    native.set_bases([numbers, *waves], bases.waves[1] > 0, cells, bases.starts, bases.items)


def _class(name: str, dtype: torch.dtype) -> Any:
    return getattr(_cpu, name + ("32" if dtype == torch.float32 else "64"))


class _March(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, native: NativeField, origins: Tensor, directions: Tensor, jitter: Tensor | None, *factors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.native, ctx.tape = native, native.new_tape()
        sums = native.march(origins.contiguous(), directions.contiguous(), jitter, ctx.tape)
        return sums.features, sums.opacity, sums.distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_features: Tensor, v_opacity: Tensor, v_distance: Tensor) -> tuple[Tensor | None, ...]:
        grads = [torch.zeros(shape, dtype=ctx.native.dtype) for shape in ctx.native.shapes]
        v = RaySums(v_features.contiguous(), v_opacity.contiguous(), v_distance.contiguous())
        ctx.native.march_backward(ctx.tape, v, grads, empty_marks(grads))
        return (None, None, None, None, *grads)  # native, origins, directions, jitter


class _MarchRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, native: NativeField, origins: Tensor, directions: Tensor, jitter: Tensor | None, *factors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        ctx.native, ctx.tape = native, native.new_tape()
        sums = native.march(origins.contiguous(), directions.contiguous(), jitter, ctx.tape)
        assert sums.rows is not None
        ctx.mark_non_differentiable(sums.rows.rays)
        ctx.save_for_backward(sums.rows.features, sums.rows.weights, sums.rows.rays)
        return sums.rows.features, sums.rows.weights, sums.rows.rays, sums.opacity, sums.distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_features: Tensor, v_weights: Tensor, *v_others: Tensor) -> tuple[Tensor | None, ...]:
        rows, v_features = SampleRows(*ctx.saved_tensors), v_features.contiguous()
        _, v_opacity, v_distance = v_others  # of the numbers of rays
        v_rows = SampleRows(v_features, _with_features(rows, v_features, v_weights), rows.rays)
        grads = [torch.zeros(shape, dtype=ctx.native.dtype) for shape in ctx.native.shapes]
        v = RaySums(v_features[:0], v_opacity.contiguous(), v_distance.contiguous(), v_rows)
        ctx.native.march_backward(ctx.tape, v, grads, empty_marks(grads))
        return (None, None, None, None, *grads)  # native, origins, directions, jitter


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, opacity: Tensor, directions: Tensor, *tensors: Tensor) -> Tensor:
        ctx.native = NativeDecoder(decoder_of(list(tensors)))
        ctx.save_for_backward(features, opacity, directions)
        return ctx.native.decode(features, opacity, directions)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_colors: Tensor) -> tuple[Tensor | None, ...]:
        v_features, v_opacity, grads = ctx.native.decode_backward(*ctx.saved_tensors, v_colors.contiguous())
        return (v_features, v_opacity, None, *grads)  # directions
