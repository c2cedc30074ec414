"""Centres and shapes of a field's radial bases as bytes: exact, or on a fine grid and with rounded shapes.

Exact: a chunk of nine float32 each, centre and shape, number by number, of each the lowest bytes of all bases first,
deflated. Rounded: centres are cells of a grid, coded as an octree, so that their order costs nothing; the rows of the
bases then stand in that order. Shapes are numbers of about nine bits.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scene3d.core.bases import RadialBases
from scene3d.core.errors import FormatError
from scene3d.core.fields import BASES, Field
from scene3d.io.entropy import decode_cells, encode_cells
from scene3d.io.field_cells import chunk_of, inflated
from scene3d.io.field_rows import pack_numbers, unpack_numbers
from scene3d.io.s3d_container import DAMAGED, Container
from scene3d.ops.radial_bases import listed

BASIS_NUMBERS, SHAPE_NUMBERS = 9, 6
# The grid of centres has 2^13 cells along each axis of the box.
DEPTH = 13
# Of numbers of shapes, in their root mean square; numbers on the diagonal are above 0.
SHAPE_LEVELS = 128
DIAGONAL = (0, 3, 5)
PLACES, BELOW, SHAPES = "bases.places", "bases.below", "bases.shapes"


def pack_bases(bases: RadialBases) -> bytes:
    """Every bit of them."""
    values = torch.cat([bases.centers, bases.shapes], dim=1).T.contiguous()
    planes = values.numpy().astype("<f4").view(np.uint8).reshape(BASIS_NUMBERS, -1, 4).transpose(0, 2, 1)
    return zlib.compress(planes.tobytes(), 9)


def unpack_bases(container: Container, count: int, path: Path) -> tuple[Tensor, Tensor]:
    """The inverse of pack_bases: centres [N, 3] and shapes [N, 6].

    Raises:
        FormatError: the chunk is not one of so many bases.
    """
    data = inflated(container, BASES, 4 * BASIS_NUMBERS * count, path)
    planes = np.frombuffer(data, np.uint8).reshape(BASIS_NUMBERS, 4, count)
    values = torch.from_numpy(np.ascontiguousarray(planes.transpose(0, 2, 1)).view("<f4")[..., 0].astype(np.float32))
    return values[:3].T.contiguous(), values[3:].T.contiguous()


def code_bases(field: Field) -> tuple[Field, dict[str, bytes]]:
    """The field as a reader sees its bases, their rows in the order of the file, and chunks; none where it has none."""
    if field.bases is None:
        return field, {}
    cells = (field.bases.centers * (1 << DEPTH)).floor().clamp(0, (1 << DEPTH) - 1).long()
    octree, below, order = encode_cells(cells.numpy(), DEPTH)
    taken = torch.from_numpy(order.astype(np.int64))
    columns = list(field.bases.shapes[taken].unbind(dim=1))
    steps = [float(v.square().mean().sqrt().clamp_min(1e-6)) / SHAPE_LEVELS for v in columns]
    for i in DIAGONAL:
        columns[i] = columns[i].clamp_min(steps[i])
    shapes = torch.stack([(v / step).round() * step for v, step in zip(columns, steps, strict=True)], dim=1)
    bases = listed((cells[taken].float() + 0.5) / (1 << DEPTH), shapes, field.bases.waves)
    factors = [
        value[taken].contiguous() if name == BASES else value
        for name, value in zip(field.names * 2, field.factors(), strict=True)
    ]
    chunks = {PLACES: octree, BELOW: below, SHAPES: pack_numbers(columns, steps)}
    return replace(field.with_factors(tuple(factors)), bases=bases), chunks


def unpack_coded_bases(container: Container, count: int, path: Path) -> tuple[Tensor, Tensor]:
    """What code_bases wrote: centres [N, 3] and shapes [N, 6].

    Raises:
        FormatError: chunks are not those of so many bases.
    """
    octree, below, numbers = (chunk_of(container, name, path) for name in (PLACES, BELOW, SHAPES))
    columns = unpack_numbers(numbers, [(count,)] * SHAPE_NUMBERS, SHAPES, path)
    try:
        cells = torch.from_numpy(decode_cells(octree, below, count, DEPTH))
    except ValueError as error:
        raise FormatError(path, f"bases: {error}", remedy=DAMAGED) from error
    return (cells.float() + 0.5) / (1 << DEPTH), torch.stack(columns, dim=1)
