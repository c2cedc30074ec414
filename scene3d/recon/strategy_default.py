"""Adaptive density control: duplicate or split where screen gradients are high, remove the transparent and the huge.

Kerbl et al. 2023, section 5; absolute gradients after Ye et al. 2024 (AbsGS).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scene3d.ops import quaternions
from scene3d.recon.densify import Clock, GradStats, count_limit
from scene3d.recon.optim import AdamState
from scene3d.recon.settings import StrategySettings

SPLIT_SHRINK = math.log(1.6)  # Two halves of a Gaussian, each this much smaller.
GROW_GRAD2D = 0.0002
GROW_ABSGRAD2D = 0.0008


def refine(
    state: AdamState,
    stats: GradStats,
    settings: StrategySettings,
    clock: Clock,
    extent: float,
    n_start: int,
    generator: torch.Generator,
) -> GradStats:
    """Grow, then prune. Returns empty statistics for the new count."""
    room = count_limit(settings, clock.fraction, n_start) - len(state)
    chosen = choose_growing(stats, settings, room)
    n_before = len(state)
    _grow(state, chosen, settings.grow_scale3d * extent, generator)
    after_reset = settings.reset_every > 0 and clock.fraction > settings.reset_every
    _prune(state, settings, extent, after_reset, n_before)
    return GradStats.zeros(len(state), state.device)


def choose_growing(stats: GradStats, settings: StrategySettings, room: int) -> Tensor:
    """Rows that grow: gradient above the threshold, at most `room`, the highest first. Sorted [M] long."""
    threshold = settings.grow_grad2d
    if threshold is None:
        threshold = GROW_ABSGRAD2D if settings.absgrad else GROW_GRAD2D
    grads = stats.mean()
    rows = (grads > threshold).nonzero()[:, 0]
    if len(rows) > room:
        order = grads[rows].argsort(descending=True, stable=True)
        rows = rows[order[: max(room, 0)]].sort().values
    return rows


def reset_opacities(state: AdamState, settings: StrategySettings) -> None:
    """Lower all opacities to twice the pruning threshold: what is needed grows back, floaters do not."""
    ceiling = 2 * settings.prune_opacity
    state.values["opacity_logits"].detach().clamp_(max=math.log(ceiling / (1 - ceiling)))
    state.forget(torch.arange(len(state)), ("opacity_logits",))


def _grow(state: AdamState, rows: Tensor, split_above: float, generator: torch.Generator) -> None:  # rows [M]
    if len(rows) == 0:
        return
    n = len(state)
    log_scales = state.values["log_scales"].detach()[rows]
    is_split = log_scales.max(dim=1).values > math.log(max(split_above, 1e-30))
    split_rows = rows[is_split]
    index = torch.cat([torch.arange(n, device=rows.device), rows])
    is_fresh = torch.zeros(len(index), dtype=torch.bool, device=rows.device)
    is_fresh[n:] = True
    # A split replaces the old Gaussian by one of its halves, so the old row starts afresh too.
    is_fresh[split_rows] = True
    state.rearrange(index, is_fresh)
    halves = torch.cat([split_rows, n + is_split.nonzero()[:, 0]])
    _move_inside(state, halves, generator)


def _move_inside(state: AdamState, rows: Tensor, generator: torch.Generator) -> None:  # rows [M]
    means, log_scales = state.values["means"].detach(), state.values["log_scales"].detach()
    scales = log_scales[rows].exp()
    rotmats = quaternions.to_rotmat(state.values["quats"].detach()[rows])
    steps = torch.randn(len(rows), 3, generator=generator).to(scales.device) * scales
    means[rows] += (rotmats * steps[:, None, :]).sum(dim=2)
    log_scales[rows] -= SPLIT_SHRINK


def _prune(state: AdamState, settings: StrategySettings, extent: float, after_reset: bool, n_old: int) -> None:
    floor = settings.prune_opacity
    keep = state.values["opacity_logits"].detach() >= math.log(floor / (1 - floor))
    if after_reset:
        # What is far may be as large as it is far: sky would be removed else.
        means = state.values["means"].detach()
        reach = (means - means.median(dim=0).values).norm(dim=1).clamp_min(extent)
        keep &= state.values["log_scales"].detach().max(dim=1).values <= (settings.prune_scale3d * reach).log()
    if bool(keep.all()) or not bool(keep.any()):
        return
    index = keep.nonzero()[:, 0]
    state.rearrange(index, torch.zeros(len(index), dtype=torch.bool))
