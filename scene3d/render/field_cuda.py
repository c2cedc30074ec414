"""Rays through a field on an NVIDIA GPU: float32. Gradients of the factors are added by atomics, in no fixed order.

The network that makes colours is torch's: dense layers are what its libraries are best at.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene3d.core.fields import FIELD_KINDS, Decoder, Field, decoder_of
from scene3d.ops import cuda_call
from scene3d.ops.occupancy import pack_bits
from scene3d.render.field_march import USUAL, MarchSettings, RaySums
from scene3d.render.field_reference import decode


def takes(field: Field) -> bool:
    """Whether the CUDA module is there and knows the kind, the field in a box, on its device, in float32, of few enough
    features, shaded by pixels."""
    is_plain = field.bases is None and field.warp is None and not field.has_network and field.shading == "deferred"
    is_known = is_plain and cuda_call.takes(*field.factors())
    return is_known and field.n_features <= cuda_call.module.MAX_FEATURES


class CudaField:
    """A field handed to the CUDA kernels, which read its factors where they are: changes in place are seen.

    Offers what field_cpu.NativeField does.

    Args:
        field: Contiguous factors in float32 on the module's device.
        settings: How rays are sampled.
    """

    def __init__(self, field: Field, settings: MarchSettings = USUAL) -> None:
        native = cuda_call.module
        numbers = [field.step, field.density_scale, field.density_shift, settings.near, settings.far]
        numbers += [settings.min_weight, settings.min_transmittance]
        self.n_features, self.device = field.n_features, field.device
        levels = native.FieldLevels(
            [level.numbers().to(field.device) for level in field.levels],
            [level.n_leaves for level in field.levels],
            [level.nodes for level in field.levels],
            [level.is_shifted for level in field.levels],
        )
        self._native = native.Field(
            FIELD_KINDS.index(field.kind),
            [2, 2, 2] if field.levels else list(field.resolution),
            list(field.ranks),
            numbers,
            field.box.double().flatten().tolist(),
            [value.detach() for value in field.factors()],
            levels,
        )
        if field.occupancy is not None:
            words, coarse = (bits.to(field.device) for bits in pack_bits(field.occupancy))
            self._native.set_occupancy(words, coarse, list(reversed(field.occupancy.shape)))

    def new_tape(self) -> Tape:
        """What a forward call leaves for the way back; use it again and again."""
        return Tape()

    def march(self, origins: Tensor, directions: Tensor, jitter: Tensor | None, tape: Tape) -> RaySums:
        """Sample and composite along rays; see field_reference.march."""
        n = len(origins)
        shapes = ((n, self.n_features), (n,), (n,))
        features, opacity, distance = (torch.empty(shape, device=self.device) for shape in shapes)
        sums = [features, opacity, distance]
        tape.begin(origins, directions, jitter, sums)
        self._native.march(origins, directions, jitter, sums, tape.native(), self._stream())
        return RaySums(features, opacity, distance)

    def march_backward(
        self, tape: Tape, v: RaySums, grads: list[Tensor], touched: list[Tensor], distortion: float = 0.0
    ) -> None:
        """Add the gradients of the factors to `grads`; see NativeField.march_backward. touched may be empty."""
        assert tape.directions is not None
        native, memory = cuda_call.module, cuda_call.Memory(cuda_call.module, self.device)
        self._native.march_backward(
            tape.origins,
            tape.directions,
            tape.jitter,
            tape.sums,
            tape.native(),
            [v.features, v.opacity, v.distance],
            native.FieldGradients(grads, touched, distortion, tape.n_samples),
            memory.native(),
            self._stream(),
        )

    def hits(self, origins: Tensor, directions: Tensor) -> Tensor:
        """Which rays meet an occupied cell. [R] bool"""
        out = torch.empty(len(origins), dtype=torch.uint8, device=self.device)
        self._native.hits(origins, directions, out, self._stream())
        return out.bool()

    def density_features(self, points: Tensor) -> Tensor:
        """Density before shift and softplus. [P, 3] to [P]"""
        out = torch.empty(len(points), device=self.device)
        self._native.look_up(points.contiguous(), False, out, self._stream())
        return out

    def color_features(self, points: Tensor) -> Tensor:
        """Features of colour. [P, 3] to [P, A]"""
        out = torch.empty(len(points), self.n_features, device=self.device)
        self._native.look_up(points.contiguous(), True, out, self._stream())
        return out

    def _stream(self) -> int:
        return cuda_call.begin(cuda_call.module, self.device)


class Tape:
    """Of one forward call: its rays, what it gave, samples of each ray and their distortion."""

    def __init__(self) -> None:
        self.origins: Tensor | None = None
        self.directions: Tensor | None = None
        self.jitter: Tensor | None = None
        self.sums: list[Tensor] = []
        self._n_samples: int | None = None

    def begin(self, origins: Tensor, directions: Tensor, jitter: Tensor | None, sums: list[Tensor]) -> None:
        """Keep what the way back takes, and make room for the rest."""
        self.origins, self.directions, self.jitter, self.sums = origins, directions, jitter, sums
        self._counts = torch.zeros(len(origins), dtype=torch.int32, device=origins.device)
        self._distortion = torch.zeros(len(origins), device=origins.device)
        self._n_samples = None

    def native(self) -> Any:
        return cuda_call.module.FieldTape(self._counts, self._distortion)

    @property
    def n_samples(self) -> int:
        """Samples looked at. Waits for the kernel the first time."""
        if self._n_samples is None:
            self._n_samples = int(self._counts.sum())
        return self._n_samples


class TorchDecoder:
    """A decoder by torch, without autograd to its caller; offers what field_cpu.NativeDecoder does."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def decode(self, features: Tensor, opacity: Tensor, directions: Tensor) -> Tensor:
        """Colours premultiplied by opacity; see field_reference.decode."""
        leaves = [value.detach().requires_grad_() for value in (features, opacity, *self._decoder.tensors())]
        with torch.enable_grad():
            colors = decode(decoder_of(leaves[2:]), leaves[0], leaves[1], directions)
        self._graph = (leaves, colors)
        return colors.detach()

    def decode_backward(
        self, features: Tensor, opacity: Tensor, directions: Tensor, v_colors: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Gradients of features, opacity and of the decoder's tensors, of what was decoded last."""
        leaves, colors = self._graph
        v_features, v_opacity, *grads = torch.autograd.grad(colors, leaves, v_colors)
        return v_features.contiguous(), v_opacity.contiguous(), grads


def march(
    field: Field, origins: Tensor, directions: Tensor, jitter: Tensor | None, settings: MarchSettings = USUAL
) -> RaySums:
    """Sample and composite along rays, differentiable in the factors; see field_reference.march."""
    factors = tuple(value.contiguous() for value in field.factors())
    native = CudaField(field.with_factors(factors), settings)
    return RaySums(*_March.apply(native, origins.contiguous(), directions.contiguous(), jitter, *factors))


class _March(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, native: CudaField, origins: Tensor, directions: Tensor, jitter: Tensor | None, *factors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.native, ctx.tape = native, native.new_tape()
        sums = native.march(origins.detach(), directions.detach(), jitter, ctx.tape)
        ctx.save_for_backward(*factors)  # raises where one was changed since
        # The tape keeps the sums: autograd must mark other tensors, or the two would keep each other alive.
        return sums.features.clone(), sums.opacity.clone(), sums.distance.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *v_sums: Tensor) -> tuple[Tensor | None, ...]:
        grads = [torch.zeros_like(value) for value in ctx.saved_tensors]
        v_features, v_opacity, v_distance = (v.contiguous() for v in v_sums)
        ctx.native.march_backward(ctx.tape, RaySums(v_features, v_opacity, v_distance), grads, [])
        return (None, None, None, None, *grads)  # native, origins, directions, jitter
