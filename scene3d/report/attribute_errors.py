"""How far the numbers of two scenes of the same Gaussians are apart, whatever their order and names of axes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.gaussians import Gaussians
from scene3d.io.sog_planes import visibility
from scene3d.ops import quaternions
from scene3d.ops.covariance import from_quats_scales
from scene3d.ops.knn import nearest


@dataclass(frozen=True)
class AttributeErrors:
    """Root mean square errors over Gaussians.

    Attributes:
        means: Scene units.
        log_scales: Standard deviations of a Gaussian in ascending order, so that axes may be named anew.
        shapes: Covariances, the largest variance of each Gaussian 1: rotation and scales together.
        opacities: 0 to 1.
        sh0: Coefficients of degree 0.
        shN: Of the higher degrees; 0 where there are none.
    """

    means: float
    log_scales: float
    shapes: float
    opacities: float
    sh0: float
    shN: float


def attribute_errors(truth: Gaussians, found: Gaussians, by_visibility: bool = False) -> AttributeErrors:
    """Compare each Gaussian of `found` with the one of `truth` that is nearest to it.

    Args:
        truth: Finite. [N]
        found: The same, decoded from some format, in any order. [M]
        by_visibility: Weigh each by opacity times area instead of all the same.
    """
    _, indices = nearest(truth.means, found.means, 1)
    truth = truth.select(indices[:, 0])
    weights = visibility(truth) if by_visibility else torch.ones(len(truth))

    def rms(a: Tensor, b: Tensor) -> float:
        squares = (a.double() - b.double()).flatten(1).square().sum(dim=1)
        return float((weights * squares).mean().sqrt()) if len(squares) else 0.0

    sorted_scales = truth.log_scales.sort(dim=1).values, found.log_scales.sort(dim=1).values
    has_same_degree = truth.shN.shape == found.shN.shape
    return AttributeErrors(
        rms(truth.means, found.means),
        rms(*sorted_scales),
        rms(unit_covars(truth), unit_covars(found)),
        rms(truth.opacities[:, None], found.opacities[:, None]),
        rms(truth.sh0, found.sh0),
        rms(truth.shN, found.shN) if has_same_degree else float("nan"),
    )


def unit_covars(gaussians: Gaussians) -> Tensor:
    """Covariances, the largest variance of each 1: what a description of axes means. [N, 6]"""
    relative = gaussians.log_scales.double() - gaussians.log_scales.double().amax(dim=1, keepdim=True)
    return from_quats_scales(quaternions.normalize(gaussians.quats.double()), relative.exp()).flatten(1)
