"""Allocation: how exactly to store each attribute, so that a bound on the error costs the fewest bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """One way to store an attribute.

    Attributes:
        size_bytes: What it takes.
        error: Mean squared error of images when only this attribute is stored so. Errors of attributes add up.
    """

    size_bytes: float
    error: float


def allocate(
    options: Mapping[str, Sequence[Choice]], max_error: float | None = None, max_bytes: float | None = None
) -> dict[str, int]:
    """Choose one way for each attribute: greedy steps along the largest fall of error per byte (Shoham & Gersho 1988).

    Args:
        options: Ways by attribute, in any order.
        max_error: Stop when the errors sum to no more.
        max_bytes: Take no step beyond this sum.

    Returns:
        The index of the way by attribute. The bound on the error is missed where no way is exact enough, that on the
        bytes where the cheapest ways take more.
    """
    chosen = {
        name: min((way.size_bytes, way.error, i) for i, way in enumerate(ways))[2] for name, ways in options.items()
    }
    while max_error is None or sum(options[name][i].error for name, i in chosen.items()) > max_error:
        size = sum(options[name][i].size_bytes for name, i in chosen.items())
        steps = [
            (_gain(options[name][at], way), name, i)
            for name, at in chosen.items()
            for i, way in enumerate(options[name])
            if way.error < options[name][at].error
            and (max_bytes is None or size + way.size_bytes - options[name][at].size_bytes <= max_bytes)
        ]
        if not steps:
            break
        _, name, i = max(steps, key=lambda step: (step[0], step[1], -step[2]))
        chosen[name] = i
    return chosen if max_error is None else _without_slack(options, chosen, max_error)


def _without_slack(options: Mapping[str, Sequence[Choice]], chosen: dict[str, int], max_error: float) -> dict[str, int]:
    """Take cheaper ways where the last greedy step left room for them, the largest saving first."""
    chosen = dict(chosen)
    while True:
        total = sum(options[name][i].error for name, i in chosen.items())
        steps = [
            (options[name][at].size_bytes - way.size_bytes, name, i)
            for name, at in chosen.items()
            for i, way in enumerate(options[name])
            if way.size_bytes < options[name][at].size_bytes
            and total - options[name][at].error + way.error <= max_error
        ]
        if not steps:
            return chosen
        _, name, i = max(steps, key=lambda step: (step[0], step[1], -step[2]))
        chosen[name] = i


def _gain(now: Choice, then: Choice) -> float:
    return (now.error - then.error) / max(then.size_bytes - now.size_bytes, 1e-9)
