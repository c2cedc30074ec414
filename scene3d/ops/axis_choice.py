"""One Gaussian, 24 descriptions: its axes can be named in any order and direction, the scales along with them.

A coarse quantizer of rotations rounds each description differently. Taking the one that comes out nearest to the true
shape costs no bit and changes nothing but the error.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from scene3d.ops import quaternions


def symmetries() -> tuple[Tensor, Tensor]:
    """The rotations of a cube.

    Returns:
        Quaternions wxyz [24, 4] and, for each, which old axis the new ones are [24, 3] int64. A Gaussian (q, scales) is
        the same as (q g, scales[order]).
    """
    matrices, orders = [], []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = torch.zeros(3, 3, dtype=torch.float64)
            matrix[list(order), [0, 1, 2]] = torch.tensor(signs, dtype=torch.float64)
            if torch.linalg.det(matrix) > 0:
                matrices.append(matrix)
                orders.append(order)
    return quaternions.from_rotmat(torch.stack(matrices)), torch.tensor(orders)


def choose(
    quats: Tensor, log_scales: Tensor, quantize: Callable[[Tensor], Tensor], keep_below: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Describe each Gaussian so that its shape suffers least from `quantize`.

    Args:
        quats: wxyz, any non-zero length. [N, 4]
        log_scales: [N, 3]
        quantize: What becomes of unit quaternions when they are stored. [N, 4] -> [N, 4]
        keep_below: A new description must have less than this share of the squared error of the present one. Below 1
            more Gaussians keep theirs: trained ones resemble their neighbours, which entropy coders like.

    Returns:
        Unit quaternions [N, 4] and log scales [N, 3] of the same Gaussians.
    """
    unit = quaternions.normalize(quats)
    best_quats, best_scales = unit, log_scales
    least = keep_below * _shape_error(unit, quantize(unit), _squares(log_scales))
    turns, orders = symmetries()
    squares = _squares(log_scales)
    for turn, order in zip(turns.to(unit.dtype), orders, strict=True):
        here = quaternions.multiply(unit, turn.expand_as(unit))
        error = _shape_error(here, quantize(here), squares[:, order])
        is_better = error < least
        least = torch.where(is_better, error, least)
        best_quats = torch.where(is_better[:, None], here, best_quats)
        best_scales = torch.where(is_better[:, None], log_scales[:, order], best_scales)
    return best_quats, best_scales


def _squares(log_scales: Tensor) -> Tensor:  # [N, 3]
    # Only ratios matter; the largest becomes 1, which keeps the squares of the smallest in range.
    return (2 * (log_scales - log_scales.amax(dim=1, keepdim=True))).exp()


def _shape_error(true: Tensor, stored: Tensor, squares: Tensor) -> Tensor:
    """Squared change of the covariance, [N].

    To first order a turn by the small vector θ about the axes changes its entry ij by θ_k (s_i² - s_j²).
    """
    conjugate = true * torch.tensor([1.0, -1.0, -1.0, -1.0], dtype=true.dtype)
    theta = quaternions.multiply(conjugate, stored)[:, 1:]
    contrasts = squares[:, [1, 2, 0]] - squares[:, [2, 0, 1]]
    return (theta * contrasts).square().sum(dim=1)
