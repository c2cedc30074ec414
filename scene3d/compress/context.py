"""Method "context": our own codec at the lowest rate that meets a goal. See docs/s3d.md.

Sensitivities are measured once. Then one value is searched for by coding, decoding and rendering: the distortion that
each number of the scene may add to the images. Gaussians that are cheaper to leave out than to code are pruned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from scene3d.compress.context_plan import make_plan, with_colors
from scene3d.compress.distill import Leaf, Teacher, distill
from scene3d.compress.goal import Goal, Loss, Packed, Verdict
from scene3d.compress.judge import Judge
from scene3d.compress.sensitivity import Sensitivity, measure_sensitivity, with_prior
from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.core.progress import Progress
from scene3d.core.scene import Scene
from scene3d.io import s3d_context as codec
from scene3d.io.s3d_container import Container, container_bytes

# A Gaussian is left out where that costs less than this many times the distortion of one number: what its bits buy.
# Less where views are made up, as others may see it; more where others make up for it.
PRUNE_BELOW, PRUNE_BELOW_MADE_UP, PRUNE_BELOW_REFINED = 20.0, 5.0, 30.0
MAX_DEPTH = 14
# No splat counts less than this share of one that the views see: what they do not show, held-out photos may. A fox of
# 29,707 splats, 0.1 dB: 381 kB, where without it 1.5 MB would not do. More where views were made up.
PRIOR_SHARE, PRIOR_SHARE_MADE_UP = 0.05, 0.2
SEARCH_STEPS, REFINED_STEPS = 10, 4
# Octaves of distortion by which a trial may stay below the goal and end the search.
NEAR = 0.03
# Trials so near to each other that steps, which are a quarter of an octave apart, are mostly the same.
NARROW = 0.03
MOST_OCTAVES = 6.0
MAX_LOGIT, OPACITY_LR, COLOR_LR = 8.0, 0.02, 0.01
FINEST, COARSEST = 1e-18, 1e-5
CHUNKS = {
    "positions": ("octree", "position"),
    "classes of importance": ("classes",),
    "opacities": ("opacity",),
    "scales and rotations": ("scale", "rotation"),
    "color": ("color",),
    "spherical harmonics": ("sh", "basis"),
}


@dataclass(frozen=True)
class Trial:
    """One distortion tried.

    Attributes:
        distortion: Mean square error each number may add.
        container: What came of it.
        gaussians: What a reader sees.
        original: The same Gaussians as they were.
        size_bytes: Of the file.
        verdict: How near it is.
    """

    distortion: float
    container: Container
    gaussians: Gaussians
    original: Gaussians
    size_bytes: int
    verdict: Verdict


def compress(scene: Scene, goal: Goal, judge: Judge, views: Cameras) -> Packed:
    """Code a scene as small as the goal allows, or as well as its size allows.

    Args:
        scene: What to compress, finite.
        goal: What to reach.
        judge: Says how near a result is.
        views: Cameras by which decisions are made.
    """
    with Progress(len(views), "measuring what is seen") as progress:
        sensitivity = measure_sensitivity(scene.splats(), views, judge.settings, 0, progress.advance)
    share = PRIOR_SHARE_MADE_UP if judge.is_made_up else PRIOR_SHARE
    sensitivity = with_prior(sensitivity, scene.splats(), share)
    encoder = Encoder(scene, sensitivity, judge)
    chosen = _search(encoder, goal, _first_distortion(goal), SEARCH_STEPS)
    if goal.tune_steps:
        teacher = Teacher(scene.splats(), views, judge.settings)
        refined = Encoder(scene, sensitivity, judge, teacher, goal.tune_steps)
        found = _search(refined, goal, 2 * chosen.distortion, REFINED_STEPS)
        chosen = min(chosen, found, key=lambda trial: _rank(trial, goal))
    # Refined colours belong to the shapes that they were refined for: alone they mean nothing.
    is_separable = goal.tune_steps == 0
    is_met = _excess(chosen, goal) <= 0
    remark = "" if is_met else _shortfall(chosen, goal)
    return Packed(
        chosen.container, chosen.gaussians, chosen.verdict, _losses(judge, chosen, is_separable), is_met, remark
    )


class Encoder:
    """Codes one scene at any distortion.

    Args:
        scene: Finite.
        sensitivity: Of its numbers.
        judge: Of what comes out.
        teacher: The scene, for colours and opacities to make up for coarse shapes and for what is left out.
        refine_steps: How long; 0 needs no teacher.
    """

    def __init__(
        self,
        scene: Scene,
        sensitivity: Sensitivity,
        judge: Judge,
        teacher: Teacher | None = None,
        refine_steps: int = 0,
    ) -> None:
        self.scene, self.sensitivity, self.judge = scene, sensitivity, judge
        self.teacher, self.refine_steps = teacher, refine_steps

    def __call__(self, distortion: float) -> Trial:
        usual = PRUNE_BELOW_MADE_UP if self.judge.is_made_up else PRUNE_BELOW
        threshold = usual if self.teacher is None else PRUNE_BELOW_REFINED
        keep = self.sensitivity.log_opacity > threshold * distortion
        gaussians, sensitivity = self.scene.splats().select(keep), self.sensitivity.select(keep)
        plan = make_plan(gaussians, sensitivity, distortion, MAX_DEPTH)
        original = gaussians.select(torch.from_numpy(plan.arranged.order))
        chunks, meta = codec.encode_context(plan.arranged, plan.frame, plan.tables, plan.rules)
        if self.teacher is not None:
            plan = with_colors(plan, self._tuned(codec.to_gaussians(plan.arranged.fixed, plan.frame), original))
            chunks, meta = codec.encode_context(plan.arranged, plan.frame, plan.tables, plan.rules)
        container = Container("splats", codec.CODEC, len(gaussians), chunks, self.scene.info, meta)
        decoded = codec.to_gaussians(plan.arranged.fixed, plan.frame)
        size = len(container_bytes(container))
        return Trial(distortion, container, decoded, original, size, self.judge.verdict(decoded))

    def _tuned(self, shapes: Gaussians, original: Gaussians) -> Gaussians:
        """Decoded shapes with opacities and colours that bring the images back, as far as they can."""
        assert self.teacher is not None
        # An opacity of exactly 1 has no gradient left.
        logits = original.opacity_logits.clamp(-MAX_LOGIT, MAX_LOGIT)
        student = replace(shapes, opacity_logits=logits.clone(), sh0=original.sh0.clone(), shN=original.shN)
        rates = {"opacity_logits": OPACITY_LR, "sh0": COLOR_LR}
        leaves = [Leaf(getattr(student, name).requires_grad_(), lr) for name, lr in rates.items()]
        distill(lambda step: student, leaves, self.teacher, self.refine_steps)
        return student.detach()


def _first_distortion(goal: Goal) -> float:
    return 10 ** (-goal.fidelity_db / 10) * 1e-6


def _rank(trial: Trial, goal: Goal) -> tuple[bool, float]:
    """Lower is better: first what meets the goal, then the smaller, or the better of two that fit."""
    is_missed = _excess(trial, goal) > 0
    by_quality = goal.target_bytes is not None
    return is_missed, -trial.verdict.fidelity_db if by_quality else float(trial.size_bytes)


def _excess(trial: Trial, goal: Goal) -> float:
    """How far beyond the goal: at most 0 where it is met; octaves of distortion, about, and no more than MOST_OCTAVES:
    a drop below nothing would else count as infinitely far."""
    if goal.target_bytes is not None:
        octaves = 4 * math.log2(trial.size_bytes / goal.target_bytes)
    elif trial.verdict.drop_db is not None:
        octaves = math.log2(max(trial.verdict.drop_db, 1e-6) / goal.max_drop_db)
    else:
        octaves = (goal.fidelity_db - trial.verdict.fidelity_db) / 3.0
    return max(-MOST_OCTAVES, min(MOST_OCTAVES, octaves))


def _search(encode: Callable[[float], Trial], goal: Goal, distortion: float, n_steps: int) -> Trial:
    """The best trial that meets the goal, else the one nearest to it."""
    toward = -1.0 if goal.target_bytes is not None else 1.0
    met: Trial | None = None
    missed: Trial | None = None
    with Progress(n_steps, "searching") as progress:
        for _ in range(n_steps):
            trial = encode(distortion)
            excess = _excess(trial, goal)
            progress.advance(size=f"{trial.size_bytes:,} bytes", fidelity=f"{trial.verdict.fidelity_db:.2f} dB")
            if excess <= 0:
                # Drops are not monotone where they are near 0: never trade a small file that will do for a larger one.
                met = trial if met is None else min(met, trial, key=lambda one: _rank(one, goal))
                if excess > -NEAR:
                    break
            else:
                missed = trial
            distortion = _next(trial, excess, met, missed, toward, goal)
            is_narrow = met is not None and missed is not None and _octaves(met, missed) < NARROW
            if is_narrow or not FINEST < distortion < COARSEST:
                break
    chosen = met or missed
    assert chosen is not None
    return chosen


def _octaves(a: Trial, b: Trial) -> float:
    return abs(math.log2(a.distortion / b.distortion))


def _next(trial: Trial, excess: float, met: Trial | None, missed: Trial | None, toward: float, goal: Goal) -> float:
    """Between the last that met the goal and the last that did not, by the secant; else by the excess."""
    if met is None or missed is None:
        return trial.distortion * 2 ** (-toward * (excess + math.copysign(0.05, excess)))
    a, b = math.log2(met.distortion), math.log2(missed.distortion)
    low, high = _excess(met, goal), _excess(missed, goal)
    share = -low / (high - low) if high > low else 0.5
    # A little on the side that meets the goal, and never so near to an end that nothing moves.
    share = min(max(share - 0.02, 0.1), 0.9)
    return 2 ** (a + share * (b - a))


def _shortfall(trial: Trial, goal: Goal) -> str:
    if goal.target_bytes is not None:
        return f"cannot be as small as {goal.target_bytes:,} bytes: {trial.size_bytes:,} is the least"
    if trial.verdict.drop_db is not None:
        return f"cannot keep the drop below {goal.max_drop_db:g} dB: {trial.verdict.drop_db:.3f} dB is the least"
    return f"cannot reach {goal.fidelity_db:.1f} dB: {trial.verdict.fidelity_db:.1f} dB is the most"


def _losses(judge: Judge, trial: Trial, is_separable: bool) -> tuple[Loss, ...]:
    """Bytes of each attribute, and how near the scene is where only that one is compressed."""
    chunks, original, decoded = trial.container.chunks, trial.original, trial.gaussians
    shape = {"quats": decoded.quats, "log_scales": decoded.log_scales}
    alone = {
        "positions": {"means": decoded.means},
        "opacities": {"opacity_logits": decoded.opacity_logits},
        # A rotation belongs to its own order of the axes.
        "scales and rotations": shape,
        "color": {"sh0": decoded.sh0},
        "spherical harmonics": {"shN": decoded.shN},
    }
    losses = [Loss("left out", 0, judge.verdict(original).fidelity_db)]
    for name, parts in CHUNKS.items():
        size = sum(len(chunks.get(part, b"")) for part in parts)
        changed = alone.get(name) if is_separable else None
        if size:
            fidelity = judge.verdict(replace(original, **changed)).fidelity_db if changed else math.inf
            losses.append(Loss(name, size, fidelity))
    return (*losses, Loss("header", trial.size_bytes - sum(loss.size_bytes for loss in losses)))
