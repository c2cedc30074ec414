"""Pruning: leave out Gaussians, or the higher spherical harmonics of some, that the views hardly show."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import SH_COUNTS, Gaussians
from scene3d.ops import sh


def keep_heaviest(weights: Tensor, share: float) -> Tensor:
    """Which Gaussians stay when those with the smallest sums of blend weights go.

    Args:
        weights: Blend weights by view. [C, N]
        share: Of the Gaussians to leave out, 0 to 1; equal weights go in the order of rows.

    Returns:
        [N] bool.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected 0 to 1, got {share}")
    total = weights.sum(dim=0)
    n_out = int(share * len(total))
    keep = torch.ones(len(total), dtype=torch.bool)
    keep[total.argsort(stable=True)[:n_out]] = False
    return keep


def sh_errors(gaussians: Gaussians, cameras: Cameras, weights: Tensor) -> Tensor:
    """Squared colour error of cutting each Gaussian's spherical harmonics at each degree, over what the views see.

    Args:
        gaussians: The scene.
        cameras: The C views.
        weights: Blend weights by view. [C, N]

    Returns:
        For degree 0, 1, ... below the stored one: sum over views of weight times squared change of colour. [D, N]
    """
    degree = gaussians.sh_degree
    errors = torch.zeros(degree, len(gaussians))
    for i, center in enumerate(cameras.centers()):
        directions = torch.nn.functional.normalize(gaussians.means - center, dim=1)
        terms = sh.basis(directions, degree)[:, 1:, None] * gaussians.shN
        for cut in range(degree):
            change = terms[:, SH_COUNTS[cut] - 1 :].sum(dim=1)
            errors[cut] += weights[i] * change.square().sum(dim=1)
    return errors


def choose_sh_degrees(errors: Tensor, tolerance: float) -> Tensor:
    """The lowest degree of each Gaussian whose error stays within the tolerance per coefficient that is saved.

    Args:
        errors: Of sh_errors. [D, N]
        tolerance: Summed squared error that one coefficient (three numbers) is worth.

    Returns:
        0 to D. [N] int64
    """
    n_degrees = len(errors)
    degrees = torch.full((errors.shape[1],), n_degrees)
    for cut in range(n_degrees - 1, -1, -1):
        n_saved = SH_COUNTS[n_degrees] - SH_COUNTS[cut]
        degrees[errors[cut] <= tolerance * n_saved] = cut
    return degrees


def cut_sh(gaussians: Gaussians, degrees: Tensor) -> Gaussians:
    """Set the coefficients above each Gaussian's degree [N] to zero; the stored degree falls to the highest in use."""
    counts = torch.tensor(SH_COUNTS)[degrees] - 1
    n_used = int(counts.max()) if len(counts) else 0
    kept = torch.arange(n_used) < counts[:, None]
    shN = gaussians.shN[:, :n_used] * kept[:, :, None].to(gaussians.dtype)
    return Gaussians(**{**gaussians.params(), "shN": shN})
