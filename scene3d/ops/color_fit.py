"""Colour correction of a render before it is measured, where a photo's exposure is not the scene's fault."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.checks import Dims


def fit_colors(rgb: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Apply the affine colour transform that brings an image nearest to another in the least-squares sense.

    Args:
        rgb: Image to correct. [H, W, 3]
        target: Image to come near to. [H, W, 3]
        weight: Of each pixel, bool or number; None counts all alike. [H, W]

    Returns:
        [H, W, 3], not clamped.
    """
    dims = Dims()
    dims.check("rgb", rgb, "H W 3")
    dims.check("target", target, "H W 3")
    colors = torch.cat([rgb, torch.ones_like(rgb[..., :1])], dim=2).reshape(-1, 4).double()
    truth = target.reshape(-1, 3).double()
    share = torch.ones_like(truth[:, :1]) if weight is None else weight.reshape(-1, 1).double()
    # A whiff of the identity keeps images of one colour solvable.
    prior = 1e-6 * torch.eye(4, dtype=torch.float64) * len(colors)
    gram = colors.T @ (colors * share) + prior
    moments = colors.T @ (truth * share) + prior[:, :3]
    return (colors @ torch.linalg.solve(gram, moments)).to(rgb.dtype).reshape(rgb.shape)
