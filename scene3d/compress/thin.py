"""Thinning: the largest share of a scene's Gaussians and of their coefficients that can go within an error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from scene3d.compress.distill import Teacher, compensate
from scene3d.compress.goal import Goal
from scene3d.compress.importance import blend_weights, log_footprints
from scene3d.compress.judge import Judge
from scene3d.compress.prune import choose_sh_degrees, cut_sh, keep_heaviest, sh_errors
from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene

# Shares of the error that pruning and cut coefficients may take.
PRUNE_SHARE, CUT_SHARE = 0.15, 0.05
# The same of pruning, before opacities, colours and sizes of the others make up for it.
COMPENSATED_SHARE = 0.5
# Of all weight, what is given by size and opacity alone: held-out photos show some of what those that decide do not;
# more where views are made up.
PRIOR_SHARE, PRIOR_SHARE_MADE_UP = 0.02, 0.2
MAX_DECIDING_VIEWS = 8

PRUNE_SHARES = (0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05)
# Tolerances of cut coefficients are tried from here on, each a quarter of the one before.
COARSEST_TOLERANCE, N_TOLERANCES = 1.0, 9


def mean_error(judge: Judge, gaussians: Gaussians) -> float:
    """Mean squared error of the judge's views."""
    fidelity = judge.verdict(gaussians).fidelity_db
    return 0.0 if math.isinf(fidelity) else 10 ** (-fidelity / 10)


def prune_within(gaussians: Gaussians, weights: torch.Tensor, judge: Judge, max_error: float) -> torch.Tensor:
    """Which Gaussians to keep when the lightest go until the error is reached.

    Args:
        gaussians: The scene.
        weights: Blend weights by view. [C, N]
        judge: Knows the full scene.
        max_error: Mean squared error that pruning may take.

    Returns:
        [N] bool; those without any weight go in every case.
    """
    unseen = float((weights.sum(dim=0) <= 0).float().mean()) if len(gaussians) else 0.0
    for share in PRUNE_SHARES:
        keep = keep_heaviest(weights, max(share, unseen))
        if mean_error(judge, gaussians.select(keep)) <= max_error:
            return keep
    return torch.ones(len(gaussians), dtype=torch.bool)


def cut_sh_within(
    gaussians: Gaussians, cameras: Cameras, weights: torch.Tensor, judge: Judge, max_error: float
) -> Gaussians:
    """Set the higher coefficients of each Gaussian to zero where the views hardly show them.

    Args:
        gaussians: The scene.
        cameras: The C views of the weights.
        weights: Blend weights by view. [C, N]
        judge: Knows the full scene.
        max_error: Mean squared error that this may take, beside what `gaussians` already differ by.
    """
    if gaussians.sh_degree == 0:
        return gaussians
    errors = sh_errors(gaussians, cameras, weights)
    bound = mean_error(judge, gaussians) + max_error
    for i in range(N_TOLERANCES):
        thinner = cut_sh(gaussians, choose_sh_degrees(errors, COARSEST_TOLERANCE * 0.25**i))
        if mean_error(judge, thinner) <= bound:
            return thinner
    return gaussians


@dataclass(frozen=True)
class Thinned:
    """A scene without what its views do not miss, and what it is judged by on the way.

    Attributes:
        gaussians: What is left.
        weights: Blend weight of each, summed over the views. [N]
        decider: Judges by some of the views that decide.
        error: Mean squared error of the thinning itself.
    """

    gaussians: Gaussians
    weights: torch.Tensor
    decider: Judge
    error: float

    def error_with(self, name: str, value: torch.Tensor) -> float:
        """Mean squared error that another value of one stored tensor adds."""
        changed = Gaussians(**{**self.gaussians.params(), name: value.view_as(getattr(self.gaussians, name))})
        return max(mean_error(self.decider, changed) - self.error, 0.0)


def thin(scene: Scene, goal: Goal, judge: Judge, views: Cameras) -> Thinned:
    """Prune a scene and cut its harmonics, within shares of the error that the goal allows.

    Where there are steps of tuning, more goes, and opacities, colours and sizes of what is left make up for it.
    Where the views are made up, nothing goes: what they do not show may be seen from elsewhere.

    Args:
        scene: What to thin.
        goal: Its quality counts even where a size is asked for.
        judge: Its views decide nothing; tells how the scene is rendered, and whether views are made up.
        views: By which is decided.
    """
    full, bound = scene.splats(), 10 ** (-goal.fidelity_db / 10)
    step = max(1, math.ceil(len(views) / MAX_DECIDING_VIEWS))
    decider = Judge(scene, views.select(range(0, len(views), step)), worst_share=judge.worst_share)
    weights = blend_weights(full, views, judge.settings)
    if judge.is_made_up:
        total = weights.sum(dim=0)
        return Thinned(full, total + PRIOR_SHARE_MADE_UP * total.sum() * footprint_shares(full), decider, 0.0)
    weights = weights + PRIOR_SHARE * weights.sum(dim=1, keepdim=True) * footprint_shares(full)
    keep = prune_within(full, weights, decider, PRUNE_SHARE * bound)
    left = full.select(keep)
    if goal.tune_steps:
        fewer = prune_within(full, weights, decider, COMPENSATED_SHARE * bound)
        tuned = compensate(full.select(fewer), Teacher(full, views, judge.settings), goal.tune_steps)
        # Only where they do make up for it: what is lost here, codes would have to be finer for.
        if mean_error(decider, tuned) <= PRUNE_SHARE * bound:
            keep, left = fewer, tuned
    weights = weights[:, keep]
    gaussians = cut_sh_within(left, views, weights, decider, CUT_SHARE * bound)
    return Thinned(gaussians, weights.sum(dim=0), decider, mean_error(decider, gaussians))


def footprint_shares(gaussians: Gaussians) -> torch.Tensor:
    """Opacity times the area of the largest ellipse through the centre, as shares of their sum. [N]

    What views from anywhere may show of a Gaussian that those at hand do not.
    """
    logs = log_footprints(gaussians)
    # The largest is one: no sum overflows.
    areas = gaussians.opacities * (logs - (logs.max() if len(logs) else 0)).exp()
    return areas / areas.sum().clamp_min(1e-30)
