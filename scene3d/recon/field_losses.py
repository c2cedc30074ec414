"""What a field fit may minimise besides squared errors: structure of random pixels, variation of the factors."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.fields import BASES
from scene3d.ops.stochastic_ssim import s3im
from scene3d.recon.field_state import FieldState
from scene3d.render.field_march import RaySums

# Every node has a gradient of variation: that costs as much as a step, and changes slowly.
TV_EVERY = 8
# Relative error of a distance beyond which its gradient does not grow.
MOST_OFF = 0.2


def structure_grad(
    rgb: Tensor, target: Tensor, weight: Tensor | None, strength: float, generator: torch.Generator
) -> Tensor:
    """Gradient of strength (1 - S3IM) by the pixels of a batch.

    Args:
        rgb: Render over its background. [R, 3]
        target: Photos over the same. [R, 3]
        weight: 0 to 1; pixels of less weight look like the photo. [R]
        strength: Of the loss.
        generator: Deals pixels to windows.
    """
    share = torch.ones_like(rgb[:, :1]) if weight is None else weight[:, None]
    with torch.enable_grad():
        leaf = rgb.detach().requires_grad_()
        loss = strength * (1 - s3im(target + share * (leaf - target), target, generator))
        (grad,) = torch.autograd.grad(loss, leaf)
    return grad


def distance_grads(sums: RaySums, distance: Tensor, weight: Tensor | None, strength: float) -> tuple[Tensor, Tensor]:
    """Gradients of strength times the mean squared relative error of distances, by the sums of opacity and of distance.

    Args:
        sums: Of a batch.
        distance: What depth maps say, scene units; 0 where they say nothing. [R]
        weight: 0 to 1, of each ray. [R]
        strength: Of the loss.
    """
    is_known = distance > 0
    error = torch.where(is_known, sums.distance / distance.clamp_min(1e-6) - sums.opacity, 0.0)
    # One that is far off says only in which direction: floaters at the camera, or things behind a gap.
    slope = 2 * strength / max(int(is_known.sum()), 1) * error.clamp(-MOST_OFF, MOST_OFF)
    if weight is not None:
        slope = slope * weight
    return -slope, torch.where(is_known, slope / distance.clamp_min(1e-6), 0.0)


def add_variation_grads(state: FieldState, strength: float) -> None:
    """Add the gradients of strength times the mean squared difference of neighbouring nodes, factor by factor of
    density; all nodes count as reached."""
    n = len(state.field.density)
    rows = zip(state.field.names, state.field.density, state.grads[:n], state.marks[:n], strict=True)
    for name, value, grad, marks in rows:
        if name == BASES:
            continue
        # Leaves vary along their nodes only; planes along both axes.
        axes = (0, 1) if value.ndim == 3 and not state.field.levels else (value.ndim - 2,)
        for axis in axes:
            if value.shape[axis] < 2:
                continue
            slope = value.diff(dim=axis)
            slope *= 2 * strength / slope.numel()
            grad.narrow(axis, 1, slope.shape[axis]).add_(slope)
            grad.narrow(axis, 0, slope.shape[axis]).sub_(slope)
        marks.fill_(1)
