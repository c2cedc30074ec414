"""Bisection: where a field that is only known by asking crosses a level between two points."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

N_STEPS = 7


def bisect(
    is_inside: Callable[[Tensor], Tensor], inner: Tensor, outer: Tensor, n_steps: int = N_STEPS, precision: float = 0.0
) -> Tensor:
    """Halve the way between inner and outer points until it is short.

    Args:
        is_inside: From places [E, 3] to bool [E].
        inner: Inside. [E, 3]
        outer: Outside. [E, 3]
        n_steps: Halvings at most.
        precision: Shorter ways are not halved.

    Returns:
        Middles of what is left, [E, 3].
    """
    inner, outer = inner.clone(), outer.clone()
    for _ in range(n_steps):
        long = ((inner - outer).norm(dim=1) > precision).nonzero()[:, 0]
        if len(long) == 0:
            break
        middle = (inner[long] + outer[long]) / 2
        inside = is_inside(middle)
        inner[long[inside]] = middle[inside]
        outer[long[~inside]] = middle[~inside]
    return (inner + outer) / 2
