"""Hash-grid fields as bytes: tables in 8-bit levels, layers as float16, both entropy coded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scene3d.core.errors import FormatError
from scene3d.io.entropy import decode_symbols, encode_symbols
from scene3d.io.s3d_container import DAMAGED
from scene3d.ops.hash_field import HIDDEN, HashField

TABLE_BITS = 8
# Levels on either side of 0; the lowest is not used, so that 0 is a level.
HALF_LEVELS = 2 ** (TABLE_BITS - 1) - 1
MAX_LEVELS, MAX_ROW_BITS, MAX_FEATURES = 32, 20, 8
# A row that costs less than this share of a byte is refused: then the size of a file bounds the memory it asks for.
ROWS_PER_BYTE = 4096


def pack_float16(values: Tensor) -> bytes:
    """Numbers as float16: first all high bytes, which hold sign and exponent and repeat, then all low bytes."""
    pairs = values.half().numpy().astype("<f2").reshape(-1).view(np.uint8).reshape(-1, 2)
    return encode_symbols(np.concatenate([pairs[:, 1], pairs[:, 0]]), 8)


def unpack_float16(data: bytes, n_values: int) -> Tensor:
    """The inverse of pack_float16. [n_values] float32"""
    symbols = decode_symbols(data, 2 * n_values, 8).astype(np.uint8)
    pairs = np.ascontiguousarray(np.stack([symbols[n_values:], symbols[:n_values]], axis=1))
    return torch.from_numpy(pairs.view("<f2").reshape(-1).astype(np.float32))


def round_field(field: HashField) -> HashField:
    """What a file gives back."""
    steps = _table_steps(field.tables)
    levels = _table_levels(field.tables, steps)
    return HashField(
        levels.float() * steps[:, None, None],
        tuple(layer.half().float() for layer in field.layers),
        field.center,
        field.scale,
        field.base,
        field.growth,
    )


def pack_field(field: HashField) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Chunks and facts of a field."""
    steps = _table_steps(field.tables)
    levels = _table_levels(field.tables, steps) + HALF_LEVELS
    chunks = {
        "field.tables": encode_symbols(levels.permute(0, 2, 1).reshape(-1).numpy(), TABLE_BITS),
        "field.layers": pack_float16(torch.cat([layer.reshape(-1) for layer in field.layers])),
    }
    facts = {
        "tables": list(field.tables.shape),
        "steps": steps.tolist(),
        "n_out": len(field.layers[-1]),
        "center": field.center.tolist(),
        "scale": field.scale,
        "base": field.base,
        "growth": field.growth,
    }
    return chunks, facts


def unpack_field(chunks: dict[str, bytes], facts: Any, n_out: int, path: Path) -> HashField:
    """The inverse of pack_field.

    Raises:
        FormatError: a size or number is not what pack_field writes.
    """
    if not isinstance(facts, dict) or not all(f"field.{part}" in chunks for part in ("tables", "layers")):
        raise FormatError(path, f"field: expected its facts and chunks, got {str(facts)[:60]}", remedy=DAMAGED)
    shape = _shape(facts.get("tables"), len(chunks["field.tables"]), path)
    steps, center = (_numbers(facts.get(key), n, key, path) for key, n in (("steps", shape[0]), ("center", 3)))
    scale, growth = (float(_numbers([facts.get(key)], 1, key, path)[0]) for key in ("scale", "growth"))
    base = facts.get("base")
    if facts.get("n_out") != n_out or not scale > 0 or not 1 <= growth <= 4 or not isinstance(base, int):
        raise FormatError(path, "field: its sizes are none", remedy=DAMAGED)
    if not 1 <= base * growth ** (shape[0] - 1) <= 2**20:
        raise FormatError(path, f"field: its finest grid has {base * growth ** (shape[0] - 1):g} cells", remedy=DAMAGED)
    levels = torch.from_numpy(decode_symbols(chunks["field.tables"], math.prod(shape), TABLE_BITS)) - HALF_LEVELS
    tables = levels.view(shape[0], shape[2], shape[1]).permute(0, 2, 1).float() * steps[:, None, None]
    sizes = [
        s for n_in, n in ((shape[0] * shape[2], HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, n_out)) for s in ((n_in, n), (n,))
    ]
    flat = unpack_float16(chunks["field.layers"], sum(math.prod(size) for size in sizes))
    parts = flat.split([math.prod(size) for size in sizes])
    layers = tuple(part.reshape(size) for part, size in zip(parts, sizes, strict=True))
    return HashField(tables.contiguous(), layers, center, scale, base, growth)


def _table_steps(tables: Tensor) -> Tensor:  # [L]
    return (tables.abs().amax(dim=(1, 2)) / HALF_LEVELS).clamp_min(1e-12)


def _table_levels(tables: Tensor, steps: Tensor) -> Tensor:  # int64
    return (tables / steps[:, None, None]).round().clamp(-HALF_LEVELS, HALF_LEVELS).long()


def _shape(value: Any, n_bytes: int, path: Path) -> tuple[int, int, int]:
    limits = (MAX_LEVELS, 1 << MAX_ROW_BITS, MAX_FEATURES)
    is_sound = isinstance(value, list) and len(value) == 3 and all(isinstance(v, int) for v in value)
    if (
        not is_sound
        or not all(1 <= v <= limit for v, limit in zip(value, limits, strict=True))
        or value[1] & (value[1] - 1)
    ):
        raise FormatError(path, f"field: expected a shape up to {limits}, got {str(value)[:60]}", remedy=DAMAGED)
    if math.prod(value) > ROWS_PER_BYTE * (n_bytes + 16):
        raise FormatError(path, f"field: {math.prod(value)} numbers in {n_bytes} bytes are too many", remedy=DAMAGED)
    return value[0], value[1], value[2]


def _numbers(value: Any, count: int, name: str, path: Path) -> Tensor:
    is_sound = isinstance(value, list) and len(value) == count
    if not is_sound or not all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value
    ):
        raise FormatError(path, f"{name}: expected {count} finite numbers, got {str(value)[:60]}", remedy=DAMAGED)
    return torch.tensor(value, dtype=torch.float64).float()
