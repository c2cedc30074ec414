"""Covariances of 3D Gaussians from rotations and axis lengths."""

from __future__ import annotations

from torch import Tensor

from scene3d.ops import quaternions


def from_quats_scales(quats: Tensor, scales: Tensor) -> Tensor:
    """Covariances R S S^T R^T.

    Args:
        quats: wxyz, any non-zero length. [..., 4]
        scales: Standard deviations along the axes, scene units. [..., 3]

    Returns:
        Symmetric matrices. [..., 3, 3]

    Differentiable in quats and scales. Kerbl et al. 2023, equation 6.
    """
    half = quaternions.to_rotmat(quats) * scales[..., None, :]
    return half @ half.transpose(-1, -2)


def shortest_axes(quats: Tensor, scales: Tensor) -> Tensor:
    """Unit axis of the smallest scale of each Gaussian: its normal where it is flat. The sign is arbitrary.

    Args:
        quats: wxyz, any non-zero length. [N, 4]
        scales: Any increasing function of the standard deviations. [N, 3]

    Returns:
        [N, 3].

    Differentiable in quats.
    """
    rotmats = quaternions.to_rotmat(quats)
    column = scales.argmin(dim=-1)
    return rotmats.gather(-1, column[..., None, None].expand(*column.shape, 3, 1)).squeeze(-1)
