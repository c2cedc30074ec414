"""What the context codec makes of a scene, without coding it: step sizes, noise in their place, and an entropy proxy.

At a distortion D, the mean square error that each number may add to the images, a number of sensitivity w gets a step
of sqrt(12 D / w). While a scene is fitted, uniform noise of a step's width stands for rounding (Ballé et al. 2017), and
0.5 log2(1 + (r / step)²) for the bits of a residual r against what its neighbours foretell.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.compress.sensitivity import Sensitivity
from scene3d.core.gaussians import Gaussians
from scene3d.ops import quaternions
from scene3d.ops.knn import nearest

N_NEIGHBORS = 4
# Longer steps leave the range in which errors grow with the derivative.
MAX_LOG_STEP, MAX_TURN, MAX_COLOR_STEP = 1.0, 1.0, 1.0
# Axes of Y Co Cg in RGB have these squared lengths: steps of brightness are finer.
LUMA_WEIGHTS = (3.0, 2.0, 3.0)
MAX_LOGIT = 8.0


@dataclass(frozen=True)
class NumberSteps:
    """Width of the steps of every number.

    Attributes:
        means: Scene units. [N, 3]
        log_scales: [N, 3]
        turns: About the own axes, radians. [N, 3]
        log_opacity: [N]
        luma: Of Y Co Cg. [N, 3]
        sh: Of every coefficient. [N, K-1]
    """

    means: Tensor
    log_scales: Tensor
    turns: Tensor
    log_opacity: Tensor
    luma: Tensor
    sh: Tensor


def number_steps(gaussians: Gaussians, sensitivity: Sensitivity, distortion: float) -> NumberSteps:
    """Steps at which every number adds the same error."""

    def step(weights: Tensor, most: Tensor | float) -> Tensor:
        return (12 * distortion / weights.clamp_min(1e-30)).sqrt().clamp(max=most)

    size = gaussians.log_scales.amax(dim=1, keepdim=True).exp()
    shares = torch.tensor(LUMA_WEIGHTS).rsqrt()
    return NumberSteps(
        means=step(sensitivity.means.mean(dim=1, keepdim=True), size).expand(-1, 3),
        log_scales=step(sensitivity.log_scales, MAX_LOG_STEP),
        turns=step(sensitivity.turns, MAX_TURN),
        log_opacity=step(sensitivity.log_opacity, MAX_LOG_STEP),
        luma=step(sensitivity.color[:, None], MAX_COLOR_STEP) * shares,
        sh=step(sensitivity.sh, MAX_COLOR_STEP),
    )


def noise_offsets(gaussians: Gaussians, steps: NumberSteps, generator: torch.Generator) -> dict[str, Tensor]:
    """What uniform noise of the steps adds to each tensor of the Gaussians."""

    def uniform(like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=generator) - 0.5

    half_turns = 0.5 * steps.turns * uniform(steps.turns)
    turn = torch.cat([torch.ones(len(half_turns), 1), half_turns], dim=1)
    logits = gaussians.opacity_logits.clamp(-MAX_LOGIT, MAX_LOGIT)
    log_opacity = torch.nn.functional.logsigmoid(logits) + steps.log_opacity * uniform(steps.log_opacity)
    noisy = logit_of_log(log_opacity)
    sh_noise = steps.sh[:, :, None] * uniform(gaussians.shN)
    # Where a number is less than half a step it is not coded at all.
    is_lost = gaussians.shN.abs() < 0.5 * steps.sh[:, :, None]
    return {
        "means": steps.means * uniform(steps.means),
        "log_scales": steps.log_scales * uniform(steps.log_scales),
        "quats": quaternions.multiply(gaussians.quats, turn) - gaussians.quats,
        "opacity_logits": noisy - gaussians.opacity_logits,
        "sh0": from_luma(steps.luma * uniform(steps.luma))[:, None, :],
        "shN": torch.where(is_lost, -gaussians.shN, sh_noise),
    }


def rate_grads(gaussians: Gaussians, steps: NumberSteps, weight: float) -> tuple[float, dict[str, Tensor]]:
    """Bits of a scene by the proxy, and the gradient of `weight` times them; neighbours stand still.

    Places are not counted, nor are rotations: they have no neighbours to follow.
    """
    around = _neighborhood(gaussians.means)
    log_opacity = torch.nn.functional.logsigmoid(gaussians.opacity_logits)
    n_opacity, by_opacity = _residual_bits(log_opacity[:, None], steps.log_opacity[:, None], around)
    n_scale, by_scale = _residual_bits(gaussians.log_scales, steps.log_scales, around)
    n_color, by_luma = _residual_bits(to_luma(gaussians.sh0[:, 0]), steps.luma, around)
    rest = gaussians.shN.flatten(1)
    n_rest, by_rest = _residual_bits(rest, steps.sh.repeat_interleave(3, dim=1), around)
    grads = {
        "opacity_logits": by_opacity[:, 0] * (1 - gaussians.opacities),
        "log_scales": by_scale,
        "sh0": _to_luma_vjp(by_luma)[:, None, :],
        "shN": by_rest.view_as(gaussians.shN),
    }
    return n_opacity + n_scale + n_color + n_rest, {name: (weight * grad).contiguous() for name, grad in grads.items()}


def logit_of_log(log_opacity: Tensor) -> Tensor:
    """The logit of an opacity whose logarithm is given; opacities stay between those of logits -8 and 8."""
    low, high = (math.log(1 / (1 + math.exp(-sign * MAX_LOGIT))) for sign in (-1, 1))
    clamped = log_opacity.clamp(low, high)
    return clamped - torch.log(-torch.expm1(clamped))


def to_luma(rgb: Tensor) -> Tensor:
    """Y Co Cg as the codec has them. [N, 3]"""
    red, green, blue = rgb.unbind(dim=1)
    return torch.stack([(red + 2 * green + blue) / 4, (red - blue) / 2, (2 * green - red - blue) / 4], dim=1)


def from_luma(values: Tensor) -> Tensor:
    """The inverse of to_luma. [N, 3]"""
    luma, orange, green = values.unbind(dim=1)
    return torch.stack([luma + orange - green, luma + green, luma - orange - green], dim=1)


def _to_luma_vjp(v: Tensor) -> Tensor:
    luma, orange, green = v.unbind(dim=1)
    return torch.stack(
        [luma / 4 + orange / 2 - green / 4, luma / 2 + green / 2, luma / 4 - orange / 2 - green / 4], dim=1
    )


def _neighborhood(means: Tensor) -> Callable[[Tensor], Tensor]:
    """Gives the mean of rows [N, C] over the nearest others of each."""
    k = min(N_NEIGHBORS + 1, len(means))
    index = nearest(means, means, k)[1][:, 1:]
    return lambda values: values[index].mean(dim=1) if index.shape[1] else torch.zeros_like(values)


def _residual_bits(values: Tensor, steps: Tensor, around: Callable[[Tensor], Tensor]) -> tuple[float, Tensor]:
    """0.5 log2(1 + (r / step)²), summed, and its derivative by the values. [N, C]"""
    spread = values - values.mean(dim=0)
    near = around(spread)
    # As in the codec each column follows its neighbours as far as that helps, by least squares.
    gain = ((spread * near).sum(dim=0) / near.square().sum(dim=0).clamp_min(1e-12)).clamp(0, 1)
    residual = spread - gain * near
    squares = residual.square() + steps.square()
    bits = 0.5 * torch.log2(squares / steps.square().clamp_min(1e-30))
    return float(bits.double().sum()), residual / squares.clamp_min(1e-30) / math.log(2)
