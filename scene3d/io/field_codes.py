"""Radiance fields of planes and lines (vm, rbf) in the .s3d container with codebooks for what is hardly seen (VQRF).

A node of a plane of colour is empty, a code of the plane's codebook, or a row of its own, by how much it is seen. Rows
and codebooks are rounded as in field_steps, rows in steps that are the coarser the less they are seen, and come in the
same order: a file that ends early gives a coarser field.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scene3d.core.errors import FormatError
from scene3d.core.fields import FACTORS, Field
from scene3d.core.scene import Scene
from scene3d.io import entropy, field_codec
from scene3d.io.field_bases import code_bases
from scene3d.io.field_cells import chunk_of, packed_cells
from scene3d.io.field_heads import Head
from scene3d.io.field_places import Places, rows_above, used_nodes
from scene3d.io.field_rows import RowReader, RowWriter
from scene3d.io.field_steps import (
    N_FINER,
    Steps,
    by_mode,
    end_early,
    group_of,
    pack_decoder,
    pack_heads,
    rank_steps,
    read_decoder,
)
from scene3d.io.s3d_container import DAMAGED, Container

CODEC = "field-codes-3"
CODED_KINDS = ("vm", "rbf")
# Classes of nodes; from ROW on, rows whose steps grow by the square root of 2 from class to class.
EMPTY, CODE, ROW = 0, 1, 2
CLASS_BITS = 3
LAST_ROW = 2**CLASS_BITS - 1
MAX_CODES = 1 << 12
NUMBERS_PER_BYTE = 512
FREE_NUMBERS = 1 << 22


@dataclass(frozen=True)
class CodedPlane:
    """How the nodes of a plane of colour are kept.

    Attributes:
        classes: EMPTY, CODE, or ROW to LAST_ROW, of each node that occupied cells touch. [U] int64
        labels: Codes of those of the class CODE. [M] int64
        book: Their values. [K, R]
    """

    classes: Tensor
    labels: Tensor
    book: Tensor

    @property
    def is_row(self) -> Tensor:
        """Which nodes have a row of their own. [U] bool"""
        return self.classes >= ROW

    @property
    def coarseness(self) -> Tensor:
        """Steps of rows, in steps of their ranks. [rows]"""
        return 2 ** ((self.classes[self.is_row] - ROW) / 2)


def encode_codes(scene: Scene, planes: tuple[CodedPlane, ...], steps: Steps, heads: tuple[Head, ...] = ()) -> Container:
    """The container of a vm or rbf field whose ranks are in order.

    Args:
        scene: Holds the field.
        planes: Of colour: xy, xz, yz.
        steps: How coarsely to round.
        heads: What is shown where the file ends early.
    """
    field, bases = code_bases(scene.field().detach().to("cpu", torch.float32))
    plain = field_codec.encode_field(scene)
    gains, written = field.decoder.basis.norm(dim=1), RowWriter(N_FINER)
    more, facts = pack_heads(heads)
    chunks = {"decoder": pack_decoder(field.decoder), **more, **packed_cells(field), **bases}
    names = FACTORS[field.kind]
    for i, (name, value) in enumerate(zip(names, field.density, strict=True)):
        places = Places.of(name, value.shape[:-1], field.occupancy, ())
        per_rank = rank_steps(field, field.density, i, None, steps.density)
        written.add(f"density_{name}", value[places.used], per_rank, places.above)
    for name, plane in zip(names, planes, strict=False):
        chunks[f"classes_{name}"] = entropy.encode_symbols(plane.classes.numpy(), CLASS_BITS)
        n_bits = _label_bits(len(plane.book))
        chunks[f"labels_{name}"] = entropy.encode_symbols(plane.labels.numpy(), n_bits)
    group = group_of(field.kind, field.ranks[1])
    for start in range(0, field.ranks[1], group):
        ranks = slice(start, start + group)
        for i in by_mode(field.kind, 0):
            name, value = names[i], field.color[i]
            per_rank = rank_steps(field, field.color, i, gains, steps.color)[ranks]
            rows, above = value.reshape(-1, value.shape[-1]), np.full(len(value), -1, np.int32)
            if i < 3:
                used = used_nodes(field.occupancy, value.shape[:-1], name)
                rows = torch.cat([planes[i].book, value[used][planes[i].is_row] / planes[i].coarseness[:, None]])
                above = _above_rows(used, planes[i])
            written.add(f"color_{name}_{start}", rows[:, ranks], per_rank, above, field.ranks[1] - start)
    chunks.update(written.chunks())
    meta = {**plain.meta, **written.meta(), **facts, "codes": [len(plane.book) for plane in planes], "ends_early": True}
    return replace(plain, codec=CODEC, chunks=chunks, n_items=0, meta=meta)


def decode_codes(container: Container, path: Path) -> Field:
    """The field of a container; with fewer ranks of colour where the last chunks are missing.

    Raises:
        FormatError: a size is out of range or does not agree with the bytes that are there.
    """
    layout = field_codec.read_layout(container, path)
    rows, codes = RowReader(container, path), container.meta.get("codes")
    if layout.kind not in CODED_KINDS:
        raise FormatError(path, f"expected a vm or rbf field, got {layout.kind}", remedy=DAMAGED)
    n_numbers = sum(int(np.prod(shape, dtype=np.int64)) for _, _, shape in layout.factors())
    if n_numbers > NUMBERS_PER_BYTE * sum(map(len, container.chunks.values())) + FREE_NUMBERS:
        raise FormatError(path, f"says {n_numbers:,} numbers, but has not the bytes for them", remedy=DAMAGED)
    density, color = [], []
    planes = iter(_read_planes(container, layout, codes, path))
    missing = 0
    for label, name, shape in layout.factors():
        used = used_nodes(layout.occupancy, torch.Size(shape[:-1]), name)
        value = torch.zeros(shape)
        if label == "density":
            above = Places.of(name, used.shape, layout.occupancy, ()).above
            value[used] = rows.read(f"density_{name}", shape[-1], above)
            density.append(value)
            continue
        plane = next(planes) if len(name) == 2 else None
        missing = max(missing, _read_color(value, used, plane, name, rows))
        color.append(value)
    field = layout.field((*density, *color), read_decoder(container, layout.decoder_shapes(), path))
    return end_early(field, missing, rows, container, path)


def _read_color(value: Tensor, used: Tensor, plane: CodedPlane | None, name: str, chunks: RowReader) -> int:
    """Fill a factor of colour; returns how many of its ranks are not there."""
    above = np.full(int(used.sum()), -1, np.int32) if plane is None else _above_rows(used, plane)
    group = group_of("vm", value.shape[-1])
    for start in range(0, value.shape[-1], group):
        key = f"color_{name}_{start}"
        if start > 0 and not chunks.has(key):
            return value.shape[-1] - start
        stop = min(start + group, value.shape[-1])
        n_codes = 0 if plane is None else len(plane.book)
        rows = chunks.read(key, stop - start, above)
        if plane is None:
            value[used, start:stop] = rows
            continue
        shown = torch.zeros(len(plane.classes), stop - start)
        shown[plane.classes == CODE] = rows[:n_codes][plane.labels]
        shown[plane.is_row] = rows[n_codes:] * plane.coarseness[:, None]
        value[used, start:stop] = shown
    return 0


def _read_planes(container: Container, layout: field_codec.Layout, codes: Any, path: Path) -> list[CodedPlane]:
    if not isinstance(codes, list) or len(codes) != 3 or not all(isinstance(n, int) for n in codes):
        raise FormatError(path, f"codes: expected three numbers, got {str(codes)[:60]}", remedy=DAMAGED)
    planes = []
    for (_, name, shape), n_codes in zip(layout.factors()[:3], codes, strict=True):
        if not 0 <= n_codes <= MAX_CODES:
            raise FormatError(path, f"codes: expected 0 to {MAX_CODES}, got {n_codes}", remedy=DAMAGED)
        n_used = int(used_nodes(layout.occupancy, torch.Size(shape[:-1]), name).sum())
        data = [chunk_of(container, f"{part}_{name}", path) for part in ("classes", "labels")]
        classes = torch.from_numpy(entropy.decode_symbols(data[0], n_used, CLASS_BITS)).long()
        labels = entropy.decode_symbols(data[1], int((classes == CODE).sum()), _label_bits(n_codes))
        found = torch.from_numpy(labels).long()
        if len(found) and int(found.max()) >= n_codes:
            raise FormatError(path, f"labels: expected less than {n_codes}, got {int(found.max())}", remedy=DAMAGED)
        planes.append(CodedPlane(classes, found, torch.zeros(n_codes, 0)))
    return planes


def _above_rows(used: Tensor, plane: CodedPlane) -> np.ndarray:
    """Places beside those of the rows of a plane's codebook, which has none, and then of its nodes."""
    with_row = used.numpy().copy()
    with_row[with_row] = plane.is_row.numpy()
    beside, n_codes = rows_above(with_row), len(plane.book)
    return np.concatenate([np.full(n_codes, -1), np.where(beside < 0, -1, beside + n_codes)]).astype(np.int32)


def _label_bits(n_codes: int) -> int:
    return max(1, (n_codes - 1).bit_length())
