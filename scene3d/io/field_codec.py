"""Radiance fields in the .s3d container, without loss: float32 factors, decoder and the bits of occupied cells.

One chunk per factor, named as in scene3d.core.fields (density_xy ... color_x), one for the decoder (its tensors one
after the other), one for occupancy (8 cells a byte, x fastest, lowest bit first, deflated), and likewise one for the
cubes of each level that hold a leaf (leaves0, leaves1). Centres and shapes of radial bases are one chunk too: number
by number, of each the lowest bytes of all bases first, deflated. Sizes, and the cells of hash grids, are in the header.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from scene3d.core.bases import RadialBases
from scene3d.core.errors import FormatError
from scene3d.core.fields import (
    BASES,
    DIRECTION_TERMS,
    FACTORS,
    FIELD_KINDS,
    HARMONIC_FEATURES,
    MAX_LEVELS,
    NETWORK_KINDS,
    Decoder,
    Field,
    FieldKind,
    LeafLevel,
    Shading,
    decoder_of,
    n_modes,
    network_rows,
)
from scene3d.core.hash_grid import MAX_HASH_LEVELS, MAX_ROW_BITS, HashGrid
from scene3d.core.scene import Scene
from scene3d.core.warp import WARP_KINDS, Warp
from scene3d.io.field_bases import pack_bases, unpack_bases, unpack_coded_bases
from scene3d.io.field_cells import CELLS, chunk_of, pack_cells, unpack_cells, unpack_coded_cells
from scene3d.io.s3d_container import DAMAGED, Container
from scene3d.ops.radial_bases import listed

CODEC = "field-float32"
KIND = "field"
MAX_NODES, MAX_WIDTH = 1 << 14, 1 << 12
MAX_BASES = 1 << 20


def encode_field(scene: Scene) -> Container:
    """The container of a scene that holds a field; every bit comes back."""
    field = scene.field().detach().to("cpu", torch.float32)
    names = field.names
    chunks = {}
    for label, factors in (("density", field.density), ("color", field.color)):
        chunks.update({f"{label}_{name}": _bytes(value) for name, value in zip(names, factors, strict=True)})
    chunks["decoder"] = b"".join(_bytes(value) for value in field.decoder.tensors())
    shape: list[int] | None = None
    if field.occupancy is not None:
        shape = list(field.occupancy.shape)
        chunks["occupancy"] = pack_cells(field.occupancy)
    chunks.update({f"leaves{i}": pack_cells(level.taken) for i, level in enumerate(field.levels)})
    meta: dict[str, Any] = {
        "kind": field.kind,
        "nodes": list(field.resolution),
        "ranks": list(field.ranks),
        "features": field.decoder.basis.shape[1],
        "hidden": [weights.shape[1] for weights in field.decoder.weights[:2]],
        "box": field.box.double().tolist(),
        "density_scale": field.density_scale,
        "density_shift": field.density_shift,
        "step": field.step,
        "cells": shape,
    }
    if field.shading != "deferred":
        meta["shading"] = field.shading
    if field.warp is not None:
        matrix = field.warp.frame_from_world.double().flatten().tolist()
        meta["warp"] = {"kind": field.warp.kind, "frame_from_world": matrix}
    if field.levels:
        meta["levels"] = [
            {"cubes": list(level.taken.shape), "nodes": level.nodes, "is_shifted": level.is_shifted}
            for level in field.levels
        ]
    if field.bases is not None:
        meta["bases"] = {"count": len(field.bases), "waves": list(field.bases.waves)}
        chunks[BASES] = pack_bases(field.bases)
    if field.grid is not None:
        meta["grid"] = {"cells": [list(cells) for cells in field.grid.cells], "row_bits": field.grid.row_bits}
    return Container(KIND, CODEC, field.n_numbers, chunks, scene.info, meta)


@dataclass(frozen=True)
class Layout:
    """What the header says about a field, checked.

    Attributes:
        kind: How it is factored.
        nodes: Along each axis.
        ranks: Of density and of colour.
        features: That the decoder takes.
        hidden: Widths of its layers; none of harmonics.
        box: [2, 3]
        numbers: density_scale, density_shift and step.
        occupancy: [Z, Y, X] bool
        path: For the texts of errors.
        levels: Of leaves.
        bases: Of rbf.
        warp: Of the world to the frame of the box.
        shading: By pixels or samples.
        grid: Of hash.
    """

    kind: FieldKind
    nodes: dict[str, int]
    ranks: list[int]
    features: int
    hidden: list[int]
    box: Tensor
    numbers: dict[str, float]
    occupancy: Tensor | None
    path: Path
    levels: tuple[LeafLevel, ...] = ()
    bases: RadialBases | None = None
    warp: Warp | None = None
    shading: Shading = "deferred"
    grid: HashGrid | None = None

    def factors(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Label, name and shape of each factor, in the order of Field.factors()."""
        n_bases = 0 if self.bases is None else len(self.bases)
        if self.kind in NETWORK_KINDS:
            return [
                (label, name, (network_rows(name, rank, self.grid), rank))
                for label, rank in zip(("density", "color"), self.ranks, strict=True)
                for name in FACTORS[self.kind]
            ]
        if self.kind == "trivec":
            shapes: dict[str, tuple[int, ...]] = {
                f"{axis}{i}": (level.n_leaves, level.nodes) for i, level in enumerate(self.levels) for axis in "xyz"
            }
        else:
            names = FACTORS[self.kind]
            planes = {name: tuple(self.nodes[axis] for axis in reversed(name)) for name in names if name != BASES}
            shapes = planes | {name: (n_bases,) for name in names if name == BASES}
        return [
            (label, name, (*shape, rank))
            for label, rank in zip(("density", "color"), self.ranks, strict=True)
            for name, shape in shapes.items()
        ]

    def decoder_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of Decoder.tensors()."""
        n_sums = self.ranks[1] * n_modes(self.kind, len(self.levels))
        if not self.hidden and self.features != HARMONIC_FEATURES:
            words = f"expected {HARMONIC_FEATURES} features of a decoder without layers, got {self.features}"
            raise FormatError(self.path, words, remedy=DAMAGED)
        if not self.hidden:
            return [(n_sums, self.features)]
        first, second = self.hidden
        inputs = 5 * self.features + DIRECTION_TERMS
        return [(n_sums, self.features), (inputs, first), (first, second), (second, 3), (first,), (second,), (3,)]

    def field(self, factors: tuple[Tensor, ...], decoder: Decoder) -> Field:
        """The field of these values.

        Raises:
            FormatError: they are not those of a field.
        """
        n = len(factors) // 2
        try:
            return Field(
                kind=self.kind,
                box=self.box,
                density=factors[:n],
                color=factors[n:],
                decoder=decoder,
                occupancy=self.occupancy,
                levels=self.levels,
                bases=self.bases,
                warp=self.warp,
                shading=self.shading,
                grid=self.grid,
                density_scale=self.numbers["density_scale"],
                density_shift=self.numbers["density_shift"],
                step=self.numbers["step"],
            )
        except ValueError as error:
            raise FormatError(self.path, str(error), remedy=DAMAGED) from error


def read_layout(container: Container, path: Path) -> Layout:
    """Read and check the header of a field.

    Raises:
        FormatError: a size is out of range.
    """
    meta = _Meta(container.meta, path)
    kind = container.meta.get("kind")
    if kind not in FIELD_KINDS:
        raise FormatError(path, f"holds a field of the kind {kind!r}, expected one of {', '.join(FIELD_KINDS)}")
    return Layout(
        kind,
        dict(zip("xyz", meta.integers("nodes", 3, MAX_NODES), strict=True)),
        meta.integers("ranks", 2, MAX_WIDTH),
        meta.integer("features", MAX_WIDTH),
        [] if container.meta.get("hidden") == [] else meta.integers("hidden", 2, MAX_WIDTH),
        torch.tensor(meta.numbers("box"), dtype=torch.float32).reshape(2, 3),
        {name: meta.number(name) for name in ("density_scale", "density_shift", "step")},
        _occupancy(container, meta, path),
        path,
        _levels(container, path) if kind == "trivec" else (),
        _bases(container, path) if kind == "rbf" else None,
        _warp(container, path),
        container.meta.get("shading", "deferred"),
        _grid(container, path) if kind == "hash" else None,
    )


def decode_field(container: Container, path: Path) -> Field:
    """The field of a container.

    Raises:
        FormatError: a size is out of range or does not agree with the bytes that are there.
    """
    layout = read_layout(container, path)
    factors = [_tensors(container, f"{label}_{name}", [shape], path)[0] for label, name, shape in layout.factors()]
    return layout.field(tuple(factors), decoder_of(_tensors(container, "decoder", layout.decoder_shapes(), path)))


def _occupancy(container: Container, meta: _Meta, path: Path) -> Tensor | None:
    if container.meta.get("cells") is None:
        return None
    shape = meta.integers("cells", 3, MAX_NODES)
    if container.codec == CODEC:
        return unpack_cells(container, "occupancy", shape, path)
    return unpack_coded_cells(container, CELLS, shape, path)


def _warp(container: Container, path: Path) -> Warp | None:
    table = container.meta.get("warp")
    if table is None:
        return None
    kind, numbers = (table.get("kind"), table.get("frame_from_world")) if isinstance(table, dict) else (None, None)
    is_matrix = isinstance(numbers, list) and len(numbers) == 12 and all(map(_is_number, numbers))
    if kind not in WARP_KINDS or not is_matrix:
        words = f"expected a kind ({' or '.join(WARP_KINDS)}) and 12 numbers"
        raise FormatError(path, f"warp: {words}, got {str(table)[:80]}", remedy=DAMAGED)
    try:
        return Warp(kind, torch.tensor(numbers, dtype=torch.float32).reshape(3, 4))
    except ValueError as error:
        raise FormatError(path, f"warp: {error}", remedy=DAMAGED) from error


def _grid(container: Container, path: Path) -> HashGrid:
    row = container.meta.get("grid")
    cells = row.get("cells") if isinstance(row, dict) else None
    if not isinstance(row, dict) or not isinstance(cells, list) or not 1 <= len(cells) <= MAX_HASH_LEVELS:
        raise FormatError(path, f"grid: expected 1 to {MAX_HASH_LEVELS} levels, got {str(row)[:80]}", remedy=DAMAGED)
    levels = [_Meta({"cells": level}, path).integers("cells", 3, MAX_NODES) for level in cells]
    try:
        return HashGrid(tuple((x, y, z) for x, y, z in levels), _Meta(row, path).integer("row_bits", MAX_ROW_BITS))
    except ValueError as error:
        raise FormatError(path, f"grid: {error}", remedy=DAMAGED) from error


def _levels(container: Container, path: Path) -> tuple[LeafLevel, ...]:
    rows = container.meta.get("levels")
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_LEVELS or not all(isinstance(row, dict) for row in rows):
        raise FormatError(path, f"levels: expected 1 to {MAX_LEVELS} tables, got {rows!r}", remedy=DAMAGED)
    levels = []
    for i, row in enumerate(rows):
        meta, is_shifted = _Meta(row, path), row.get("is_shifted")
        if not isinstance(is_shifted, bool):
            raise FormatError(path, f"is_shifted: expected true or false, got {is_shifted!r}", remedy=DAMAGED)
        taken = unpack_cells(container, f"leaves{i}", meta.integers("cubes", 3, MAX_NODES), path)
        try:
            levels.append(LeafLevel(taken, meta.integer("nodes", MAX_NODES), is_shifted))
        except ValueError as error:
            raise FormatError(path, str(error), remedy=DAMAGED) from error
    return tuple(levels)


def _bases(container: Container, path: Path) -> RadialBases:
    row = container.meta.get(BASES)
    if not isinstance(row, dict):
        raise FormatError(path, f"bases: expected a table, got {row!r}", remedy=DAMAGED)
    meta = _Meta(row, path)
    count, waves = meta.integer("count", MAX_BASES), meta.values("waves", 2)
    unpack = unpack_bases if container.codec == CODEC else unpack_coded_bases
    centers, shapes = unpack(container, count, path)
    try:
        return listed(centers, shapes, (waves[0], waves[1]))
    except ValueError as error:
        raise FormatError(path, str(error), remedy=DAMAGED) from error


def _bytes(value: Tensor) -> bytes:
    return value.contiguous().numpy().astype("<f4").tobytes()


def _tensors(container: Container, name: str, shapes: list[tuple[int, ...]], path: Path) -> list[Tensor]:
    """Tensors of these shapes, one after the other in a chunk."""
    data = chunk_of(container, name, path)
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
    if len(data) != 4 * sum(sizes):
        raise FormatError(path, f"expected {4 * sum(sizes)} bytes of {name!r}, got {len(data)}", remedy=DAMAGED)
    values = torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32))
    return [part.reshape(shape).clone() for part, shape in zip(values.split(sizes), shapes, strict=True)]


class _Meta:
    """Numbers of the header, checked."""

    def __init__(self, values: dict[str, Any], path: Path) -> None:
        self._values, self._path = values, path

    def number(self, name: str) -> float:
        value = self._values.get(name)
        if not _is_number(value):
            raise self._wrong(name, "a number", value)
        return float(value)

    def integer(self, name: str, most: int, value: Any = None) -> int:
        value = self._values.get(name) if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise self._wrong(name, f"1 to {most}", value)
        return value

    def integers(self, name: str, count: int, most: int) -> list[int]:
        values = self._values.get(name)
        if not isinstance(values, list) or len(values) != count:
            raise self._wrong(name, f"{count} integers", values)
        return [self.integer(name, most, value) for value in values]

    def values(self, name: str, count: int) -> list[float]:
        values = self._values.get(name)
        if isinstance(values, list) and len(values) == count and all(isinstance(v, (int, float)) for v in values):
            return [float(v) for v in values]
        raise self._wrong(name, f"{count} numbers", values)

    def numbers(self, name: str) -> list[float]:
        """Six numbers in two rows."""
        rows = self._values.get(name)
        flat = [v for row in rows for v in row] if isinstance(rows, list) and all(map(_is_list, rows)) else None
        if flat is None or len(flat) != 6 or not all(map(_is_number, flat)):
            raise self._wrong(name, "two corners", rows)
        return [float(v) for v in flat]

    def _wrong(self, name: str, expected: str, value: Any) -> FormatError:
        return FormatError(self._path, f"{name}: expected {expected}, got {value!r}", remedy=DAMAGED)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30


def _is_list(value: Any) -> bool:
    return isinstance(value, list)
