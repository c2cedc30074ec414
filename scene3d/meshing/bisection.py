"""Bisection: where a field that is only known by asking crosses a level between two points."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

N_STEPS = 7


def bisect(is_inside: Callable[[Tensor], Tensor], inner: Tensor, outer: Tensor, n_steps: int = N_STEPS) -> Tensor:
    """Halve the way between inner and outer points until it is short.

    Args:
        is_inside: From places [E, 3] to bool [E].
        inner: Inside. [E, 3]
        outer: Outside. [E, 3]
        n_steps: Halvings.

    Returns:
        Middles of what is left, [E, 3].
    """
    for _ in range(n_steps):
        middle = (inner + outer) / 2
        inside = is_inside(middle)[:, None]
        inner, outer = torch.where(inside, middle, inner), torch.where(inside, outer, middle)
    return (inner + outer) / 2
