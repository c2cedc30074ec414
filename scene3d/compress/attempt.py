"""Attempts at a goal: coding a scene again and again, nearer to what is asked, and what is told of the best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from scene3d.compress.goal import Goal, Loss, Packed, Verdict
from scene3d.compress.judge import Judge
from scene3d.core.gaussians import Gaussians
from scene3d.io.s3d_container import Container

ATTEMPTS = 6
# Near enough to the goal, of its own side: dB, and share of the bytes.
NEAR_DB, NEAR_SIZE = 0.1, 0.97


@dataclass(frozen=True)
class Attempt:
    """A scene coded for some bound.

    Attributes:
        container: What came of it.
        gaussians: What a reader sees.
        original: The same Gaussians, row by row, before they were coded.
        verdict: How near it is.
        size_bytes: Of the file.
    """

    container: Container
    gaussians: Gaussians
    original: Gaussians
    verdict: Verdict
    size_bytes: int


def search(encode: Callable[[float, int | None], Attempt], goal: Goal) -> Attempt:
    """The best attempt that meets the goal, else the one nearest to it.

    Args:
        encode: Takes the mean squared error it may make, and the bytes it may take instead where the goal is a size.
            What it makes of them is known only afterwards.
        goal: What to reach.
    """
    best: Attempt | None = None
    error, size, last_size = 10 ** (-goal.fidelity_db / 10), goal.target_bytes, -1
    for _ in range(ATTEMPTS):
        attempt = encode(error, size)
        if best is not None and attempt.size_bytes == last_size:
            break  # Nothing is left to choose from.
        last_size = attempt.size_bytes
        best = attempt if best is None or _is_better(attempt, best, goal) else best
        if goal.target_bytes is not None and size is not None:
            if NEAR_SIZE * goal.target_bytes <= attempt.size_bytes <= goal.target_bytes:
                break
            size = round(size * 0.99 * goal.target_bytes / attempt.size_bytes)
        else:
            lacking = _lacking_db(attempt.verdict, goal)
            if -NEAR_DB <= lacking <= 0:
                break
            error *= 10 ** (-max(min(lacking + NEAR_DB / 4, 30.0), -30.0) / 10)
    assert best is not None
    return best


def packed(attempt: Attempt, goal: Goal, judge: Judge, attributes: dict[str, str]) -> Packed:
    """What is told of an attempt.

    Args:
        attempt: The one that is taken.
        goal: What was asked.
        judge: Judges attributes one by one.
        attributes: The stored tensor of Gaussians to which each chunk belongs.
    """
    met = is_met(attempt, goal)
    losses = _losses(attempt, judge, attributes)
    remark = "" if met else _shortfall(attempt, goal)
    return Packed(attempt.container, attempt.gaussians, attempt.verdict, losses, met, remark)


def is_met(attempt: Attempt, goal: Goal) -> bool:
    """Whether an attempt is what was asked for."""
    if goal.target_bytes is not None:
        return attempt.size_bytes <= goal.target_bytes
    return _lacking_db(attempt.verdict, goal) <= 0


def _lacking_db(verdict: Verdict, goal: Goal) -> float:
    """Decibels of fidelity that are missing; less than 0 where there is more than needed."""
    if verdict.drop_db is None:
        return goal.fidelity_db - verdict.fidelity_db
    return 10 * math.log10(max(verdict.drop_db, 1e-4) / goal.max_drop_db)


def _is_better(a: Attempt, b: Attempt, goal: Goal) -> bool:
    if is_met(a, goal) != is_met(b, goal):
        return is_met(a, goal)
    wants_smaller = (goal.target_bytes is None) == is_met(a, goal)
    return a.size_bytes < b.size_bytes if wants_smaller else a.verdict.fidelity_db > b.verdict.fidelity_db


def _shortfall(attempt: Attempt, goal: Goal) -> str:
    if goal.target_bytes is not None:
        return f"cannot be as small as {goal.target_bytes:,} bytes: {attempt.size_bytes:,} is the least"
    if attempt.verdict.drop_db is not None:
        return f"cannot keep the drop below {goal.max_drop_db:g} dB: {attempt.verdict.drop_db:.3f} dB is the least"
    return f"cannot reach {goal.fidelity_db:.1f} dB: {attempt.verdict.fidelity_db:.1f} dB is the most"


def _losses(attempt: Attempt, judge: Judge, attributes: dict[str, str]) -> tuple[Loss, ...]:
    """Bytes of each attribute, and how near the scene is where only that one is compressed."""
    sizes: dict[str, int] = {}
    for chunk, data in attempt.container.chunks.items():
        name = attributes.get(chunk, "other")
        sizes[name] = sizes.get(name, 0) + len(data)
    losses = [Loss("left out", 0, judge.verdict(attempt.original).fidelity_db)]
    for name, size in sizes.items():
        if name == "other":
            losses.append(Loss(name, size))
            continue
        alone = replace(attempt.original, **{name: getattr(attempt.gaussians, name)})
        losses.append(Loss(name, size, judge.verdict(alone).fidelity_db))
    return (*losses, Loss("header", attempt.size_bytes - sum(sizes.values())))
