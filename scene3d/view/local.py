"""Gaussians that the browser draws itself: smooth over slow networks where it has a GPU, at the price of what it lacks.

viser's renderer knows one colour a Gaussian (degree 0 here), no antialiasing and no modes. Everything travels once, 32
bytes each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from scene3d.core.gaussians import Gaussians
from scene3d.ops import sh
from scene3d.ops.covariance import from_quats_scales

# 16 MB to send; above, drawing here and sending pictures is sooner there.
MAX_LOCAL = 500_000


@dataclass(frozen=True)
class LocalSplats:
    """What viser takes of N Gaussians.

    Attributes:
        centers: [N, 3]
        covariances: [N, 3, 3]
        rgbs: sRGB, 0 to 1. [N, 3]
        opacities: [N, 1]
    """

    centers: np.ndarray
    covariances: np.ndarray
    rgbs: np.ndarray
    opacities: np.ndarray


@torch.no_grad()
def local_splats(gaussians: Gaussians) -> LocalSplats:
    """Prepare Gaussians; those that are not finite are left out.

    Raises:
        ValueError: there are more than MAX_LOCAL.
    """
    if len(gaussians) > MAX_LOCAL:
        problem = f"expected at most {MAX_LOCAL:,} Gaussians to draw in the browser, got {len(gaussians):,}"
        raise ValueError(f"{problem}. Crop, raise the least opacity, or let them be drawn here")
    sound = gaussians.select(gaussians.is_finite() & (gaussians.quats.norm(dim=1) > 0))
    return LocalSplats(
        centers=sound.means.numpy(),
        covariances=from_quats_scales(sound.quats, sound.scales).numpy(),
        rgbs=sh.to_rgb(sound.sh0[:, 0]).clamp(0, 1).numpy(),
        opacities=sound.opacities[:, None].numpy(),
    )
