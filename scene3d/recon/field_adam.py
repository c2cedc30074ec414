"""Adam over the nodes of a field that rays reached in this step; gradients and marks are cleared as they are used."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scene3d.core.fields import BASES, Field, decoder_of
from scene3d.ops import cuda_call
from scene3d.ops.adam import adam_step_
from scene3d.recon.field_settings import FieldFitSettings
from scene3d.recon.field_state import FieldState
from scene3d.render import cpu, field_cuda

BETAS = (0.9, 0.99)

# Gradients of a mean over rays are tiny: 1e-8 would hide them.
EPS = 1e-15


def step_factors(state: FieldState, lr: float, l1: float, betas: tuple[float, float]) -> int | Tensor:
    """One step of Adam, with the gradient of l1 mean |density factor|; returns how many gradients were not finite, on a
    GPU as a number that is there."""
    if field_cuda.takes(state.field):
        return _step_on_gpu(state, lr, l1, betas)
    n_bad = 0
    factors, n_density = state.field.factors(), len(state.field.density)
    rows = zip(state.field.names * 2, factors, state.grads, state.moments, state.marks, strict=True)
    for i, (name, value, grad, (mean, square), marks) in enumerate(rows):
        pull = l1 / value.numel() if i < n_density else 0.0
        constants = [*betas, EPS]
        n_bad += cpu.native().field_adam(
            value,
            grad,
            mean,
            square,
            marks,
            _width(name, value, state.field),
            value.shape[-1],
            lr,
            pull,
            state.since_growth,
            constants,
        )
    return n_bad


def _step_on_gpu(state: FieldState, lr: float, l1: float, betas: tuple[float, float]) -> Tensor:
    """The same for all factors in one call."""
    field, factors = state.field, list(state.field.factors())
    means, squares = zip(*state.moments, strict=True)
    widths = [_width(name, value, field) for name, value in zip(field.names * 2, factors, strict=True)]
    pulls = [l1 / value.numel() if i < len(field.density) else 0.0 for i, value in enumerate(factors)]
    n_bad = torch.zeros(1, dtype=torch.int32, device=field.device)
    tables = [factors, state.grads, list(means), list(squares)]
    stream = cuda_call.begin(cuda_call.module, field.device)
    rule = [lr, *betas, EPS]
    cuda_call.module.field_adam(tables, state.marks, widths, pulls, rule, state.since_growth, n_bad, stream)
    return n_bad[0]


def _width(name: str, value: Tensor, field: Field) -> int:
    """Nodes from one row of a plane to the next, of others all: they are one row; 0 where none has neighbours."""
    if name == BASES:
        return 0
    return value.shape[-2] if value.ndim == 3 and not field.levels else value.numel() // value.shape[-1]


def update(state: FieldState, settings: FieldFitSettings, v_decoder: list[Tensor]) -> None:
    """One step of Adam for everything: factors by the gradients in the state, the decoder by those given."""
    decay = settings.lr_final**state.fraction
    l1 = settings.l1 * (0.5 if state.n_masks else 1.0)
    state.since_growth += 1
    state.count_bad(step_factors(state, settings.lr_factors * decay, l1, BETAS))
    flat = torch.cat([v.reshape(-1) for v in state.field.decoder.tensors()])
    v_flat = torch.cat([v.reshape(-1) for v in v_decoder])
    means, squares = state.decoder_moments
    lr = settings.lr_decoder * decay
    state.count_bad(adam_step_([flat], [v_flat], [means], [squares], [lr], state.step + 1, None, BETAS))
    tensors, at = [], 0
    for value in state.field.decoder.tensors():
        tensors.append(flat[at : at + value.numel()].reshape(value.shape))
        at += value.numel()
    state.field = replace(state.field, decoder=decoder_of(tensors))
