"""Gaussians to the images of a SOG file: order, codebooks, palette, rounding. How good a SOG is, is decided here.

Values are rounded, not cut off; the codebooks of scales and colours are the optimal ones for the values of this scene,
weighted by how much a Gaussian shows; the palette of the higher spherical harmonics comes from weighted k-means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scene3d.core.gaussians import Gaussians
from scene3d.io.image_planes import plane_size, to_plane
from scene3d.ops import axis_choice, morton, smallest_three
from scene3d.ops.kmeans import kmeans, nearest_entry, optimal_codebook_1d

ENTRIES = 256
# Palette entries in a row of shN_centroids.
PALETTE_COLUMNS = 64
# Labels have 16 bits.
MAX_PALETTE = 65_536
KMEANS_ITERATIONS = 10
# An error of the logarithm of a thin axis changes the covariance by the square of its share of the largest.
AXIS_POWER = 2.0
# How much farther off scales and colours may be on average, all alike, than the best codebook would be, for the sake
# of those that are seen. Files of splat-transform, whose codebooks come from plain k-means, are farther off.
SCALE_SLACK, COLOR_SLACK = 1.07, 1.04
MAX_LOG_WEIGHT = 8.0
# Clusters of harmonics mind all Gaussians alike as much as those that are seen.
PALETTE_FLOOR = 1.0
# Smaller scenes have entries enough for all: there k-means comes nearer to the best codebook than that.
SLACK_ROWS = 4096
MIN_FLOOR, MAX_FLOOR, FLOOR_STEPS, FLOOR_ROWS = 0.05, 50.0, 5, 32_768


@dataclass(frozen=True)
class SogPlanes:
    """What a SOG file holds, before images are coded.

    Attributes:
        count: Gaussians.
        mins: Bounds of the signed logarithm of positions.
        maxs: The same, upper.
        scale_codebook: 256 log scales.
        color_codebook: 256 degree-0 coefficients.
        sh_degree: Highest degree stored.
        palette_count: Entries of the palette; 0 without spherical harmonics.
        palette_codebook: 256 coefficients.
        images: RGBA by file name. [height, width, 4] uint8
    """

    count: int
    mins: list[float]
    maxs: list[float]
    scale_codebook: list[float]
    color_codebook: list[float]
    sh_degree: int
    palette_count: int
    palette_codebook: list[float]
    images: dict[str, np.ndarray]


def sog_planes(gaussians: Gaussians) -> SogPlanes:
    """Quantize finite Gaussians of float32, in Morton order."""
    ordered = gaussians.select(morton.order(gaussians.means))
    size = plane_size(len(ordered))
    weights = visibility(ordered)
    means, mins, maxs = _means_16bit(ordered.means)
    quats, log_scales = _named_axes(ordered)
    scale_book = _codebook(log_scales, _axis_weights(log_scales, weights), SCALE_SLACK)
    color_book = _codebook(ordered.sh0[:, 0], weights[:, None].expand(-1, 3), COLOR_SLACK)
    opacities = (ordered.opacities * 255).round()
    rows = {
        "means_l": means & 255,
        "means_u": means >> 8,
        "quats": _quats_8bit(quats),
        "scales": nearest_entry(log_scales, scale_book),
        "sh0": torch.cat([nearest_entry(ordered.sh0[:, 0], color_book), opacities[:, None].long()], dim=1),
    }
    images = {f"{name}.webp": to_plane(values.numpy().astype(np.uint8), size) for name, values in rows.items()}
    palette_count, palette_book = 0, torch.zeros(0)
    if ordered.sh_degree and len(ordered):
        palette, labels = kmeans(
            ordered.shN.flatten(1), palette_size(len(ordered)), weights + PALETTE_FLOOR, n_iter=KMEANS_ITERATIONS
        )
        palette_count = len(palette)
        masses = torch.zeros(palette_count).index_add_(0, labels, weights)
        palette_book = optimal_codebook_1d(palette.flatten(), ENTRIES, masses.repeat_interleave(palette.shape[1]))
        images["shN_centroids.webp"] = _centroid_plane(nearest_entry(palette, palette_book), ordered.shN.shape[1])
        two_bytes = torch.stack([labels & 255, labels >> 8], dim=1).numpy().astype(np.uint8)
        images["shN_labels.webp"] = to_plane(np.pad(two_bytes, ((0, 0), (0, 1))), size)
    return SogPlanes(
        len(ordered),
        mins,
        maxs,
        scale_book.tolist(),
        color_book.tolist(),
        ordered.sh_degree,
        palette_count,
        palette_book.tolist(),
        images,
    )


def visibility(gaussians: Gaussians) -> Tensor:
    """How much an error of each Gaussian shows: its squared opacity times its largest section, bounded, mean 1. [N]"""
    if len(gaussians) == 0:
        return torch.zeros(0)
    logs = gaussians.log_scales.sort(dim=1).values
    area = (2 * gaussians.opacities.clamp_min(1e-3).log() + logs[:, 1] + logs[:, 2]).double()
    # A pixel errs by opacity times the error, and errors are squared. A few giants must not take every entry, and no
    # Gaussian is worth nothing.
    middle = area.median()
    weights = (area - middle).clamp(-MAX_LOG_WEIGHT, MAX_LOG_WEIGHT).exp()
    return (weights / weights.mean()).float()


def palette_size(count: int) -> int:
    """Entries for `count` Gaussians: a power of two, at least half of them, at most 65,536; all for small scenes."""
    if count <= 1024:
        return count
    return min(MAX_PALETTE, 2 ** int(math.log2(count / 1024)) * 1024)


def _means_16bit(means: Tensor) -> tuple[Tensor, list[float], list[float]]:  # [N, 3] 0 to 65535, bounds
    if len(means) == 0:
        return torch.zeros(0, 3, dtype=torch.int64), [0.0] * 3, [0.0] * 3
    exact = means.double()
    logs = exact.sign() * exact.abs().log1p()
    low, high = logs.amin(dim=0), logs.amax(dim=0)
    # Where all are equal, readers take a span of 1 or of 0: code 0 is right for both.
    span = torch.where(high > low, high - low, torch.ones_like(low))
    return ((logs - low) / span * 65535).round().long(), low.tolist(), high.tolist()


def _quats_8bit(quats: Tensor) -> Tensor:  # [N, 4]
    small, largest = smallest_three.encode(quats)
    return torch.cat([((small + 1) * 127.5).round().clamp(0, 255).long(), 252 + largest[:, None]], dim=1)


def _from_8bit(codes: Tensor) -> Tensor:  # [N, 4] -> unit quaternions as a reader makes them
    return smallest_three.decode(codes[:, :3] / 127.5 - 1, codes[:, 3] - 252)


def _named_axes(gaussians: Gaussians) -> tuple[Tensor, Tensor]:  # quats [N, 4], log scales [N, 3]
    """Names of axes that suffer least from rounding, where harmonics make up the file: rotations take more bytes."""
    if gaussians.sh_degree == 0:
        return gaussians.quats, gaussians.log_scales
    return axis_choice.choose(gaussians.quats, gaussians.log_scales, lambda quats: _from_8bit(_quats_8bit(quats)))


def _codebook(values: Tensor, weights: Tensor, slack: float) -> Tensor:  # [N, 3], [N, 3] -> [256]
    """The codebook that is best by weights among those whose plain error is at most `slack` times the least possible.

    Adding one number to all weights trades the one error for the other in the best way (Lagrange).
    """
    if len(values) == 0:
        return optimal_codebook_1d(values.flatten(), ENTRIES)
    every = -(-len(values) // FLOOR_ROWS)
    sample = values[::every].flatten(), weights[::every].flatten()
    floor = MAX_FLOOR if len(values) < SLACK_ROWS else _floor(*sample, slack)
    return optimal_codebook_1d(values.flatten(), ENTRIES, weights.flatten() + floor * weights.mean())


def _floor(values: Tensor, weights: Tensor, slack: float) -> float:
    """What to add to all weights, in units of their mean, so that the plain error stays within `slack`. [M], [M]"""
    limit = slack * _error(values, optimal_codebook_1d(values, ENTRIES))
    if _error(values, optimal_codebook_1d(values, ENTRIES, weights)) <= limit:
        return 0.0
    low, high = math.log(MIN_FLOOR), math.log(MAX_FLOOR)
    for _ in range(FLOOR_STEPS):
        middle = (low + high) / 2
        book = optimal_codebook_1d(values, ENTRIES, weights + math.exp(middle) * weights.mean())
        low, high = (low, middle) if _error(values, book) <= limit else (middle, high)
    return math.exp(high)


def _error(values: Tensor, codebook: Tensor) -> float:
    return float((values - codebook[nearest_entry(values, codebook)]).double().square().mean().sqrt())


def _axis_weights(log_scales: Tensor, weights: Tensor) -> Tensor:  # [N, 3]
    # The thinner an axis is beside the others, the less of it is seen; none is worth nothing.
    shares = (AXIS_POWER * (log_scales - log_scales.amax(dim=1, keepdim=True))).exp()
    return weights[:, None] * shares.clamp_min(1e-4)


def _centroid_plane(entries: Tensor, n_rest: int) -> np.ndarray:  # [palette, n_rest * 3] -> image
    n_rows = -(-len(entries) // PALETTE_COLUMNS)
    pixels = entries.reshape(-1, 3).numpy().astype(np.uint8)
    return to_plane(pixels, (PALETTE_COLUMNS * n_rest, n_rows))
