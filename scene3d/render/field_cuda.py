"""Rays through a field on an NVIDIA GPU: float32. Gradients of the factors are added by atomics, in no fixed order.

The network that makes colours is torch's: dense layers are what its libraries are best at.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene3d.core.fields import FIELD_KINDS, Field
from scene3d.ops import cuda_call
from scene3d.ops.occupancy import pack_bits
from scene3d.render.field_march import USUAL, MarchSettings, RaySums


def takes(field: Field) -> bool:
    """Whether the CUDA module is there and knows the kind, the field in a box, on its device, in float32, of few enough
    features."""
    is_known = field.bases is None and field.warp is None and cuda_call.takes(*field.factors())
    return is_known and field.n_features <= cuda_call.module.MAX_FEATURES


def march(
    field: Field, origins: Tensor, directions: Tensor, jitter: Tensor | None, settings: MarchSettings = USUAL
) -> RaySums:
    """Sample and composite along rays, differentiable in the factors; see field_reference.march."""
    factors = tuple(value.contiguous() for value in field.factors())
    call = _Call(field.with_factors(factors), settings)
    return RaySums(*_March.apply(call, origins.contiguous(), directions.contiguous(), jitter, *factors))


class _Call:
    """A field handed to native code, which reads its factors where they are."""

    def __init__(self, field: Field, settings: MarchSettings) -> None:
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
        self.native = native.Field(
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
            self.native.set_occupancy(words, coarse, list(reversed(field.occupancy.shape)))

    def stream(self) -> int:
        return cuda_call.begin(cuda_call.module, self.device)


class _March(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, call: _Call, origins: Tensor, directions: Tensor, jitter: Tensor | None, *factors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        n = len(origins)
        sums = [torch.empty(shape, device=call.device) for shape in ((n, call.n_features), (n,), (n,))]
        call.native.march(origins.detach(), directions.detach(), jitter, sums, call.stream())
        ctx.call = call
        ctx.save_for_backward(origins, directions, jitter, *sums, *factors)
        return sums[0], sums[1], sums[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *v_sums: Tensor) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        origins, directions, jitter, *rest = ctx.saved_tensors
        sums, factors = rest[:3], rest[3:]
        grads = [torch.zeros_like(value) for value in factors]
        call.native.march_backward(
            origins.detach(),
            directions.detach(),
            jitter,
            [value.detach() for value in sums],
            [v.contiguous() for v in v_sums],
            grads,
            call.stream(),
        )
        return (None, None, None, None, *grads)  # call, origins, directions, jitter
