"""Radiance fields in the .s3d container, rounded: a step per rank, adaptive entropy coding, nothing where no matter is.

A factor is divided by the steps of its ranks, rounded, and coded rank by rank along its nodes. Of planes only nodes of
occupied cells are coded; the others are 0. Which those are follows from the occupancy, in whole numbers. Numbers come
three times as coarsely first, ranks of colour in groups, the strongest first, and then, in the second part of the file,
what makes them finer, where it costs least first (see field_rows). A file that ends early gives a field that is rounded
more coarsely, or, where not even the first part is whole, one of fewer ranks of colour and with a head for those.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scene3d.core.errors import FormatError
from scene3d.core.fields import (
    BASES,
    FACTORS,
    NETWORK_KINDS,
    TABLE,
    VM_FACTORS,
    Decoder,
    Field,
    FieldKind,
    decoder_of,
)
from scene3d.core.scene import Scene
from scene3d.io import field_codec
from scene3d.io.field_bases import code_bases
from scene3d.io.field_cells import chunk_of, packed_cells
from scene3d.io.field_heads import HEAD_STEP, Head, head_of, with_head
from scene3d.io.field_places import Places
from scene3d.io.field_rows import RowReader, RowWriter, pack_numbers, unpack_numbers
from scene3d.io.s3d_container import DAMAGED, Container

CODEC = "field-passes"
LEAST_GROUP, MAX_GROUPS = 8, 6
# Passes that make numbers finer.
N_FINER = 1
# Lines are few: they are rounded so much finer than planes.
LINE_FINENESS = 8.0
# Of layers of networks, on either side of 0.
LAYER_LEVELS = 1 << 14
SMALLEST_STEP = 1e-6
# Of numbers of the decoder's layers, in their root mean square.
DECODER_LEVELS = 64
HEADS = "heads"
# Zeros cost a hundredth of a bit.
NUMBERS_PER_BYTE = 512
FREE_NUMBERS = 1 << 22

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Steps:
    """How coarsely to round: the error of the density feature and of a decoder feature that one factor may make."""

    density: float
    color: float


def encode_steps(scene: Scene, steps: Steps, heads: tuple[Head, ...] = ()) -> Container:
    """The container of a scene that holds a field, rounded.

    Args:
        scene: Holds the field.
        steps: How coarsely to round.
        heads: What is shown where the file ends early; ranks of colour are in order then.
    """
    field = balanced(scene.field().detach().to("cpu", torch.float32))
    field, bases = code_bases(field if heads else strongest_first(field))
    plain = field_codec.encode_field(scene)
    names, rows = field.names, RowWriter(0 if field.has_network else N_FINER)
    coded = ("density_", "color_", "occupancy", BASES)
    chunks = {key: data for key, data in plain.chunks.items() if not key.startswith(coded)}
    more, facts = pack_heads(heads)
    chunks.update({"decoder": pack_decoder(field.decoder), **more, **packed_cells(field), **bases})
    places = [Places.of(name, value.shape[:-1], field.occupancy, field.levels) for name, value in _named(field)]
    for i, (name, value) in enumerate(zip(names, field.density, strict=True)):
        per_rank = rank_steps(field, field.density, i, None, steps.density)
        rows.add(f"density_{name}", value[places[i].used], per_rank, places[i].above)
    gains = field.decoder.basis.norm(dim=1)
    of_color = [rank_steps(field, field.color, i, gains, steps.color) for i in range(len(names))]
    if field.has_network:
        # Its factors have other sizes for colour.
        places = [Places.of(name, v.shape[:-1], None, ()) for name, v in zip(names, field.color, strict=True)]
    group = group_of(field.kind, field.ranks[1])
    for start in range(0, field.ranks[1], group):
        ranks = slice(start, start + group)
        for i in by_mode(field.kind, len(field.levels)):
            value = field.color[i][places[i].used][:, ranks]
            rows.add(f"color_{names[i]}_{start}", value, of_color[i][ranks], places[i].above, field.ranks[1] - start)
    chunks.update(rows.chunks())
    meta = {**plain.meta, **rows.meta(), **facts, "ends_early": not field.has_network}
    return replace(plain, codec=CODEC, chunks=chunks, n_items=0, meta=meta)


def decode_steps(container: Container, path: Path) -> Field:
    """The field of a container; with fewer ranks of colour where the last chunks are missing.

    Raises:
        FormatError: a size is out of range or does not agree with the bytes that are there.
    """
    layout = field_codec.read_layout(container, path)
    rows = RowReader(container, path)
    # A file of few bytes may describe many numbers: they are counted before they are made.
    n_numbers = sum(int(np.prod(shape, dtype=np.int64)) for _, _, shape in layout.factors())
    if n_numbers > NUMBERS_PER_BYTE * sum(map(len, container.chunks.values())) + FREE_NUMBERS:
        raise FormatError(path, f"says {n_numbers:,} numbers, but has not the bytes for them", remedy=DAMAGED)
    factors, missing = [], 0
    for label, name, shape in layout.factors():
        places = Places.of(name, torch.Size(shape[:-1]), layout.occupancy, layout.levels)
        value = torch.zeros(shape)
        if label == "density":
            value[places.used] = rows.read(f"density_{name}", shape[-1], places.above)
        else:
            group = group_of(layout.kind, layout.ranks[1])
            missing = max(missing, _read_color(value, (name, group), places, rows))
        factors.append(value)
    field = layout.field(tuple(factors), read_decoder(container, layout.decoder_shapes(), path))
    return end_early(field, missing, rows, container, path)


def group_of(kind: FieldKind, rank: int) -> int:
    """Ranks of colour in one chunk; numbers of a network belong together."""
    return rank if kind in NETWORK_KINDS else -(-rank // (MAX_GROUPS * LEAST_GROUP)) * LEAST_GROUP


def _read_color(value: Tensor, part: tuple[str, int], places: Places, rows: RowReader) -> int:
    """Fill a factor of colour, by its name and the ranks of a chunk; returns how many of its ranks are not there."""
    rank, (name, group) = value.shape[-1], part
    for start in range(0, rank, group):
        key, n = f"color_{name}_{start}", min(group, rank - start)
        if start > 0 and not rows.has(key):
            return rank - start
        value[places.used, start : start + n] = rows.read(key, n, places.above)
    return 0


def strongest_first(field: Field) -> Field:
    """The same field with the ranks of colour in falling order of what they add to the decoder's features.

    Those of radial bases stay: their channels differ in frequency, the lowest comes first.
    """
    if field.has_network:
        return field
    rank, colors, basis = field.ranks[1], list(field.color), field.decoder.basis.clone()
    for mode, members in enumerate(mode_factors(field.kind, len(field.levels))):
        if field.names[members[0]] == BASES:
            continue
        rows = slice(mode * rank, (mode + 1) * rank)
        size = basis[rows].norm(dim=1)
        for k in members:
            size = size * colors[k].reshape(-1, rank).square().mean(dim=0).sqrt()
        order = size.argsort(descending=True)
        for k in members:
            colors[k] = colors[k][..., order].contiguous()
        basis[rows] = basis[rows][order]
    decoder = decoder_of([basis, *field.decoder.tensors()[1:]])
    return replace(field, color=tuple(colors), decoder=decoder)


def balanced(field: Field) -> Field:
    """The same field of leaves with vectors alike: of one length, turned one way, the strongest ranks of density first.

    Products do not change. What differs from leaf to leaf without need costs bits.
    """
    if field.kind != "trivec":
        return field
    density, color = [], []
    for members in mode_factors(field.kind, len(field.levels)):
        vectors, size = _alike([field.density[i] for i in members])
        order = size.argsort(dim=1, descending=True)[:, None]
        density += [v.gather(2, order.expand_as(v)) for v in vectors]
        color += _alike([field.color[i] for i in members])[0]
    return replace(field, density=tuple(density), color=tuple(color))


def _alike(vectors: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Vectors x, y, z of leaves, of the same products: of one length, x and y with a sum above 0 [L, n, R] each; and
    that length [L, R]."""
    norms = [v.norm(dim=1) for v in vectors]
    size = (norms[0] * norms[1] * norms[2]) ** (1 / 3)
    signs = [torch.where(v.sum(dim=1) < 0, -1.0, 1.0) for v in vectors[:2]]
    signs.append(signs[0] * signs[1])
    # Where one vector is 0 the product is, and all may be.
    scales = [torch.where(size > 0, sign * size / norm, 0.0) for sign, norm in zip(signs, norms, strict=True)]
    return [v * scale.nan_to_num(0.0)[:, None] for v, scale in zip(vectors, scales, strict=True)], size


