"""Neighbour smoothness: what makes attributes alike along the grid while the images stay (Morgenstern et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.compress.distill import Leaf, Teacher, distill
from scene3d.core.gaussians import Gaussians
from scene3d.ops.grid_sort import to_grid

# As in the paper: rotations count most, places and colours not at all; they are sorted by.
LOSS_WEIGHTS = {"quats": 10.0, "opacity_logits": 1.0, "log_scales": 1.0}
# Weight of the loss beside the mean squared error of images.
STRENGTH = 2e-6
RATES = {"quats": 4e-4, "log_scales": 1e-3, "opacity_logits": 4e-3, "sh0": 1e-3}
BLUR_TAPS, BLUR_SIGMA = 5, 3.0


def neighbor_loss(values: Tensor, width: int) -> Tensor:
    """Huber loss between values on a grid and their own blur, which stands still.

    Equation 4 of the paper: a Gaussian blur of five taps; here the picture ends at its borders.

    Args:
        values: In the order of the grid. [N, C]
        width: Cells per row.

    Differentiable in values.
    """
    grid = to_grid(values, width).permute(2, 0, 1)[:, None]  # [C, 1, H, W]
    taps = torch.exp(-0.5 * ((torch.arange(BLUR_TAPS) - BLUR_TAPS // 2) / BLUR_SIGMA) ** 2).to(values)
    taps = taps / taps.sum()
    pad = BLUR_TAPS // 2
    padded = torch.nn.functional.pad(grid.detach(), (pad, pad, pad, pad), mode="replicate")
    blurred = torch.nn.functional.conv2d(padded, taps.view(1, 1, 1, -1))
    blurred = torch.nn.functional.conv2d(blurred, taps.view(1, 1, -1, 1))
    return torch.nn.functional.huber_loss(grid, blurred)


def smooth(gaussians: Gaussians, width: int, teacher: Teacher, n_steps: int, seed: int = 0) -> Gaussians:
    """Tune Gaussians so that neighbours in the grid are alike and the images are those of the full scene.

    Args:
        gaussians: In the order of the grid.
        width: Cells per row.
        teacher: The full scene.
        n_steps: Steps of one view each.
        seed: Of the order of views.
    """
    values = {name: value.detach().clone() for name, value in gaussians.params().items()}
    quats = torch.nn.functional.normalize(values["quats"], dim=1)
    values["quats"] = torch.where(quats[:, :1] < 0, -quats, quats)
    leaves = [Leaf(values[name].requires_grad_(), rate) for name, rate in RATES.items()]
    tuned = Gaussians(**values)

    def penalty() -> Tensor:
        parts = [
            weight * neighbor_loss(values[name].reshape(len(tuned), -1), width) for name, weight in LOSS_WEIGHTS.items()
        ]
        return STRENGTH * torch.stack(parts).sum()

    distill(lambda step: tuned, leaves, teacher, n_steps, seed, penalty)
    return tuned.detach()
