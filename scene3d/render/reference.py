"""Dense torch rasterizer, the oracle of every other backend: each Gaussian meets each pixel, in any dtype.

What a Gaussian contributes to a pixel, the same in every backend:
    alpha = min(0.999, opacity exp(-d^T conic d / 2)), d = pixel centre - mean; below 1/255 it is skipped.
    Where there are masks, alpha is then multiplied by that of the Gaussian.
    Front to back by depth (equal depths by index): weight = alpha T, then T = T (1 - alpha), while T >= 1e-4 before.
Gaussians are dropped whole when a parameter is not finite, the quaternion is zero, the centre is nearer than `near` or
farther than `far`, the opacity is below 1/255, the screen covariance leaves the range of the dtype, or nothing of
them reaches the image. Dropped Gaussians get zero gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.ops import covariance, projection, sh
from scene3d.render.types import RasterSettings, RasterStats, Render

MAX_ALPHA = 0.999
MIN_ALPHA = 1.0 / 255.0
MIN_TRANSMITTANCE = 1e-4
# Pixel-Gaussian pairs handled at once: about 40 MB a tensor in float64.
_PAIRS_PER_CHUNK = 5_000_000

_GradientHook = Callable[[Tensor], None]


def why_unavailable() -> str | None:
    """Always None: torch is enough."""
    return None


def rasterize_arrays(
    gaussians: Gaussians, cameras: Cameras, settings: RasterSettings, masks: Tensor | None = None
) -> Render:
    """Render C views of one size. See `scene3d.render.rasterize.rasterize`."""
    return rasterize_dense(gaussians, cameras, settings, masks=masks)


def rasterize_dense(
    gaussians: Gaussians,
    cameras: Cameras,
    settings: RasterSettings,
    cutoff: bool = True,
    pairs_per_chunk: int = _PAIRS_PER_CHUNK,
    masks: Tensor | None = None,
) -> Render:
    """Render C views of one size.

    Args:
        gaussians: The scene.
        cameras: The views.
        settings: How to render.
        cutoff: False blends every Gaussian into every pixel, however faint, so that the image is smooth in all inputs.
        pairs_per_chunk: Bound on pixels times Gaussians handled at once; memory, not results, depends on it.
        masks: Factors on alpha, after faint ones were skipped; None = 1. [N]

    Differentiable in all tensors of gaussians and cameras, and in masks.
    """
    usable = gaussians.is_finite() & (gaussians.quats != 0).any(dim=1)
    radii = gaussians.means.new_zeros(len(cameras), len(gaussians))
    grad2d = torch.zeros_like(radii)
    centers = cameras.centers()
    images, medians, median_ids = [], [], []
    for c in range(len(cameras)):
        view = _View(cameras.viewmats[c], cameras.Ks[c], (cameras.width(c), cameras.height(c)), centers[c])
        rows, radii[c] = _visible(gaussians, usable, view, settings, cutoff)
        splats = _splats(gaussians.select(rows), view, settings, None if masks is None else masks[rows])
        on_gradient = _record_grad2d(splats.means2d, grad2d[c], rows, settings.absgrad)
        images.append(_blend(splats, view, on_gradient, cutoff, pairs_per_chunk))
        at = images[-1][2]
        medians.append(torch.cat([splats.depths, splats.depths.new_zeros(1)])[at][..., None])
        median_ids.append(torch.cat([rows, rows.new_full((1,), -1)])[at].int())
    features, alpha = (torch.stack([image[k] for image in images]) for k in (0, 1))
    stats = RasterStats(radii, grad2d, int((~usable).sum()))
    return _to_render(features, alpha, (torch.stack(medians), torch.stack(median_ids)), settings, stats)


@dataclass(frozen=True)
class _View:
    viewmat: Tensor  # [4, 4]
    K: Tensor  # [3, 3]
    size: tuple[int, int]
    center: Tensor  # [3]


@dataclass(frozen=True)
class _Splats:
    """Visible Gaussians of one view, front to back."""

    means2d: Tensor  # [n, 2]
    conics: Tensor  # [n, 3]
    opacities: Tensor  # [n]
    depths: Tensor  # [n]
    features: Tensor  # rgb, depth, normal: [n, 7]
    masks: Tensor | None  # [n]


def _project(gaussians: Gaussians, view: _View, settings: RasterSettings) -> tuple[projection.Projected, Tensor]:
    covars = covariance.from_quats_scales(gaussians.quats, gaussians.scales)
    projected = projection.project(gaussians.means, covars, view.viewmat, view.K, view.size, settings.eps2d)
    opacities = gaussians.opacities * projected.compensations if settings.antialiased else gaussians.opacities
    return projected, opacities


@torch.no_grad()
def _visible(
    gaussians: Gaussians, usable: Tensor, view: _View, settings: RasterSettings, cutoff: bool
) -> tuple[Tensor, Tensor]:
    """Indices of the Gaussians to blend, front to back [n], and their half extents [N].

    Run apart from the differentiable pass, which then sees only Gaussians whose numbers are sound: a NaN that is
    masked afterwards would still poison the gradients.
    """
    depths = gaussians.means @ view.viewmat[2, :3] + view.viewmat[2, 3]
    rows = torch.nonzero(usable & (depths >= settings.near_z) & (depths <= settings.far) & (depths > 0))[:, 0]
    projected, opacities = _project(gaussians.select(rows), view, settings)
    xx, yy = projected.covars2d[:, 0], projected.covars2d[:, 2]
    is_sound = projected.conics.isfinite().all(dim=1) & projected.means2d.isfinite().all(dim=1)
    keep = is_sound & (projected.conics[:, 0] > 0) & (projected.conics[:, 2] > 0)
    # alpha = 1/255 on the ellipse d^T conic d = 2 ln(255 opacity), whose bounding box has half sides sqrt(that * xx).
    bound = 2 * (opacities / MIN_ALPHA).clamp_min(1).log()
    half_sides = (bound[:, None] * torch.stack([xx, yy], dim=1)).sqrt()
    if cutoff:
        size = torch.tensor(view.size, dtype=depths.dtype, device=depths.device)
        reaches = (projected.means2d + half_sides > 0) & (projected.means2d - half_sides < size)
        keep &= (opacities >= MIN_ALPHA) & reaches.all(dim=1)
    radii = torch.zeros_like(depths)
    radii[rows[keep]] = half_sides[keep].amax(dim=1)
    rows = rows[keep]
    return rows[projected.depths[keep].argsort(stable=True)], radii


def _splats(gaussians: Gaussians, view: _View, settings: RasterSettings, masks: Tensor | None) -> _Splats:
    projected, opacities = _project(gaussians, view, settings)
    degree = gaussians.sh_degree if settings.sh_degree is None else settings.sh_degree
    offsets = gaussians.means - view.center
    dirs = offsets / offsets.norm(dim=1, keepdim=True)
    colors = sh.evaluate(gaussians.sh0, gaussians.shN, dirs, degree)
    axes = covariance.shortest_axes(gaussians.quats, gaussians.log_scales)
    facing = (axes * offsets).sum(dim=1, keepdim=True) > 0
    normals = torch.where(facing, -axes, axes)
    features = torch.cat([colors, projected.depths[:, None], normals], dim=1)
    return _Splats(projected.means2d, projected.conics, opacities, projected.depths, features, masks)


def _record_grad2d(means2d: Tensor, grad2d: Tensor, rows: Tensor, absgrad: bool) -> _GradientHook | None:
    """Make backward write the length of the screen gradient into grad2d [N].

    Returns:
        With absgrad, what blending is to call with the gradient of pixel centre - mean, [P, n, 2].
    """
    if not means2d.requires_grad:
        return None
    absolute = torch.zeros_like(means2d, requires_grad=False)

    def write(v_means2d: Tensor | None) -> None:
        if v_means2d is None:  # The loss does not depend on these images.
            return
        grad2d[rows] = (absolute if absgrad else v_means2d).norm(dim=1)
        absolute.zero_()

    def add(v_offsets: Tensor) -> None:
        absolute.add_(v_offsets.abs().sum(dim=0))

    means2d.register_hook(write)
    return add if absgrad else None


def _blend(
    splats: _Splats, view: _View, on_gradient: _GradientHook | None, cutoff: bool, pairs_per_chunk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Blend one image: sums of weighted features [H, W, 7], alpha [H, W, 1], place of the median one [H, W]."""
    width, height = view.size
    rows_per_chunk = max(1, pairs_per_chunk // max(1, width * len(splats.depths)))
    is_bounded = rows_per_chunk < height and torch.is_grad_enabled()
    parts = []
    for top in range(0, height, rows_per_chunk):
        pixels = _pixel_centers(top, min(top + rows_per_chunk, height), width, splats.means2d)
        if is_bounded:  # Keep no chunk in memory: compute it again on the way back.
            part = checkpoint(
                _blend_pixels, splats, pixels, on_gradient, cutoff, use_reentrant=False, preserve_rng_state=False
            )
        else:
            part = _blend_pixels(splats, pixels, on_gradient, cutoff)
        parts.append(part)
    features, alpha, median = (torch.cat([part[k] for part in parts]) for k in range(3))
    return features.view(height, width, -1), alpha.view(height, width, 1), median.view(height, width)


def _blend_pixels(
    splats: _Splats, pixels: Tensor, on_gradient: _GradientHook | None, cutoff: bool
) -> tuple[Tensor, Tensor, Tensor]:
    offsets = pixels[:, None, :] - splats.means2d  # [P, n, 2]
    if on_gradient is not None and offsets.requires_grad:
        offsets.register_hook(on_gradient)
    dx, dy = offsets.unbind(dim=2)
    xx, xy, yy = splats.conics.unbind(dim=1)
    distances = xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy
    alphas = (splats.opacities * torch.exp(-0.5 * distances)).clamp(max=MAX_ALPHA)
    if cutoff:
        alphas = torch.where(alphas >= MIN_ALPHA, alphas, torch.zeros_like(alphas))
    if splats.masks is not None:
        alphas = splats.masks * alphas
    if cutoff:
        is_blended = _transmittances(alphas.detach())[:, :-1] >= MIN_TRANSMITTANCE
        alphas = torch.where(is_blended, alphas, torch.zeros_like(alphas))
    transmittances = _transmittances(alphas)
    weights = alphas * transmittances[:, :-1]
    # Transmittance falls, so the count of values still at one half or above is the index of the median Gaussian.
    median_index = (transmittances[:, 1:] >= 0.5).sum(dim=1)
    return weights @ splats.features, weights.sum(dim=1, keepdim=True), median_index


def _transmittances(alphas: Tensor) -> Tensor:  # [P, n] -> [P, n+1]: before the first, ..., after the last
    return torch.cat([alphas.new_ones(len(alphas), 1), (1 - alphas).cumprod(dim=1)], dim=1)


def _pixel_centers(top: int, bottom: int, width: int, like: Tensor) -> Tensor:  # [(bottom - top) * width, 2]
    ys = torch.arange(top, bottom, dtype=like.dtype, device=like.device) + 0.5
    xs = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=2).view(-1, 2)


def _to_render(
    features: Tensor, alpha: Tensor, medians: tuple[Tensor, Tensor], settings: RasterSettings, stats: RasterStats
) -> Render:
    background = torch.tensor(settings.background, dtype=alpha.dtype, device=alpha.device)
    rgb = features[..., :3] + (1 - alpha) * background
    depth = normals = None
    if settings.with_depth:
        is_hit = alpha > 0
        depth = torch.where(is_hit, features[..., 3:4] / torch.where(is_hit, alpha, torch.ones_like(alpha)), 0.0)
    if settings.with_normals:
        normals = features[..., 4:7]
    median, median_ids = medians if settings.with_depth else (None, None)
    return Render(rgb, alpha, depth, median, normals, stats, median_ids)
