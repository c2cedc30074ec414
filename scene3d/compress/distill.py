"""Distillation: tune numbers of a smaller scene until its images are those of the full one. No photos are needed.

It is what makes up for pruned Gaussians (the opacities and colours of their neighbours take over) and what fits
codebooks while they are in use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.core.progress import Progress
from scene3d.ops.threads import single_threaded_torch
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings

# Renders of the full scene are kept up to this many bytes; beyond, they are made again when they are needed.
CACHE_BYTES = 1 << 29


@dataclass(frozen=True)
class Leaf:
    """A tensor that is tuned.

    Attributes:
        value: Requires a gradient; changed in place.
        lr: Step size of Adam at the start; it falls to a tenth over the run.
    """

    value: Tensor
    lr: float


class Teacher:
    """Renders of the full scene.

    Args:
        gaussians: The full scene.
        cameras: The views, sizes may differ.
        settings: How both scenes are rendered; the background is drawn anew in every step.
        backend: Of the rasterizer.
    """

    def __init__(self, gaussians: Gaussians, cameras: Cameras, settings: RasterSettings, backend: str = "auto") -> None:
        self.gaussians, self.cameras, self.settings, self.backend = gaussians.detach(), cameras, settings, backend
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._n_bytes = 0

    def render(self, view: int) -> tuple[Tensor, Tensor]:
        """Colour over black [1, H, W, 3] and alpha [1, H, W, 1]."""
        if view in self._kept:
            return self._kept[view]
        render = rasterize(self.gaussians, self.cameras.select([view]), self.settings, self.backend)
        n_bytes = 4 * (render.rgb.numel() + render.alpha.numel())
        if self._n_bytes + n_bytes <= CACHE_BYTES:
            self._kept[view] = render.rgb, render.alpha
            self._n_bytes += n_bytes
        return render.rgb, render.alpha


def distill(
    student: Callable[[int], Gaussians],
    leaves: list[Leaf],
    teacher: Teacher,
    n_steps: int,
    seed: int = 0,
    penalty: Callable[[], Tensor] | None = None,
) -> float:
    """Minimise the squared difference of renders, view after view, by Adam.

    Args:
        student: Makes the small scene of a step from the leaves.
        leaves: What is tuned.
        teacher: The full scene and its views.
        n_steps: Steps of one view each; 0 changes nothing.
        seed: Of the order of views and of the backgrounds.
        penalty: Added to the mean squared error.

    Returns:
        Mean squared error over the last pass through the views; NaN where nothing was done.
    """
    generator = torch.Generator().manual_seed(seed)
    groups = [{"params": [leaf.value], "lr": leaf.lr} for leaf in leaves]
    optimizer = torch.optim.Adam(groups, eps=1e-15)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / max(n_steps, 1)))
    n_views = len(teacher.cameras)
    errors: list[float] = []
    order: list[int] = []
    with single_threaded_torch(), Progress(n_steps, "matching the full scene") as progress:
        for step in range(n_steps):
            order = order or torch.randperm(n_views, generator=generator).tolist()
            error = _difference(student(step), teacher, order.pop(), torch.rand(3, generator=generator))
            optimizer.zero_grad()
            (error if penalty is None else error + penalty()).backward()
            optimizer.step()
            decay.step()
            errors.append(error.item())
            progress.advance()
    last = errors[-n_views:]
    return sum(last) / len(last) if last else float("nan")


def _difference(student: Gaussians, teacher: Teacher, view: int, background: Tensor) -> Tensor:
    rgb, alpha = teacher.render(view)
    render = rasterize(student, teacher.cameras.select([view]), teacher.settings, teacher.backend)
    difference = render.rgb - rgb - (render.alpha - alpha) * background
    return difference.square().mean()


def compensate(gaussians: Gaussians, teacher: Teacher, n_steps: int, seed: int = 0) -> Gaussians:
    """Let the Gaussians that are left take over what pruned ones did: their opacities and colours are tuned.

    Args:
        gaussians: What is left of the teacher's scene.
        teacher: The scene before pruning.
        n_steps: Steps of one view each.
        seed: Of the order of views and of the backgrounds.
    """
    values = {name: value.detach().clone() for name, value in gaussians.params().items()}
    rates = {"opacity_logits": 0.02, "sh0": 0.005, "log_scales": 0.002}
    leaves = [Leaf(values[name].requires_grad_(), lr) for name, lr in rates.items()]
    tuned = Gaussians(**values)
    distill(lambda step: tuned, leaves, teacher, n_steps, seed)
    return tuned.detach()
