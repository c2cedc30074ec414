"""Adam over the nodes of a field that rays reached in this step; gradients and marks are cleared as they are used."""

from __future__ import annotations

from scene3d.recon.field_state import FieldState
from scene3d.render import cpu

# Gradients of a mean over rays are tiny: 1e-8 would hide them.
EPS = 1e-15


def step_factors(state: FieldState, lr: float, l1: float, betas: tuple[float, float]) -> int:
    """One step of Adam, with the gradient of l1 mean |density factor|; returns how many gradients were not finite."""
    n_bad = 0
    factors, n_density = state.field.factors(), len(state.field.density)
    rows = zip(factors, state.grads, state.moments, state.marks, strict=True)
    for i, (value, grad, (mean, square), marks) in enumerate(rows):
        pull = l1 / value.numel() if i < n_density else 0.0
        constants = [*betas, EPS]
        n_bad += cpu.native().field_adam(
            value, grad, mean, square, marks, value.shape[-2], value.shape[-1], lr, pull, state.since_growth, constants
        )
    return n_bad
