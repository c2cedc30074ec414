"""Sensitivity: how much the images of a scene change with each of its numbers.

For a number t the mean over pixels, channels and views of (dI/dt)^2. An error e of t alone then adds e^2 times that to
the mean square error of the images. All are found at once: the gradient of the sum of images weighted by random signs v
is J^T v, and the expectation of its square is the diagonal of J^T J (Hutchinson 1989). Other than
`importance.sensitivities` this looks along each Gaussian's own axes and is not misled where colours are cut off at 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.compress.importance import log_footprints
from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.ops import quaternions
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings


@dataclass(frozen=True)
class Sensitivity:
    """Mean square change of the images per unit of each number.

    Attributes:
        means: Centres. [N, 3]
        log_scales: Axes as stored. [N, 3]
        turns: Rotation about each own axis, radians. [N, 3]
        log_opacity: Logarithm of the opacity. [N]
        color: Mean of the three channels of sh0. [N]
        sh: Mean of the three channels of every coefficient of shN. [N, K-1]
    """

    means: Tensor
    log_scales: Tensor
    turns: Tensor
    log_opacity: Tensor
    color: Tensor
    sh: Tensor

    def select(self, index: Tensor) -> Sensitivity:
        """Keep rows by boolean mask [N] or by index [M]."""
        rows = (self.means, self.log_scales, self.turns, self.log_opacity, self.color, self.sh)
        return Sensitivity(*(row[index] for row in rows))


def measure_sensitivity(
    gaussians: Gaussians,
    cameras: Cameras,
    settings: RasterSettings,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> Sensitivity:
    """Measure over all views, two backward passes each.

    Args:
        gaussians: The scene, finite.
        cameras: The views; sizes may differ.
        settings: How the scene is rendered.
        seed: Of the random signs.
        advance: Called after every view.
    """
    gaussians = replace(gaussians.detach(), quats=quaternions.normalize(gaussians.quats.detach()))
    # Colours below 0 are cut off and would seem not to matter; weights do not depend on colours, so grey will do.
    grey = replace(gaussians, sh0=torch.zeros_like(gaussians.sh0), shN=torch.zeros_like(gaussians.shN))
    generator = torch.Generator().manual_seed(seed)
    shape = color = None
    for i in range(len(cameras)):
        view = cameras.select([i])
        shape = _add(shape, _shape_row(gaussians, _gradient(gaussians, view, settings, generator)))
        color = _add(color, _color_row(_gradient(grey, view, settings, generator)))
        advance()
    assert shape is not None
    assert color is not None
    shape, color = shape / len(cameras), color / len(cameras)
    return Sensitivity(shape[:, :3], shape[:, 3:6], shape[:, 6:9], shape[:, 9], color[:, 0], color[:, 1:])


def with_prior(sensitivity: Sensitivity, gaussians: Gaussians, share: float) -> Sensitivity:
    """Let no Gaussian matter less than a share of what it would if it were seen as others of its size and opacity are.

    No views see all that matters: least of all those that were made up, but photos that were held out show some of
    what the others do not, too. What a Gaussian changes when it is seen goes with its opacity squared times its area;
    the factors are medians over those that are seen.

    Args:
        sensitivity: As measured.
        gaussians: The scene.
        share: 0 leaves everything as it is, 1 counts every Gaussian at least as an average one.
    """
    areas = log_footprints(gaussians)
    # The largest is one: nothing overflows.
    prior = gaussians.opacities.square() * (areas - (areas.max() if len(areas) else 0)).exp()
    near = (-2 * gaussians.log_scales.sort(dim=1).values[:, 1]).exp()

    def floor(values: Tensor, size: Tensor) -> Tensor:
        flat = values.reshape(len(values), -1)
        ratio = (flat.mean(dim=1) / size)[flat.mean(dim=1) > 0] if flat.shape[1] else flat.new_zeros(0)
        least = share * (float(ratio.median()) if len(ratio) else 0.0) * size
        return torch.maximum(values, least.reshape(-1, *[1] * (values.ndim - 1)))

    return Sensitivity(
        means=floor(sensitivity.means, prior * near),
        log_scales=floor(sensitivity.log_scales, prior),
        turns=floor(sensitivity.turns, prior),
        log_opacity=floor(sensitivity.log_opacity, prior),
        color=floor(sensitivity.color, prior),
        sh=floor(sensitivity.sh, prior),
    )


def _add(total: Tensor | None, row: Tensor) -> Tensor:
    return row.square() if total is None else total.add_(row.square())


def _gradient(gaussians: Gaussians, view: Cameras, settings: RasterSettings, generator: torch.Generator) -> Gaussians:
    leaves = gaussians.map(lambda value: value.clone().requires_grad_())
    image = rasterize(leaves, view, settings).rgb
    signs = torch.randint(0, 2, image.shape, generator=generator).to(image.dtype) * 2 - 1
    inputs = list(leaves.params().values())
    # A sum, for gradients of images that are handed to torch make it import half a second's worth of sympy.
    probe = (image * (signs / image.numel() ** 0.5)).sum()
    grads = torch.autograd.grad(probe, inputs, allow_unused=True)
    found = [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(inputs, grads, strict=True)]
    return Gaussians(*found)


def _shape_row(gaussians: Gaussians, grad: Gaussians) -> Tensor:  # [N, 10]
    turns = []
    for axis in range(3):
        unit = torch.zeros_like(gaussians.quats)
        unit[:, axis + 1] = 1
        # Turning by t about an own axis adds t / 2 times q e_axis to q.
        turns.append(0.5 * (grad.quats * quaternions.multiply(gaussians.quats, unit)).sum(dim=1))
    # d logit / d ln a = 1 / (1 - a)
    opacity = grad.opacity_logits / (1 - gaussians.opacities).clamp_min(1e-4)
    return torch.cat([grad.means, grad.log_scales, torch.stack(turns, dim=1), opacity[:, None]], dim=1)


def _color_row(grad: Gaussians) -> Tensor:  # [N, K], the root mean square of the channels
    return torch.cat([grad.sh0, grad.shN], dim=1).square().mean(dim=2).sqrt()
