"""Floaters: Gaussians that stand far from all others, which photos did not pin down."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.gaussians import Gaussians
from scene3d.ops.knn import mean_neighbor_distance

N_NEIGHBORS = 16
# A normal distribution's standard deviation per median absolute deviation.
DEVIATION_OF_MAD = 1.4826


def is_floater(gaussians: Gaussians, factor: float = 5.0) -> Tensor:
    """Which Gaussians are farther from their neighbours than usual in this scene.

    The logarithm of the distance to the 16 nearest is compared with its median; deviations are counted in robust
    standard deviations, so that the floaters do not hide themselves by widening the scale.

    Args:
        gaussians: Finite.
        factor: How many deviations above the median still pass.

    Returns:
        [N] bool.
    """
    if not factor > 0:
        raise ValueError(f"filter-floaters: expected a positive factor, got {factor:g}")
    if len(gaussians) < 3:
        return torch.zeros(len(gaussians), dtype=torch.bool)
    distances = mean_neighbor_distance(gaussians.means, N_NEIGHBORS)
    # Points in one place have no logarithm of their distance.
    logs = distances.clamp_min(torch.finfo(torch.float32).tiny).log()
    middle = logs.median()
    deviation = DEVIATION_OF_MAD * (logs - middle).abs().median()
    return logs > middle + factor * deviation.clamp_min(1e-3)
