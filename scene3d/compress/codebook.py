"""Method "codebook": shapes and colours as rows of codebooks, after Compact3D (Navaneet et al. 2024).

For every coded tensor codebooks of several sizes, with one to three residual stages, are made by k-means, weighted by
what the views see; the cheapest combination that meets the goal is taken (Compact3D fixes one size for each). Then the
scene can be tuned with its codebooks in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from scene3d.compress.allocate import Choice, allocate
from scene3d.compress.attempt import Attempt, packed, search
from scene3d.compress.codebook_fit import CodebookSettings, canonical_rows, fit_codebooks
from scene3d.compress.distill import Teacher
from scene3d.compress.goal import Goal, Packed
from scene3d.compress.judge import Judge
from scene3d.compress.quantizer import Quantizer, QuantizerSettings
from scene3d.compress.thin import Thinned, thin
from scene3d.core.cameras import Cameras
from scene3d.core.progress import Progress
from scene3d.core.scene import Scene
from scene3d.io import s3d_codebook as codec
from scene3d.io.s3d_container import container_bytes

# (stages, codes) of a coded tensor, and bits of a position's axis and of an opacity.
SIZES = (
    *((1, 2**bits) for bits in range(6, 15)),
    *((2, 2**bits) for bits in range(6, 13)),
    *((3, 2**bits) for bits in (8, 10, 12)),
)
DEPTHS = (10, 11, 12, 13, 14, 15, 16, 18)
OPACITY_BITS = (3, 4, 5, 6, 7, 8)
# Codes for fewer rows each than this cost more than they save.
ROWS_PER_CODE = 4


@dataclass(frozen=True)
class Way:
    """One way to store an attribute, and what it leaves of it."""

    settings: QuantizerSettings | int
    choice: Choice


def compress(scene: Scene, goal: Goal, judge: Judge, views: Cameras) -> Packed:
    """Code a scene as small as the goal allows, or as well as its size allows.

    Args:
        scene: What to compress, finite.
        goal: What to reach.
        judge: Says how near a result is.
        views: Cameras by which decisions are made.
    """
    best = search(_Encoder(scene, goal, judge, views), goal)
    chunks = {chunk: chunk.split(".")[0] for chunk in best.container.chunks}
    return packed(best, goal, judge, {**chunks, "octree": "means", "below": "means", "opacity": "opacity_logits"})


class _Encoder:
    """What is found out once about a scene, and coding it for any bound."""

    def __init__(self, scene: Scene, goal: Goal, judge: Judge, views: Cameras) -> None:
        self.info, self.judge, self.tune_steps = scene.info, judge, goal.tune_steps
        self.thinned = thin(scene, goal, judge, views)
        self.teacher = Teacher(scene.splats(), views, judge.settings)
        self.ways = self._ways()

    def __call__(self, max_error: float, max_bytes: int | None) -> Attempt:
        options = {name: [way.choice for way in ways] for name, ways in self.ways.items()}
        bound = None if max_bytes is not None else max(max_error - self.thinned.error, 0.0)
        taken = allocate(options, bound, max_bytes)
        settings = {name: self.ways[name][i].settings for name, i in taken.items()}
        columns = {name: value for name, value in settings.items() if isinstance(value, QuantizerSettings)}
        fit_settings = CodebookSettings(columns, self.tune_steps)
        coded = fit_codebooks(self.thinned.gaussians, self.thinned.weights, fit_settings, self.teacher)
        depth, bits = settings["means"], settings["opacity_logits"]
        assert isinstance(depth, int)
        assert isinstance(bits, int)
        container, order = codec.encode_codebook(coded, depth, bits, self.info)
        restored = codec.decode_codebook(container, Path("in memory"))
        verdict, size = self.judge.verdict(restored), len(container_bytes(container))
        return Attempt(container, restored, self.thinned.gaussians.select(order), verdict, size)

    def _ways(self) -> dict[str, list[Way]]:
        rows, loads = canonical_rows(self.thinned.gaussians), self.thinned.weights
        coded = [name for name in ("quats", "log_scales", "sh0", "shN") if rows[name].shape[1]]
        ways: dict[str, list[Way]] = {name: [] for name in coded}
        with Progress(len(coded) * len(SIZES), "trying codebooks") as progress:
            for name in coded:
                for n_stages, n_codes in SIZES:
                    if n_codes == SIZES[0][1] or n_codes * ROWS_PER_CODE <= len(loads):
                        ways[name].append(self._codebook(name, rows[name], loads, n_stages, n_codes))
                    progress.advance()
        return {**ways, "means": position_ways(self.thinned), "opacity_logits": opacity_ways(self.thinned)}

    def _codebook(self, name: str, rows: Tensor, loads: Tensor, n_stages: int, n_codes: int) -> Way:
        settings = QuantizerSettings(n_codes, n_stages)
        quantizer = Quantizer(rows, loads + 1e-4 * loads.mean() + 1e-12, settings)
        size = quantizer.bits() * len(rows) / 8 + 1.9 * sum(codes.numel() for codes in quantizer.stages)
        return Way(settings, Choice(size, self.thinned.error_with(name, quantizer.restored().detach())))


def position_ways(thinned: Thinned) -> list[Way]:
    """Positions in cells of several sizes."""
    ways, means = [], thinned.gaussians.means
    for depth in DEPTHS:
        error = thinned.error_with("means", codec.round_means(means, depth))
        ways.append(Way(depth, Choice(codec.size_of_positions(means, depth), error)))
    return ways


def opacity_ways(thinned: Thinned) -> list[Way]:
    """Opacities of several numbers of bits."""
    ways, logits = [], thinned.gaussians.opacity_logits
    for bits in OPACITY_BITS:
        error = thinned.error_with("opacity_logits", codec.round_opacities(logits, bits))
        ways.append(Way(bits, Choice(codec.size_of_opacities(logits, bits), error)))
    return ways
