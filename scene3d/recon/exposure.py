"""Exposure compensation: one colour transform per training photo, learnt beside the scene.

Phones change exposure and white balance from photo to photo; without this the scene pays for it with haze.
Test views have no transform of their own: they are measured as rendered, and also after the affine transform that
fits each best in the least-squares sense (`ops.color_fit`), which is written beside the number.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.recon.settings import ExposureName

LR = 1e-3
LR_FINAL = 0.1  # Fraction of LR at the end of the run.


@dataclass
class Exposure:
    """Colour transforms rgb' = A rgb + b of C photos, with Adam's moments.

    Attributes:
        kind: gain = only the diagonal of A is learnt, affine = all of A and b.
        transforms: [A | b], identity at first. [C, 3, 4]
    """

    kind: ExposureName
    transforms: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    counts: Tensor  # Steps per photo, for Adam's start. [C]

    @classmethod
    def start(cls, kind: ExposureName, n_photos: int) -> Exposure:
        transforms = torch.eye(3, 4).repeat(n_photos, 1, 1)
        return cls(kind, transforms, torch.zeros(n_photos, 3, 4), torch.zeros(n_photos, 3, 4), torch.zeros(n_photos))

    def step(self, view: int, grad: Tensor, lr: float) -> None:
        """One step of Adam on the transform of one photo. grad [3, 4]"""
        if self.kind == "gain":
            grad = grad * torch.eye(3, 4)
        self.counts[view] += 1
        adam_row_(self.transforms[view], grad, self.exp_avg[view], self.exp_avg_sq[view], lr, int(self.counts[view]))


def apply(rgb: Tensor, transform: Tensor) -> Tensor:
    """Transform colours. rgb [H, W, 3], transform [3, 4]. Differentiable in both."""
    return rgb @ transform[:, :3].T + transform[:, 3]


def adam_row_(value: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, lr: float, step: int) -> None:
    """Adam on a few numbers, in place; Kingma and Ba 2015 with their constants."""
    exp_avg.lerp_(grad, 0.1)
    exp_avg_sq.mul_(0.999).addcmul_(grad, grad, value=0.001)
    mean, square = exp_avg / (1 - 0.9**step), exp_avg_sq / (1 - 0.999**step)
    value.sub_(lr * mean / (square.sqrt() + 1e-15))
