"""Projection of 3D Gaussians to the image by linearising the camera at each centre (EWA, Zwicker et al. 2002).

Symmetric 2x2 matrices are kept as xx, xy, yy. Pixel (i, j) has its centre at (j+0.5, i+0.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The Jacobian grows without bound beside the camera: it is taken at a point no farther out than the image plus
# 0.3 of its half width, as every 3DGS renderer does. The factor is part of how trained scenes look.
JACOBIAN_MARGIN = 0.3


@dataclass(frozen=True)
class Projected:
    """N Gaussians in one image.

    Attributes:
        means2d: Centres, pixels. [N, 2]
        covars2d: Covariances with eps2d added, square pixels, xx xy yy. [N, 3]
        conics: Inverses of covars2d. [N, 3]
        depths: z of the centres in the camera. [N]
        compensations: sqrt(det before / det after eps2d was added), 0 to 1. [N]
    """

    means2d: Tensor
    covars2d: Tensor
    conics: Tensor
    depths: Tensor
    compensations: Tensor


def project(
    means: Tensor, covars: Tensor, viewmat: Tensor, K: Tensor, size: tuple[int, int], eps2d: float = 0.3
) -> Projected:
    """Project Gaussians into one image. Centres must lie in front of the camera (z > 0).

    Args:
        means: Centres in the world. [N, 3]
        covars: Covariances in the world. [N, 3, 3]
        viewmat: cam_from_world. [4, 4]
        K: Intrinsics, pixels; skew is ignored. [3, 3]
        size: Width and height, pixels.
        eps2d: Added to the diagonal of each screen covariance, square pixels.

    Differentiable in means, covars, viewmat and K. Zwicker et al. 2002, section 6; compensations: Yu et al. 2024.
    """
    rotation = viewmat[:3, :3]
    means_in_cam = means @ rotation.T + viewmat[:3, 3]
    focal, center = torch.stack([K[0, 0], K[1, 1]]), torch.stack([K[0, 2], K[1, 2]])
    depths = means_in_cam[:, 2]
    means2d = focal * means_in_cam[:, :2] / depths[:, None] + center

    jacobians = _jacobians(means_in_cam, focal, center, size) @ rotation
    covars2d = jacobians @ covars @ jacobians.transpose(1, 2)
    xx, xy, yy = covars2d[:, 0, 0], covars2d[:, 0, 1], covars2d[:, 1, 1]
    det_before = xx * yy - xy * xy
    xx, yy = xx + eps2d, yy + eps2d
    det = xx * yy - xy * xy
    conics = torch.stack([yy, -xy, xx], dim=1) / det[:, None]
    compensations = _safe_sqrt(det_before / det)
    return Projected(means2d, torch.stack([xx, xy, yy], dim=1), conics, depths, compensations)


def _jacobians(points: Tensor, focal: Tensor, center: Tensor, size: tuple[int, int]) -> Tensor:  # [N, 2, 3]
    extent = torch.tensor(size, dtype=points.dtype, device=points.device)
    margin = JACOBIAN_MARGIN * 0.5 * extent / focal
    lowest, highest = -(center / focal + margin), (extent - center) / focal + margin
    z = points[:, 2:]
    slopes = torch.minimum(torch.maximum(points[:, :2] / z, lowest), highest)
    # u = fx x/z + cx: du/dx = fx/z, du/dz = -fx (x/z)/z.
    return torch.cat([torch.diag_embed(focal / z), (-focal * slopes / z)[:, :, None]], dim=2)


def _safe_sqrt(x: Tensor) -> Tensor:
    is_positive = x > 0
    return torch.where(is_positive, torch.where(is_positive, x, torch.ones_like(x)).sqrt(), torch.zeros_like(x))
