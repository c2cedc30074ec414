"""Fitting for the grid: Self-Organizing Gaussians (Morgenstern et al. 2024) while a scene is fitted to photos.

Some way into the fit the Gaussians are sorted into a 2D grid; from then on the gradient of the neighbour smoothness
loss is added to that of the photos. Every so many steps they are sorted again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.compress import grid
from scene3d.compress.aware_settings import AwareSettings, TrainingViews
from scene3d.compress.goal import Goal
from scene3d.compress.neighbors import LOSS_WEIGHTS, neighbor_loss
from scene3d.core.gaussians import Gaussians
from scene3d.core.push import Push
from scene3d.core.scene import Scene
from scene3d.io.s3d_container import Container
from scene3d.ops.grid_sort import grid_width

# Weight of the loss for each unit of `rate_weight`, beside the mean photometric loss.
STRENGTH = 1e-3
# Sorts come once in so many new gradients, which take far less.
SORT_EVERY = 5


@dataclass(frozen=True)
class GridFit:
    """The influence on one fit.

    Attributes:
        settings: Its `noise_from` says when the loss begins, `noise_every` how often its gradient is taken anew,
            `plan_every` a fifth of how often Gaussians are sorted, `rate_weight` how much it counts.
        views: By which coding is judged.
        seed: Not used: sorting draws nothing.
    """

    settings: AwareSettings
    views: TrainingViews
    seed: int

    def influence(self, gaussians: Gaussians, push: Push | None, step: int, fraction: float) -> Push | None:
        """As a fit takes it."""
        settings = self.settings
        if fraction < settings.noise_from:
            return None
        if push is not None and step % settings.noise_every:
            return push
        if push is None or step % (SORT_EVERY * settings.plan_every) == 0:
            order = grid.sort_order(gaussians, grid.is_unbounded(gaussians.means))
        else:
            order = push.memory["order"]
        grads = neighbor_grads(gaussians, order, STRENGTH * settings.rate_weight)
        return Push(grads=grads, memory={"order": order})

    def finish(self, gaussians: Gaussians, push: Push | None) -> Container:
        """The file; `gaussians` are those that are shown."""
        scene = Scene(gaussians, self.views.info)
        judge = self.views.judge(gaussians)
        goal = Goal(self.settings.drop_db, self.settings.target_bytes, scene_psnr=judge.scene_psnr() or Goal.scene_psnr)
        return grid.compress(scene, goal, judge, self.views.cameras).container


def neighbor_grads(gaussians: Gaussians, order: Tensor, weight: float) -> dict[str, Tensor]:
    """The gradient of `weight` times the neighbour loss.

    Args:
        gaussians: The scene. [N]
        order: In which they fill the grid. [N]
        weight: Of the loss.
    """
    width = grid_width(len(gaussians))
    leaves = {name: getattr(gaussians, name).detach().clone().requires_grad_() for name in LOSS_WEIGHTS}
    quats = torch.nn.functional.normalize(leaves["quats"], dim=1)
    rows = leaves | {"quats": torch.where(quats[:, :1] < 0, -quats, quats)}
    parts = [
        share * neighbor_loss(rows[name][order].reshape(len(order), -1), width) for name, share in LOSS_WEIGHTS.items()
    ]
    loss = weight * torch.stack(parts).sum()
    names = list(leaves)
    return dict(zip(names, torch.autograd.grad(loss, [leaves[name] for name in names]), strict=True))
