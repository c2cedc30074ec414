"""Entropy coding for codecs: symbols, cells of a grid, raw bits. Native, adaptive, the same bytes on every machine.

The decoders never read beyond their bytes: damaged ones give other numbers, of the same count and within their limits.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch

from scene3d.core.errors import BackendUnavailable
from scene3d.ops import morton

try:
    from scene3d import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]

MAX_SYMBOL_BITS = 16
MAX_CELL_BITS = 20


def encode_symbols(symbols: np.ndarray, n_bits: int) -> bytes:
    """Code whole numbers in the contexts of the two before.

    Args:
        symbols: 0 to 2^n_bits - 1. [N]
        n_bits: 1 to 16.
    """
    values = np.array(symbols, np.int32)
    if len(values) and not (values.min() >= 0 and int(values.max()) >> n_bits == 0):
        raise ValueError(f"symbols: expected 0 to {2**n_bits - 1}, got {values.min()} to {values.max()}")
    return _native().encode_symbols(values, n_bits)


def decode_symbols(data: bytes, n: int, n_bits: int) -> np.ndarray:
    """The inverse of encode_symbols. [N] int32"""
    values = np.zeros(n, np.int32)
    _native().decode_symbols(data, values, n_bits)
    return values


def encode_layers(symbols: np.ndarray, above: np.ndarray, n_bits: int) -> bytes:
    """Code layers of numbers over the same places, signs folded into the lowest bit (0, -1, 1, -2 ...).

    Args:
        symbols: 0 to 2^n_bits - 1. [L, N]
        above: Of each place an earlier one where numbers are likely to be similar; -1: none. [N]
        n_bits: 1 to 16.
    """
    values = np.array(symbols, np.int32, order="C")
    if values.size and not (values.min() >= 0 and int(values.max()) >> n_bits == 0):
        raise ValueError(f"symbols: expected 0 to {2**n_bits - 1}, got {values.min()} to {values.max()}")
    return _native().encode_layers(values, _places(above), n_bits)


def decode_layers(data: bytes, n_layers: int, above: np.ndarray, n_bits: int) -> np.ndarray:
    """The inverse of encode_layers. [L, N] int32"""
    values = np.zeros((n_layers, len(above)), np.int32)
    _native().decode_layers(data, values, _places(above), n_bits)
    return values


def encode_refined(fine: np.ndarray, coarse: np.ndarray, above: np.ndarray) -> bytes:
    """Code layers of numbers of which a third is known, rounded.

    Args:
        fine: Three times the coarse numbers, one more or one less. [L, N]
        coarse: What a decoder knows. [L, N]
        above: As of encode_layers. [N]
    """
    values = np.array(fine, np.int32, order="C")
    return _native().encode_refined(values, np.ascontiguousarray(coarse, np.int32), _places(above))


def decode_refined(data: bytes, coarse: np.ndarray, above: np.ndarray) -> np.ndarray:
    """The inverse of encode_refined. [L, N] int32"""
    known = np.ascontiguousarray(coarse, np.int32)
    fine = np.zeros_like(known)
    _native().decode_refined(data, fine, known, _places(above))
    return fine


def encode_cells(cells: np.ndarray, depth: int) -> tuple[bytes, bytes, np.ndarray]:
    """Code cells of a grid of 2^depth a side as an octree: their order costs nothing.

    Args:
        cells: Three coordinates each; several may be the same. [N, 3]
        depth: 0 to 20.

    Returns:
        The octree, the bits below its leaves, and the rows of `cells` in the order of decoding [N].
    """
    values = np.asarray(cells, np.int64)
    if len(values) and not (values.min() >= 0 and int(values.max()) >> depth == 0):
        raise ValueError(f"cells: expected 0 to {2**depth - 1}, got {values.min()} to {values.max()}")
    codes = morton.interleave(torch.from_numpy(values)).numpy().astype(np.uint64)
    order = np.argsort(codes, kind="stable")
    levels = np.zeros(len(codes), np.uint8)
    octree = _native().encode_octree(codes[order], depth, levels)
    n_left = np.repeat((depth - levels).astype(np.uint8), 3)
    below = values[order].reshape(-1) & ((1 << n_left.astype(np.int64)) - 1)
    return octree, _native().encode_raw(below.astype(np.uint32), n_left), order


def decode_cells(octree: bytes, below: bytes, n: int, depth: int) -> np.ndarray:
    """The inverse of encode_cells. [N, 3] int64

    Raises:
        ValueError: the octree holds another number of cells.
    """
    keys, levels = np.zeros(n, np.uint64), np.zeros(n, np.uint8)
    if not _native().decode_octree(octree, depth, keys, levels):
        raise ValueError(f"cells: expected {n}, the octree holds another number")
    n_left = np.repeat((depth - levels).astype(np.uint8), 3)
    inside = np.zeros(3 * n, np.uint32)
    _native().decode_raw(below, inside, n_left)
    return morton.deinterleave(torch.from_numpy(keys.astype(np.int64))).numpy() + inside.reshape(n, 3)


def _places(above: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(above, np.int32)


def _native() -> ModuleType:
    if _cpu is None:
        reason = "the native module is not built"
        raise BackendUnavailable("entropy coding", reason, "Install scene3d with its native code: pip install .")
    return _cpu
