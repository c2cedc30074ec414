"""Fewer Gaussians that look alike: near ones of like colour are merged into one of the same moments.

In rounds, each Gaussian looks for the nearest in position and colour; pairs that chose each other are merged, the
cheapest first. Moment matching as in Runnalls 2007, with opacity times volume as the mass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.gaussians import Gaussians, cat
from scene3d.ops import morton, quaternions, sh
from scene3d.ops.covariance import from_quats_scales
from scene3d.ops.knn import nearest

N_CANDIDATES = 8
# How much a difference of colour (0 to 1) weighs against a distance of one standard deviation.
COLOR_WEIGHT = 8.0


def decimate(gaussians: Gaussians, count: int) -> Gaussians:
    """Merge until at most `count` are left; what was not merged keeps its place and bits.

    Args:
        gaussians: Finite. Calculated in float32.
        count: At least 1 where there is anything.
    """
    if count < min(1, len(gaussians)):
        raise ValueError(f"decimate: expected a count of at least 1, got {count}")
    while (n_excess := len(gaussians) - count) > 0:
        first, second, costs = _pairs(gaussians)
        # Half of the pairs a round: later ones see what the first have become.
        n_merged = min(n_excess, max(1, len(first) // 2))
        chosen = costs.argsort(stable=True)[:n_merged]
        gaussians = _merge(gaussians, first[chosen], second[chosen])
    return gaussians


def _pairs(gaussians: Gaussians) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs [P], [P] that prefer each other, first < second, and their costs [P]."""
    n = len(gaussians)
    row = torch.arange(n)[:, None]
    k = min(N_CANDIDATES + 1, n)
    _, indices = nearest(gaussians.means, gaussians.means, k)
    # Where many lie in one place all have the same few neighbours; those along the Z-curve differ.
    indices = torch.cat([indices, _curve_neighbors(gaussians.means)], dim=1)
    distances = (gaussians.means[:, None] - gaussians.means[indices]).norm(dim=2)
    sizes = gaussians.scales.double().log().mean(dim=1).exp().float()
    colors = sh.to_rgb(gaussians.sh0[:, 0])
    spread = sizes[:, None] + sizes[indices]
    difference = (colors[:, None] - colors[indices]).norm(dim=2)
    costs = distances / spread.clamp_min(torch.finfo(torch.float32).tiny) + COLOR_WEIGHT * difference
    # Merging large or opaque Gaussians shows more.
    weights = gaussians.opacities * sizes.square()
    costs = costs * torch.minimum(weights[:, None], weights[indices])
    # Ties would chase each other in circles: a number of the pair itself breaks them.
    lower, upper = torch.minimum(indices, row), torch.maximum(indices, row)
    costs = costs.clamp_min(1e-30) * (1 + 1e-6 * ((lower * 40503 + upper * 26543) % 4093 / 4093))
    costs = costs.masked_fill(indices == row, torch.inf)
    best = costs.min(dim=1)
    choice = indices.gather(1, best.indices[:, None])[:, 0]
    is_mutual = (choice[choice] == torch.arange(n)) & (torch.arange(n) < choice)
    first = is_mutual.nonzero()[:, 0]
    if len(first) == 0:
        first = best.values.argmin()[None]
    return first, choice[first], best.values[first]


def _curve_neighbors(means: Tensor) -> Tensor:  # [N, 3] -> [N, 2]
    order = morton.order(means)
    around = torch.empty(len(means), 2, dtype=torch.long)
    around[order, 0], around[order, 1] = order.roll(1), order.roll(-1)
    return around


def _merge(gaussians: Gaussians, first: Tensor, second: Tensor) -> Gaussians:
    is_kept = torch.ones(len(gaussians), dtype=torch.bool)
    is_kept[first] = is_kept[second] = False
    merged = _moments(gaussians.select(first), gaussians.select(second))
    return cat([gaussians.select(is_kept), merged])


def _moments(a: Gaussians, b: Gaussians) -> Gaussians:
    mass_a, mass_b = (g.opacities.double() * g.log_scales.double().sum(dim=1).exp() for g in (a, b))
    total = (mass_a + mass_b).clamp_min(torch.finfo(torch.float64).tiny)
    share = torch.where(mass_a + mass_b > 0, mass_a / total, torch.full_like(total, 0.5))

    def mix(x: Tensor, y: Tensor) -> Tensor:
        w = share.view(-1, *([1] * (x.ndim - 1)))
        return w * x.double() + (1 - w) * y.double()

    offset = a.means.double() - b.means.double()
    between = (share * (1 - share))[:, None, None] * offset[:, :, None] * offset[:, None, :]
    covars = mix(_covars(a), _covars(b)) + between
    values, axes = torch.linalg.eigh(covars)
    axes = torch.where((torch.linalg.det(axes) < 0)[:, None, None], -axes, axes)
    log_scales = 0.5 * values.clamp_min(1e-30).log()
    # Mass is kept as far as opacity can go.
    opacities = (total / log_scales.sum(dim=1).exp()).clamp(1e-6, 1 - 1e-6)
    opacities = torch.minimum(opacities, torch.maximum(a.opacities, b.opacities).double().clamp(1e-6, 1 - 1e-6))
    merged = Gaussians(
        means=mix(a.means, b.means),
        quats=quaternions.from_rotmat(axes),
        log_scales=log_scales,
        opacity_logits=opacities.logit(),
        sh0=mix(a.sh0, b.sh0),
        shN=mix(a.shN, b.shN),
    )
    return merged.to(dtype=a.dtype)


def _covars(gaussians: Gaussians) -> Tensor:  # [N, 3, 3] float64
    return from_quats_scales(gaussians.quats.double(), gaussians.scales.double())
