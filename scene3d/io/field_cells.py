"""Chunks of fields: those that must be there, deflated ones, and cells of grids that hold something or not."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scene3d.core.errors import FormatError
from scene3d.core.fields import Field
from scene3d.io.binary import inflate
from scene3d.io.entropy import decode_layers, encode_layers
from scene3d.io.s3d_container import DAMAGED, Container

MAX_CELLS = 1 << 30
CELLS = "cells"
# Cells that follow from others cost a hundredth of a bit.
CELLS_PER_BYTE, FREE_CELLS = 2048, 1 << 24


def chunk_of(container: Container, name: str, path: Path) -> bytes:
    """A chunk that must be there.

    Raises:
        FormatError: it is not.
    """
    if name not in container.chunks:
        raise FormatError(path, f"the chunk {name!r} is missing", remedy=DAMAGED)
    return container.chunks[name]


def packed_cells(field: Field) -> dict[str, bytes]:
    """Occupied cells seen from their neighbours: a third of what deflating them takes. Nothing where all are."""
    if field.occupancy is None:
        return {}
    layers = field.occupancy.reshape(len(field.occupancy), -1).numpy()
    return {CELLS: encode_layers(layers, _cells_above(list(field.occupancy.shape)), 1)}


def _cells_above(shape: list[int]) -> np.ndarray:
    """The cell in the row before, of those of a layer. [Y X]"""
    _, rows, columns = shape
    return np.maximum(np.arange(rows * columns, dtype=np.int32) - columns, -1)


def unpack_coded_cells(container: Container, name: str, shape: list[int], path: Path) -> Tensor:
    """The inverse of packed_cells. [Z, Y, X] bool

    Raises:
        FormatError: there are too few bytes for so many cells.
    """
    n, data = math.prod(shape), chunk_of(container, name, path)
    if n > min(CELLS_PER_BYTE * len(data) + FREE_CELLS, MAX_CELLS):
        raise FormatError(path, f"says {n:,} cells of {name!r}, but has not the bytes for them", remedy=DAMAGED)
    found = decode_layers(data, shape[0], _cells_above(shape), 1)
    return torch.from_numpy(found.astype(bool)).reshape(shape)


def pack_cells(cells: Tensor) -> bytes:
    return zlib.compress(np.packbits(cells.cpu().numpy().reshape(-1), bitorder="little").tobytes(), 9)


def unpack_cells(container: Container, name: str, shape: list[int], path: Path) -> Tensor:  # [Z, Y, X] bool
    n = shape[0] * shape[1] * shape[2]
    if n > MAX_CELLS:
        raise FormatError(path, f"says {n:,} cells of {name!r}, expected at most {MAX_CELLS:,}", remedy=DAMAGED)
    data = inflated(container, name, (n + 7) // 8, path)
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=n, bitorder="little")
    return torch.from_numpy(bits.astype(bool).reshape(shape))


def inflated(container: Container, name: str, n_bytes: int, path: Path) -> bytes:
    data = chunk_of(container, name, path)
    try:
        return inflate(data, n_bytes)
    except ValueError as error:
        raise FormatError(path, f"the chunk {name!r}: {error}", remedy=DAMAGED) from error
