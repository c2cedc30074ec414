"""Methods "grid" and "grid-jxl": Self-Organizing Gaussian Grids (Morgenstern et al. 2024).

Gaussians are sorted into a 2D grid whose neighbours are alike; each attribute becomes a picture with its own bit depth,
coded by a lossless image codec. Bit depths are not fixed as in the paper: the cheapest that meet the goal are taken.
Tuning against renders of the full scene, with a loss that makes neighbours more alike, is an option.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scene3d.compress.allocate import Choice, allocate
from scene3d.compress.attempt import Attempt, packed, search
from scene3d.compress.distill import Teacher
from scene3d.compress.goal import Goal, Packed
from scene3d.compress.judge import Judge
from scene3d.compress.neighbors import smooth
from scene3d.compress.thin import Thinned, thin
from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.core.progress import Progress
from scene3d.core.scene import Scene
from scene3d.io import s3d_grid as codec
from scene3d.io.s3d_container import container_bytes
from scene3d.ops.grid_sort import GridSortSettings, grid_sort, grid_width, to_grid

BITS = {
    "means": range(8, 17),
    "quats": range(4, 11),
    "log_scales": range(4, 11),
    "opacities": range(3, 9),
    "sh0": range(4, 11),
    "shN": range(2, 9),
}
# Share of the values cut off at either end of a channel: a few extremes would cost all others precision.
CLIPS = (0.0, 0.0005, 0.005)
# The stored tensor of Gaussians that an attribute belongs to.
TENSORS = {"opacities": "opacity_logits"}
# What neighbours should agree in: places, colours and sizes as in the paper, the rest less.
SORT_WEIGHTS = {"means": 1.0, "sh0": 1.0, "log_scales": 1.0, "quats": 0.5, "opacities": 0.5}
# Positions of a scene much larger than its middle are stored as logarithms.
LOG_MEANS_RATIO = 8.0


def compress(scene: Scene, goal: Goal, judge: Judge, views: Cameras) -> Packed:
    """Code a scene as small as the goal allows, or as well as its size allows, with WebP.

    Args:
        scene: What to compress, finite.
        goal: What to reach.
        judge: Says how near a result is.
        views: Cameras by which decisions are made.
    """
    return compress_with("webp", scene, goal, judge, views)


def compress_with(image_codec: codec.ImageCodec, scene: Scene, goal: Goal, judge: Judge, views: Cameras) -> Packed:
    """The same with any of the image codecs."""
    best = search(_Encoder(scene, goal, judge, views, image_codec), goal)
    chunks = {chunk: chunk.split(".")[0] for chunk in best.container.chunks}
    return packed(best, goal, judge, {chunk: TENSORS.get(name, name) for chunk, name in chunks.items()})


class _Encoder:
    """What is found out once about a scene, and coding it for any bound."""

    def __init__(self, scene: Scene, goal: Goal, judge: Judge, views: Cameras, image_codec: codec.ImageCodec) -> None:
        self.info, self.judge, self.image_codec = scene.info, judge, image_codec
        thinned = thin(scene, goal, judge, views)
        self.has_log_means = is_unbounded(thinned.gaussians.means)
        self.width = grid_width(len(thinned.gaussians))
        self.original = thinned.gaussians.select(sort_order(thinned.gaussians, self.has_log_means))
        tuned = self.original
        if goal.tune_steps:
            teacher = Teacher(scene.splats(), views, judge.settings)
            tuned = smooth(self.original, self.width, teacher, goal.tune_steps)
        self.thinned = Thinned(tuned, thinned.weights, thinned.decider, thinned.error)
        self.rows = codec.grid_rows(tuned, self.has_log_means)
        self.ways = {name: [(bits, clip) for bits in BITS[name] for clip in CLIPS] for name in self.rows}
        self.choices = self._choices()

    def __call__(self, max_error: float, max_bytes: int | None) -> Attempt:
        bound = None if max_bytes is not None else max(max_error - self.thinned.error, 0.0)
        taken = allocate(self.choices, bound, max_bytes)
        levels = {name: codec.to_levels(self.rows[name], *self.ways[name][i]) for name, i in taken.items()}
        container = codec.encode_grid(levels, self.width, self.has_log_means, self.info, self.image_codec)
        restored = codec.decode_grid(container, Path("in memory"))
        verdict, size = self.judge.verdict(restored), len(container_bytes(container))
        return Attempt(container, restored, self.original, verdict, size)

    def _choices(self) -> dict[str, list[Choice]]:
        choices: dict[str, list[Choice]] = {}
        with Progress(sum(map(len, self.ways.values())), "trying bit depths") as progress:
            for name, ways in self.ways.items():
                choices[name] = []
                for bits, clip in ways:
                    choices[name].append(self._choice(name, bits, clip))
                    progress.advance()
        return choices

    def _choice(self, name: str, bits: int, clip: float) -> Choice:
        levels = codec.to_levels(self.rows[name], bits, clip)
        restored = codec.from_grid_rows({**self.rows, name: levels.restored()}, self.has_log_means)
        tensor = TENSORS.get(name, name)
        return Choice(
            picture_bytes(levels.values, self.width), self.thinned.error_with(tensor, getattr(restored, tensor))
        )


def is_unbounded(means: Tensor) -> bool:
    """Whether a scene reaches much farther than its middle half."""
    if len(means) < 4:
        return False
    quantiles = torch.quantile(means[:: max(1, len(means) // 100_000)], torch.tensor([0.25, 0.75]), dim=0)
    middle = float((quantiles[1] - quantiles[0]).max())
    return float((means.amax(dim=0) - means.amin(dim=0)).max()) > LOG_MEANS_RATIO * middle


def sort_order(gaussians: Gaussians, has_log_means: bool) -> Tensor:
    """The order in which Gaussians fill the grid. [N] int64"""
    rows = codec.grid_rows(gaussians, has_log_means)
    parts = []
    for name, weight in SORT_WEIGHTS.items():
        spread = rows[name] - rows[name].mean(dim=0)
        parts.append(weight * spread / spread.square().mean(dim=0).sqrt().clamp_min(1e-12))
    return grid_sort(torch.cat(parts, dim=1).clamp(-6, 6), settings=GridSortSettings(passes=6))


def picture_bytes(levels: Tensor, width: int) -> float:
    """What an image codec makes of levels [N, C], about: entropy of what the best of three gradients leaves.

    The predictor of LOCO-I (Weinberger et al. 2000).
    """
    if len(levels) == 0:
        return 0.0
    grid = to_grid(levels, width).numpy()
    left = np.pad(grid, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    above = np.pad(grid, ((1, 0), (0, 0), (0, 0)))[:-1]
    corner = np.pad(grid, ((1, 0), (1, 0), (0, 0)))[:-1, :-1]
    low, high = np.minimum(left, above), np.maximum(left, above)
    predicted = np.where(corner >= high, low, np.where(corner <= low, high, left + above - corner))
    n_bits = 0.0
    for channel in np.moveaxis(grid - predicted, 2, 0):
        counts = np.unique(channel, return_counts=True)[1]
        # A table of the counts has to be told too: a few bits for each residual that occurs.
        n_bits += float(-(counts * np.log2(counts / counts.sum())).sum()) + 4 * len(counts)
    return n_bits / 8 + 30 * math.ceil(levels.shape[1] / 3)
