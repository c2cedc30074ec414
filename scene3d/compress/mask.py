"""Learnable masks: which Gaussians a scene can do without, decided while the others make up for them.

A logit m for each: M = 1 where sigmoid(m) > 0.01, else 0, with the gradient of the sigmoid; M scales both opacity and
size. The penalty is the mean of the sigmoids (Lee et al. 2024, Compact 3D Gaussian Representation, section 3.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.compress.distill import Leaf, Teacher, distill
from scene3d.core.gaussians import Gaussians

THRESHOLD = 0.01
# A logit that only the penalty moves travels this far over the run; 5.6 hide it. No step is longer than the second.
MASK_TRAVEL, MASK_RATE = 14.0, 0.5
RATES = {"opacity_logits": 4e-3, "sh0": 1e-3, "log_scales": 1e-3}
# Logits start at 1 as in the paper: sigmoid(1) = 0.73, far from being masked.
FIRST_LOGIT = 1.0
# Less than any pixel shows.
NOTHING = 1e-6


def binary_mask(logits: Tensor) -> Tensor:
    """0 or 1 with the gradient of the sigmoid. [N]"""
    soft = logits.sigmoid()
    return (soft > THRESHOLD).to(soft) - soft.detach() + soft


def masked(gaussians: Gaussians, mask: Tensor) -> Gaussians:
    """Gaussians with opacities and sizes times a mask [N] of 0 to 1. Differentiable in both."""
    opacities = (gaussians.opacities * mask).clamp(NOTHING, 1 - NOTHING)
    return Gaussians(
        **{
            **gaussians.params(),
            "opacity_logits": opacities.logit(),
            "log_scales": gaussians.log_scales + mask.clamp_min(NOTHING).log()[:, None],
        }
    )


def learn_mask(gaussians: Gaussians, teacher: Teacher, n_steps: int, strength: float, seed: int = 0) -> Gaussians:
    """The Gaussians that are left when masks are learnt against renders of the full scene.

    Args:
        gaussians: The scene.
        teacher: Renders to match.
        n_steps: Steps of one view each.
        strength: Mean squared error that is worth one share of the Gaussians: larger masks more.
        seed: Of the order of views.
    """
    values = {name: value.detach().clone() for name, value in gaussians.params().items()}
    logits = torch.full((len(gaussians),), FIRST_LOGIT, requires_grad=True)
    leaves = [Leaf(values[name].requires_grad_(), rate) for name, rate in RATES.items()]
    tuned = Gaussians(**values)

    def student(step: int) -> Gaussians:
        return masked(tuned, binary_mask(logits))

    distill(
        student, [*leaves, Leaf(logits, MASK_RATE)], teacher, n_steps, seed, lambda: strength * logits.sigmoid().mean()
    )
    return tuned.detach().select(logits.detach().sigmoid() > THRESHOLD)
