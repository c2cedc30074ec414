"""Argument checks with named dimensions: sizes bind across the arguments of one call.

dims = Dims()
dims.check("means", means, "N 3")
dims.check("quats", quats, "N 4")   # quats: expected shape [N, 4], got [4, 4] where N=5
"""

from __future__ import annotations

import torch
from torch import Tensor


class Dims:
    """Sizes bound so far, by name."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}

    def check(self, name: str, value: Tensor, shape: str, dtype: torch.dtype | None = None) -> None:
        """Check the shape of `value` against `shape`, a list of names and numbers, and bind the names.

        Raises:
            TypeError: value is no tensor or has another dtype.
            ValueError: the shape differs.
        """
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
        if dtype is not None and value.dtype != dtype:
            raise TypeError(f"{name}: expected dtype {dtype}, got {value.dtype}. Convert it with .to({dtype})")
        words = shape.split()
        fits = len(words) == value.ndim
        bound = dict(self.sizes)
        for word, size in zip(words, value.shape, strict=False):
            fits = fits and size == (int(word) if word.isdigit() else bound.setdefault(word, size))
        if not fits:
            known = ", ".join(f"{w}={self.sizes[w]}" for w in words if w in self.sizes)
            where = f" where {known}" if known else ""
            raise ValueError(f"{name}: expected shape [{', '.join(words)}], got {list(value.shape)}{where}")
        self.sizes = bound
