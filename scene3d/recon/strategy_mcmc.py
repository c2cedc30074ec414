"""Markov chain Monte Carlo: dead Gaussians move onto living ones, new ones are drawn from them, noise explores.

Kheradmand et al. 2024, "3D Gaussian Splatting as Markov Chain Monte Carlo".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scene3d.ops.mcmc_noise import mcmc_noise_
from scene3d.recon.densify import Clock, count_limit, sample_rows
from scene3d.recon.optim import AdamState
from scene3d.recon.settings import StrategySettings

MAX_COPIES = 51  # Of one Gaussian in one refinement; more would only be thinner.
GROWTH = 1.05  # Per refinement, at least.


def refine(
    state: AdamState, settings: StrategySettings, clock: Clock, n_start: int, generator: torch.Generator
) -> None:
    """Relocate dead Gaussians, then add new ones up to the limit."""
    opacities = state.values["opacity_logits"].detach().sigmoid()
    is_dead = opacities <= settings.prune_opacity
    dead, alive = is_dead.nonzero()[:, 0], (~is_dead).nonzero()[:, 0]
    if len(alive) == 0:
        return
    if len(dead):
        sources = alive[sample_rows(opacities[alive], len(dead), generator)]
        _copy_onto(state, sources, dead, settings.prune_opacity)
    n_target = min(settings.cap_max, max(int(GROWTH * len(state)), count_limit(settings, clock.fraction, n_start)))
    n_new = n_target - len(state)
    if n_new <= 0:
        return
    weights = state.values["opacity_logits"].detach().sigmoid()
    _append(state, sample_rows(weights, n_new, generator), settings.prune_opacity)


def explore(state: AdamState, settings: StrategySettings, lr_means: float, extent: float, seed: int, step: int) -> None:
    """Move faint Gaussians at random within their covariance, as far as `noise_every` single steps would.

    means += Σ/extent² · randn · gate(opacity) · lr_means · noise · sqrt(noise_every), units of the scene.
    """
    strength = lr_means * settings.noise * math.sqrt(settings.noise_every) / extent**2
    names = ("means", "quats", "log_scales", "opacity_logits")
    means, quats, log_scales, opacity_logits = (state.values[name] for name in names)
    mcmc_noise_(means, quats, log_scales, opacity_logits, strength, seed, step)


def shared_opacity_and_scale(opacities: Tensor, n_copies: Tensor) -> tuple[Tensor, Tensor]:
    """Opacity of each of n stacked copies, and the factor on their scales, that keep the picture.

    o' = 1 - (1 - o)^(1/n);  factor = o / Σ_j C(n, j) (-1)^(j-1) o'^j / sqrt(j), j = 1 to n (equation 9).

    Args:
        opacities: [M]
        n_copies: 1 to MAX_COPIES. [M]
    """
    o, n = opacities.double(), n_copies.double()
    shared = 1 - (1 - o) ** (1 / n)
    j = torch.arange(1, MAX_COPIES + 1, dtype=torch.float64, device=o.device)
    binomials = _binomials().to(o.device)[n_copies.long()]
    signs = 1 - 2 * ((j - 1) % 2)
    total = (binomials * signs * shared[:, None] ** j / j.sqrt()).sum(dim=1)
    return shared.to(opacities.dtype), (o / total).to(opacities.dtype)


def _binomials() -> Tensor:  # [MAX_COPIES + 1, MAX_COPIES], C(n, j) at [n, j - 1]
    rows = [[float(math.comb(n, j)) for j in range(1, MAX_COPIES + 1)] for n in range(MAX_COPIES + 1)]
    return torch.tensor(rows, dtype=torch.float64)


def _thin(state: AdamState, sources: Tensor, floor: float) -> Tensor:
    """Lower opacity and size of drawn rows so that all copies together look as before. Returns the distinct rows."""
    rows, counts = torch.unique(sources, return_counts=True)
    logits, log_scales = state.values["opacity_logits"].detach(), state.values["log_scales"].detach()
    opacities, factors = shared_opacity_and_scale(logits[rows].sigmoid(), (counts + 1).clamp(max=MAX_COPIES))
    logits[rows] = torch.logit(opacities.clamp(floor, 1 - 1e-6))
    log_scales[rows] += factors.log()[:, None]
    state.forget(rows)
    return rows


def _copy_onto(state: AdamState, sources: Tensor, targets: Tensor, floor: float) -> None:
    _thin(state, sources, floor)
    for value in state.values.values():
        value.detach()[targets] = value.detach()[sources]
    state.forget(targets)


def _append(state: AdamState, sources: Tensor, floor: float) -> None:
    n = len(state)
    _thin(state, sources, floor)
    index = torch.cat([torch.arange(n, device=sources.device), sources])
    is_fresh = torch.zeros(len(index), dtype=torch.bool, device=sources.device)
    is_fresh[n:] = True
    state.rearrange(index, is_fresh)
