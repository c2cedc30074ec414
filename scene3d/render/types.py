"""What every backend takes and gives: settings in, Render out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Of scenes a few units large.
USUAL_NEAR = 0.01


@dataclass(frozen=True)
class RasterSettings:
    """How Gaussians become pixels; the same for every backend.

    Attributes:
        sh_degree: Degree evaluated; None takes all that is stored.
        near: Gaussians whose centre is nearer are dropped, scene units. None = what suits the scene, see render.near.
        far: Gaussians whose centre is farther are dropped, scene units.
        eps2d: Added to the diagonal of the screen covariance, square pixels: no Gaussian is smaller than a pixel.
        antialiased: Scale opacity by sqrt(det Σ / det (Σ + eps2d)), Mip-Splatting (Yu et al. 2024).
        background: Colour behind the scene, sRGB.
        with_depth: Also render expected and median depth.
        with_normals: Also render normals (shortest axis, facing the camera, in the world).
        absgrad: Accumulate per-pixel absolute screen gradients in the statistics (AbsGS).
    """

    sh_degree: int | None = None
    near: float | None = None
    far: float = 1e10
    eps2d: float = 0.3
    antialiased: bool = False
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    with_depth: bool = False
    with_normals: bool = False
    absgrad: bool = False

    @property
    def near_z(self) -> float:
        """`near`, or that of scenes of usual size where it is open."""
        return USUAL_NEAR if self.near is None else self.near


@dataclass(frozen=True)
class RasterStats:
    """Per-Gaussian facts of one call, for densification and pruning. No gradients.

    Attributes:
        radii: Half extent of the visible ellipse, pixels; 0 = not visible. [C, N]
        grad2d: |dL/d means2d| in pixels, or its absolute variant; zeros until backward has run. [C, N]
        n_culled_nonfinite: Gaussians dropped because a number was not finite.
    """

    radii: Tensor
    grad2d: Tensor
    n_culled_nonfinite: int = 0


@dataclass(frozen=True)
class Render:
    """Images of C views of one size.

    Attributes:
        rgb: Colour over the background, unclamped. [C, H, W, 3]
        alpha: Accumulated opacity. [C, H, W, 1]
        depth: Expected z in the camera, Σ w z / Σ w, 0 where alpha is 0; None unless asked for. [C, H, W, 1]
        median_depth: z of the Gaussian at which transmittance falls below one half, 0 if it does not. [C, H, W, 1]
        normals: Σ w n, world. [C, H, W, 3]
        stats: Per-Gaussian statistics.
        median_ids: Number of the Gaussian whose depth median_depth is, -1 = none; None where the backend does not say.
            [C, H, W] int32
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor | None
    median_depth: Tensor | None
    normals: Tensor | None
    stats: RasterStats
    median_ids: Tensor | None = None


def render_of_images(
    images: tuple[Tensor, ...], settings: RasterSettings, stats: RasterStats, median_ids: Tensor | None = None
) -> Render:
    """A Render of what native code gives: colour, alpha, Σ w z, median depth and Σ w n; the last three may be empty."""
    rgb, alpha, weighted_depth, median, normals = images
    depth = None
    if settings.with_depth:
        depth = torch.where(alpha > 0, weighted_depth / alpha.clamp_min(torch.finfo(alpha.dtype).tiny), 0.0)
    return Render(
        rgb,
        alpha,
        depth,
        median if settings.with_depth else None,
        normals if settings.with_normals else None,
        stats,
        median_ids if settings.with_depth else None,
    )


def image_widths(with_extra: bool) -> tuple[int, ...]:
    """Numbers a pixel of those images."""
    return (3, 1, 1, 1, 3) if with_extra else (3, 1, 0, 0, 0)
