"""Method "codebook": shapes and colours as rows of codebooks, after Compact3D (Navaneet et al. 2024).

For every coded tensor codebooks of several sizes, with one to three residual stages, are made by k-means, weighted by
what the views see; the cheapest combination that meets the goal is taken (Compact3D fixes one size for each). Then the
scene can be tuned with its codebooks in place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from scene3d.compress.allocate import Choice, allocate
from scene3d.compress.codebook_fit import CodebookSettings, canonical_rows, fit_codebooks
from scene3d.compress.distill import Teacher
from scene3d.compress.goal import Goal, Loss, Packed, Verdict
from scene3d.compress.importance import blend_weights
from scene3d.compress.judge import Judge
from scene3d.compress.quantizer import Quantizer, QuantizerSettings
from scene3d.compress.thin import cut_sh_within, mean_error, prune_within
from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.core.progress import Progress
from scene3d.core.scene import Scene
from scene3d.io import s3d_codebook as codec
from scene3d.io.s3d_container import Container, container_bytes

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
# Shares of the error that pruning and cut coefficients may take.
PRUNE_SHARE, CUT_SHARE = 0.15, 0.05
MAX_DECIDING_VIEWS = 8
ATTEMPTS = 5


@dataclass(frozen=True)
class Way:
    """One way to store an attribute, and what it leaves of it."""

    settings: QuantizerSettings | int
    choice: Choice


@dataclass(frozen=True)
class Attempt:
    """A scene coded for some bound on the error.

    Attributes:
        container: What came of it.
        gaussians: What a reader sees.
        original: The same Gaussians before they were coded.
        verdict: How near it is.
        size_bytes: Of the file.
    """

    container: Container
    gaussians: Gaussians
    original: Gaussians
    verdict: Verdict
    size_bytes: int


def compress(scene: Scene, goal: Goal, judge: Judge, views: Cameras) -> Packed:
    """Code a scene as small as the goal allows, or as well as its size allows.

    Args:
        scene: What to compress, finite.
        goal: What to reach.
        judge: Says how near a result is.
        views: Cameras by which decisions are made.
    """
    encoder = _Encoder(scene, goal, judge, views)
    best: Attempt | None = None
    error, size = encoder.bound, goal.target_bytes
    for _ in range(ATTEMPTS):
        attempt = encoder(error, size)
        best = attempt if best is None or _is_better(attempt, best, goal) else best
        if size is not None and goal.target_bytes is not None:
            if 0.97 * goal.target_bytes <= attempt.size_bytes <= goal.target_bytes:
                break
            size = round(size * 0.99 * goal.target_bytes / attempt.size_bytes)
        else:
            lacking = _lacking_db(attempt.verdict, goal)
            if -0.1 <= lacking <= 0:
                break
            error *= 10 ** (-(lacking + 0.02) / 10)
    assert best is not None
    is_met = _is_met(best, goal)
    remark = "" if is_met else _shortfall(best, goal)
    return Packed(best.container, best.gaussians, best.verdict, _losses(judge, best), is_met, remark)


class _Encoder:
    """What is found out once about a scene, and coding it for any bound."""

    def __init__(self, scene: Scene, goal: Goal, judge: Judge, views: Cameras) -> None:
        self.scene, self.judge, self.tune_steps = scene, judge, goal.tune_steps
        full = scene.splats()
        self.bound = 10 ** (-goal.fidelity_db / 10)
        step = max(1, math.ceil(len(views) / MAX_DECIDING_VIEWS))
        self.decider = Judge(scene, views.select(range(0, len(views), step)))
        self.weights = blend_weights(full, views, judge.settings)
        keep = prune_within(full, self.weights, self.decider, PRUNE_SHARE * self.bound)
        thinned = full.select(keep)
        self.weights = self.weights[:, keep]
        self.thinned = cut_sh_within(thinned, views, self.weights, self.decider, CUT_SHARE * self.bound)
        self.lost = mean_error(self.decider, self.thinned)
        self.teacher = Teacher(full, views, judge.settings)
        self.ways = self._ways()

    def __call__(self, max_error: float, max_bytes: int | None) -> Attempt:
        options = {name: [way.choice for way in ways] for name, ways in self.ways.items()}
        bound = None if max_bytes is not None else max(max_error - self.lost, 0.0)
        taken = allocate(options, bound, max_bytes)
        settings = {name: self.ways[name][i].settings for name, i in taken.items()}
        columns = {name: value for name, value in settings.items() if isinstance(value, QuantizerSettings)}
        coded = fit_codebooks(
            self.thinned, self.weights.sum(dim=0), CodebookSettings(columns, self.tune_steps), self.teacher
        )
        depth, bits = settings["means"], settings["opacity_logits"]
        assert isinstance(depth, int)
        assert isinstance(bits, int)
        container, order = codec.encode_codebook(coded, depth, bits, self.scene.info)
        restored = codec.decode_codebook(container, Path("in memory"))
        size = len(container_bytes(container))
        return Attempt(container, restored, self.thinned.select(order), self.judge.verdict(restored), size)

    def _ways(self) -> dict[str, list[Way]]:
        rows, loads = canonical_rows(self.thinned), self.weights.sum(dim=0)
        coded = [name for name in ("quats", "log_scales", "sh0", "shN") if rows[name].shape[1]]
        ways: dict[str, list[Way]] = {name: [] for name in (*coded, "means", "opacity_logits")}
        with Progress(len(coded) * len(SIZES) + len(DEPTHS) + len(OPACITY_BITS), "trying codebooks") as progress:
            for name in coded:
                for n_stages, n_codes in SIZES:
                    if n_codes == SIZES[0][1] or n_codes * ROWS_PER_CODE <= len(loads):
                        ways[name].append(self._codebook(name, rows[name], loads, n_stages, n_codes))
                    progress.advance()
            for depth in DEPTHS:
                ways["means"].append(self._positions(depth))
                progress.advance()
            for bits in OPACITY_BITS:
                ways["opacity_logits"].append(self._opacities(bits))
                progress.advance()
        return ways

    def _codebook(self, name: str, rows: Tensor, loads: Tensor, n_stages: int, n_codes: int) -> Way:
        settings = QuantizerSettings(n_codes, n_stages)
        quantizer = Quantizer(rows, loads + 1e-4 * loads.mean() + 1e-12, settings)
        size = quantizer.bits() * len(rows) / 8 + 1.9 * sum(codes.numel() for codes in quantizer.stages)
        restored = quantizer.restored().detach().view_as(getattr(self.thinned, name))
        return Way(settings, Choice(size, self._error(name, restored)))

    def _positions(self, depth: int) -> Way:
        size = codec.size_of_positions(self.thinned.means, depth)
        return Way(depth, Choice(size, self._error("means", codec.round_means(self.thinned.means, depth))))

    def _opacities(self, bits: int) -> Way:
        restored = codec.round_opacities(self.thinned.opacity_logits, bits)
        size = codec.size_of_opacities(self.thinned.opacity_logits, bits)
        return Way(bits, Choice(size, self._error("opacity_logits", restored)))

    def _error(self, name: str, value: Tensor) -> float:
        changed = Gaussians(**{**self.thinned.params(), name: value})
        return max(mean_error(self.decider, changed) - self.lost, 0.0)


def _lacking_db(verdict: Verdict, goal: Goal) -> float:
    """Decibels of fidelity that are missing; less than 0 where there is more than needed."""
    if verdict.drop_db is None:
        return goal.fidelity_db - verdict.fidelity_db
    return 10 * math.log10(max(verdict.drop_db, 1e-4) / goal.max_drop_db)


def _is_met(attempt: Attempt, goal: Goal) -> bool:
    if goal.target_bytes is not None:
        return attempt.size_bytes <= goal.target_bytes
    return _lacking_db(attempt.verdict, goal) <= 0


def _is_better(a: Attempt, b: Attempt, goal: Goal) -> bool:
    if _is_met(a, goal) != _is_met(b, goal):
        return _is_met(a, goal)
    wants_size = (goal.target_bytes is None) == _is_met(a, goal)
    return a.size_bytes < b.size_bytes if wants_size else a.verdict.fidelity_db > b.verdict.fidelity_db


def _shortfall(attempt: Attempt, goal: Goal) -> str:
    if goal.target_bytes is not None:
        return f"cannot be as small as {goal.target_bytes:,} bytes: {attempt.size_bytes:,} is the least"
    return (
        f"codebooks cannot reach {goal.fidelity_db:.1f} dB: {attempt.verdict.fidelity_db:.1f} dB is the most. "
        "The method context can"
    )


def _losses(judge: Judge, attempt: Attempt) -> tuple[Loss, ...]:
    """Bytes of each attribute, and how near the scene is where only that one is compressed."""
    sizes: dict[str, int] = {}
    names = {"octree": "means", "below": "means", "opacity": "opacity_logits"}
    for chunk, data in attempt.container.chunks.items():
        name = names.get(chunk, chunk.split(".")[0])
        sizes[name] = sizes.get(name, 0) + len(data)
    losses = [Loss("left out", 0, judge.verdict(attempt.original).fidelity_db)]
    for name, size in sizes.items():
        alone = replace(attempt.original, **{name: getattr(attempt.gaussians, name)})
        losses.append(Loss(name, size, judge.verdict(alone).fidelity_db))
    return (*losses, Loss("header", attempt.size_bytes - sum(sizes.values())))
