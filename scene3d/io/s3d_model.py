"""Tables that a file of the "context" codec carries: step sizes, and the rules by which columns are predicted."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scene3d.io.binary import inflate
from scene3d.io.s3d_steps import SHAPES, STEP_COUNT, StepTables

# Columns of each stream and known columns that its rule looks at; "sh" has as many columns as its basis has rows, and
# each of them follows its neighbours only.
COLUMNS = {"classes": (2, 0), "scale": (3, 2), "opacity": (1, 5), "color": (3, 3)}


@dataclass(frozen=True)
class Rule:
    """How columns are predicted, see docs/s3d.md.

    Attributes:
        means: What each column, and each known one behind these, is when nothing else is known, fixed point. [C + G]
        factors: Of the features, of 2^12. [C, 2 (C + G)] or [C, 1]
    """

    means: np.ndarray
    factors: np.ndarray


def model_bytes(tables: StepTables, rules: Mapping[str, Rule]) -> bytes:
    """Tables and rules as a chunk."""
    parts = [_by_differences(getattr(tables, name)) for name in SHAPES]
    for name in (*COLUMNS, "sh"):
        parts += [rules[name].means.astype("<i4").tobytes(), rules[name].factors.astype("<i2").tobytes()]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(b"".join(parts)) + packer.flush()


def model_from_bytes(data: bytes, n_sh: int) -> tuple[StepTables, dict[str, Rule]]:
    """The inverse of model_bytes.

    Args:
        data: The chunk.
        n_sh: Rows of the basis.

    Raises:
        ValueError: the chunk has another size, or holds other than small steps.
    """
    shapes = {**{name: (c, 2 * (c + g), g) for name, (c, g) in COLUMNS.items()}, "sh": (n_sh, 1, 0)}
    sizes = [2 * int(np.prod(shape)) for shape in SHAPES.values()]
    sizes += [part for c, features, g in shapes.values() for part in (4 * (c + g), 2 * c * features)]
    try:
        plain = inflate(data, sum(sizes), window_bits=-15)
    except ValueError as error:
        raise ValueError(f"model: {error}") from error
    parts = iter(np.split(np.frombuffer(plain, np.uint8), np.cumsum(sizes)[:-1]))
    tables = {name: _from_differences(next(parts), shape) for name, shape in SHAPES.items()}
    if any(bool((np.abs(table) > 4 * STEP_COUNT).any()) for table in tables.values()):
        raise ValueError(f"model: expected steps within {4 * STEP_COUNT}")
    rules = {}
    for name, (n_columns, n_features, _) in shapes.items():
        means = np.frombuffer(next(parts).tobytes(), "<i4").astype(np.int32)
        factors = np.frombuffer(next(parts).tobytes(), "<i2").astype(np.int32)
        rules[name] = Rule(means, factors.reshape(n_columns, n_features))
    return StepTables(**tables), rules


def _by_differences(table: np.ndarray) -> bytes:
    return np.diff(table, axis=-1, prepend=0).astype("<i2").tobytes()


def _from_differences(part: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(part.tobytes(), "<i2").astype(np.int64).reshape(shape).cumsum(axis=-1)