def mode_factors(kind: FieldKind, n_levels: int) -> list[tuple[int, ...]]:
    """Numbers of the factors whose product is each mode, or of the parts of a network."""
    if kind in NETWORK_KINDS:
        return [tuple(range(len(FACTORS[kind])))]
    if kind in ("vm", "rbf"):
        planes: list[tuple[int, ...]] = [(i, i + 3) for i in range(3)]
        return [*planes, (len(VM_FACTORS),)] if kind == "rbf" else planes
    return [(3 * i, 3 * i + 1, 3 * i + 2) for i in range(1 if kind == "cp" else n_levels)]


def by_mode(kind: FieldKind, n_levels: int) -> list[int]:
    """Numbers of all factors, those of a mode side by side: as many modes as possible are whole where a file ends."""
    return [i for members in mode_factors(kind, n_levels) for i in members]


def _named(field: Field) -> list[tuple[str, Tensor]]:
    return list(zip(field.names, field.density, strict=True))


def rank_steps(field: Field, factors: tuple[Tensor, ...], i: int, gains: Tensor | None, step: float) -> Tensor:
    """Steps at which each rank of factor i makes about the same error: they fall with what it is multiplied by."""
    rank = factors[0].shape[-1]
    if field.has_network:
        return _network_steps(field, factors, i, gains, step)
    if field.kind == "rbf" and i == len(VM_FACTORS):
        mode, fineness, others = i - 3, 1.0, []
    elif field.kind in ("vm", "rbf"):
        mode = i % 3
        others = [factors[i + 3 if i < 3 else i - 3]]
        fineness = 1.0 if i < 3 else LINE_FINENESS
    else:
        mode, fineness = i // 3, 1.0
        others = [factor for k, factor in enumerate(factors) if k != i and k // 3 == mode]
    size = torch.ones(rank) if gains is None else gains[mode * rank : (mode + 1) * rank]
    for other in others:
        size = size * other.reshape(-1, rank).square().mean(dim=0).sqrt()
    return (step / fineness / size.clamp_min(SMALLEST_STEP)).half().float().clamp(SMALLEST_STEP, 6e4)


def _network_steps(field: Field, factors: tuple[Tensor, ...], i: int, gains: Tensor | None, step: float) -> Tensor:
    """One step for all numbers of a table, by what the layer makes of them; layers are few and hardly rounded."""
    value = factors[i]
    if field.names[i] != TABLE:
        size = value.abs().amax() / LAYER_LEVELS
    else:
        units = factors[i + 1][:-1] if gains is None else factors[i + 1][:-1] * gains
        size = step / units.square().sum(dim=1).mean().sqrt().clamp_min(SMALLEST_STEP)
    return size.expand(value.shape[-1]).half().float().clamp(SMALLEST_STEP, 6e4)


def pack_decoder(decoder: Decoder) -> bytes:
    """A decoder in numbers of about eight bits."""
    tensors = list(decoder.tensors())
    sizes = [float(v.square().mean().sqrt().clamp_min(SMALLEST_STEP)) for v in tensors]
    return pack_numbers(tensors, [size / DECODER_LEVELS for size in sizes])


def read_decoder(container: Container, shapes: list[tuple[int, ...]], path: Path) -> Decoder:
    """The decoder of a container.

    Raises:
        FormatError: it has another size.
    """
    return decoder_of(unpack_numbers(chunk_of(container, "decoder", path), shapes, "decoder", path))


def pack_heads(heads: tuple[Head, ...]) -> tuple[dict[str, bytes], dict[str, list[int]]]:
    """Chunk and facts of the heads of a field; nothing where there are none."""
    if not heads:
        return {}, {}
    data = pack_numbers([head.rows() for head in heads], [HEAD_STEP] * len(heads))
    return {HEADS: data}, {HEADS: [head.n_ranks for head in heads]}


def end_early(field: Field, n_missing: int, rows: RowReader, container: Container, path: Path) -> Field:
    """Say what a file that ends early lacks; with a head for the ranks that are there, where it has one.

    Raises:
        FormatError: heads are damaged.
    """
    rank = field.ranks[1]
    if not n_missing:
        if rows.n_missing:
            logger.warning("%s: cut off: %d parts are rounded more coarsely than they were", path, rows.n_missing)
        return field
    logger.warning("%s: cut off: %d of %d ranks of colour are missing", path, n_missing, rank)
    counts = container.meta.get(HEADS, [])
    if not isinstance(counts, list) or not all(isinstance(n, int) and 0 < n < rank for n in counts):
        raise FormatError(path, f"heads: expected numbers below {rank}, got {str(counts)[:60]}", remedy=DAMAGED)
    if rank - n_missing not in counts:
        return field
    width = field.decoder.basis.shape[1]
    data = chunk_of(container, HEADS, path)
    found = unpack_numbers(data, [(width + 1, width)] * len(counts), HEADS, path)
    return with_head(field, head_of(rank - n_missing, found[counts.index(rank - n_missing)]))
