"""Radiance fields in the .s3d container, rounded: a step per rank, adaptive entropy coding, nothing where no matter is.

A factor is divided by the steps of its ranks, rounded, and coded rank by rank along its nodes. Of planes only nodes of
occupied cells are coded; the others are 0. Which those are follows from the occupancy, in whole numbers. The decoder's
network is kept in float16. Ranks of colour are cut into groups, the strongest first, in chunks of their own at the end
of the file: one that ends early gives a field with fewer ranks of colour.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scene3d.core.errors import FormatError
from scene3d.core.fields import (
    AXES,
    BASES,
    FACTORS,
    NETWORK_KINDS,
    TABLE,
    VM_FACTORS,
    Decoder,
    Field,
    FieldKind,
    LeafLevel,
    decoder_of,
)
from scene3d.core.scene import Scene
from scene3d.io import entropy, field_codec
from scene3d.io.s3d_container import DAMAGED, Container

CODEC = "field-ranks-2"
# Ranks of a group.
GROUP = 8
# Lines are few: they are rounded so much finer than planes.
LINE_FINENESS = 8.0
# Of layers of networks, on either side of 0.
LAYER_LEVELS = 1 << 14
SMALLEST_STEP = 1e-6
# Zeros cost a hundredth of a bit.
NUMBERS_PER_BYTE = 512
FREE_NUMBERS = 1 << 22

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Steps:
    """How coarsely to round: the error of the density feature and of a decoder feature that one factor may make."""

    density: float
    color: float


def encode_steps(scene: Scene, steps: Steps) -> Container:
    """The container of a scene that holds a field, rounded."""
    field = strongest_first(balanced(scene.field().detach().to("cpu", torch.float32)))
    plain = field_codec.encode_field(scene)
    names, bits = field.names, {}
    chunks = {key: data for key, data in plain.chunks.items() if not key.startswith(("density_", "color_"))}
    chunks["decoder"] = b"".join(value.numpy().astype("<f2").tobytes() for value in field.decoder.tensors())
    places = [Places.of(name, value.shape[:-1], field.occupancy, field.levels) for name, value in _named(field)]
    for i, (name, value) in enumerate(zip(names, field.density, strict=True)):
        key = f"density_{name}"
        per_rank = rank_steps(field, field.density, i, None, steps.density)
        chunks[key], bits[key] = encode_rows(value[places[i].used], per_rank, places[i].above)
    gains = field.decoder.basis.norm(dim=1)
    of_color = [rank_steps(field, field.color, i, gains, steps.color) for i in range(len(names))]
    if field.has_network:
        # Its factors have other sizes for colour.
        places = [Places.of(name, v.shape[:-1], None, ()) for name, v in zip(names, field.color, strict=True)]
    group = _group(field.kind, field.ranks[1])
    for start in range(0, field.ranks[1], group):
        ranks = slice(start, start + group)
        for i in by_mode(field.kind, len(field.levels)):
            key, value = f"color_{names[i]}_{start}", field.color[i][places[i].used]
            chunks[key], bits[key] = encode_rows(value[:, ranks], of_color[i][ranks], places[i].above)
    meta = {**plain.meta, "bits": bits, "ends_early": not field.has_network}
    return replace(plain, codec=CODEC, chunks=chunks, n_items=0, meta=meta)


def decode_steps(container: Container, path: Path) -> Field:
    """The field of a container; with fewer ranks of colour where the last chunks are missing.

    Raises:
        FormatError: a size is out of range or does not agree with the bytes that are there.
    """
    layout = field_codec.read_layout(container, path)
    bits = container.meta.get("bits")
    if not isinstance(bits, dict):
        raise FormatError(path, f"bits: expected a table, got {bits!r}", remedy=DAMAGED)
    # A file of few bytes may describe many numbers: they are counted before they are made.
    n_numbers = sum(int(np.prod(shape, dtype=np.int64)) for _, _, shape in layout.factors())
    if n_numbers > NUMBERS_PER_BYTE * sum(map(len, container.chunks.values())) + FREE_NUMBERS:
        raise FormatError(path, f"says {n_numbers:,} numbers, but has not the bytes for them", remedy=DAMAGED)
    factors, missing = [], 0
    for label, name, shape in layout.factors():
        places = Places.of(name, torch.Size(shape[:-1]), layout.occupancy, layout.levels)
        value = torch.zeros(shape)
        if label == "density":
            key = f"density_{name}"
            value[places.used] = decode_rows(container, key, bits.get(key), shape[-1], places.above, path)
        else:
            group = _group(layout.kind, layout.ranks[1])
            missing = max(missing, _read_color(value, (name, group), places, container, bits, path))
        factors.append(value)
    if missing:
        logger.warning("%s: cut off: %d of %d ranks of colour are missing", path, missing, layout.ranks[1])
    return layout.field(tuple(factors), read_decoder(container, layout.decoder_shapes(), path))


def _group(kind: FieldKind, rank: int) -> int:
    """Ranks of colour in one chunk; numbers of a network belong together."""
    return rank if kind in NETWORK_KINDS else GROUP


def _read_color(
    value: Tensor, part: tuple[str, int], places: Places, container: Container, bits: dict[str, Any], path: Path
) -> int:
    """Fill a factor of colour, by its name and the ranks of a chunk; returns how many of its ranks are not there."""
    rank, (name, group) = value.shape[-1], part
    for start in range(0, rank, group):
        key, n = f"color_{name}_{start}", min(group, rank - start)
        if start > 0 and key not in container.chunks:
            return rank - start
        value[places.used, start : start + n] = decode_rows(container, key, bits.get(key), n, places.above, path)
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


@dataclass(frozen=True)
class Places:
    """Where the numbers of a factor that are coded stand, in the order of coding.

    Attributes:
        used: Which nodes those are.
        above: Of each an earlier one beside it, in another row of a plane or another leaf; -1: none. [P]
    """

    used: Tensor
    above: np.ndarray

    @staticmethod
    def of(name: str, nodes: torch.Size, occupancy: Tensor | None, levels: tuple[LeafLevel, ...]) -> Places:
        """The places of a factor with so many nodes."""
        used = used_nodes(occupancy, nodes, name)
        if levels:
            level = levels[int(name[1])]
            beside = leaves_beside(level, AXES.index(name[0]))[:, None] * level.nodes + np.arange(level.nodes)
            return Places(used, np.where(beside < 0, -1, beside).reshape(-1).astype(np.int32))
        return Places(used, rows_above(used.numpy()) if used.ndim == 2 else np.full(int(used.sum()), -1, np.int32))


def rows_above(used: np.ndarray) -> np.ndarray:
    """Of each used node of a plane the number of that in the row before, -1 where that is not used. [B, A] to [P]"""
    numbers = np.where(used, used.reshape(-1).cumsum().reshape(used.shape) - 1, -1)
    before = np.full(used.shape, -1, np.int64)
    before[1:] = numbers[:-1]
    return before[used].astype(np.int32)


def leaves_beside(level: LeafLevel, axis: int) -> np.ndarray:
    """Of each leaf an earlier one next to it, across the axis first; far below 0: none. [L]"""
    numbers = level.numbers().numpy().astype(np.int64)
    found = np.full(numbers.shape, -(1 << 30), np.int64)
    # The last to be set counts: neighbours along the axis itself share but one node.
    for other in sorted(range(3), key=lambda a: (a != axis, a)):
        dim = 2 - other
        before = np.roll(numbers, 1, axis=dim)
        before[tuple(slice(0, 1) if d == dim else slice(None) for d in range(3))] = -1
        found = np.where(before >= 0, before, found)
    return found[numbers >= 0]


def used_nodes(occupancy: Tensor | None, nodes: torch.Size, name: str) -> Tensor:
    """Nodes of a plane that occupied cells touch; of lines, leaves and bases, all. [n_b, n_a], [n] or [n_leaves, n]"""
    if occupancy is None or not set(name) < set(AXES) or len(name) == 1:
        return torch.ones(nodes, dtype=torch.bool)
    across = ({"x", "y", "z"} - set(name)).pop()
    cells = occupancy.any(dim="zyx".index(across))
    rows, columns = (_touches(n_cells, n) for n_cells, n in zip(cells.shape, nodes, strict=True))
    return (rows.T @ cells.float() @ columns) > 0


def _touches(n_cells: int, n: int) -> Tensor:
    """Which nodes lie at or around each cell of an axis. [n_cells, n] of 0 and 1"""
    cell, node = torch.arange(n_cells)[:, None], torch.arange(n)[None]
    low = cell * (n - 1) // n_cells
    high = -((-(cell + 1) * (n - 1)) // n_cells)
    return ((node >= low) & (node <= high)).float()


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


def encode_rows(values: Tensor, steps: Tensor, above: np.ndarray) -> tuple[bytes, int]:
    """Numbers in whole steps, rank after rank, and the bits of the largest. [P, R], [R], see Places"""
    scaled = values / steps
    limit = (1 << (entropy.MAX_SYMBOL_BITS - 1)) - 1
    whole = scaled.round().clamp(-limit, limit).long()
    folded = torch.where(whole >= 0, 2 * whole, -2 * whole - 1).T.numpy()
    n_bits = max(1, int(folded.max(initial=0)).bit_length())
    return steps.numpy().astype("<f2").tobytes() + entropy.encode_layers(folded, above, n_bits), n_bits


def decode_rows(container: Container, key: str, n_bits: object, rank: int, above: np.ndarray, path: Path) -> Tensor:
    """The inverse of encode_rows. [P, R]

    Raises:
        FormatError: the chunk is missing or too short.
    """
    data = field_codec.chunk_of(container, key, path)
    if not isinstance(n_bits, int) or not 1 <= n_bits <= entropy.MAX_SYMBOL_BITS:
        raise FormatError(path, f"bits of {key!r}: expected 1 to {entropy.MAX_SYMBOL_BITS}, got {n_bits!r}")
    if len(data) < 2 * rank:
        raise FormatError(path, f"expected at least {2 * rank} bytes of {key!r}, got {len(data)}", remedy=DAMAGED)
    steps = torch.from_numpy(np.frombuffer(data[: 2 * rank], "<f2").astype(np.float32))
    folded = torch.from_numpy(entropy.decode_layers(data[2 * rank :], rank, above, n_bits)).long()
    whole = torch.where(folded % 2 == 0, folded // 2, -(folded + 1) // 2)
    return whole.T.float() * steps


def read_decoder(container: Container, shapes: list[tuple[int, ...]], path: Path) -> Decoder:
    """The decoder of a container, kept in float16.

    Raises:
        FormatError: it has another size.
    """
    data = field_codec.chunk_of(container, "decoder", path)
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
    if len(data) != 2 * sum(sizes):
        raise FormatError(path, f"expected {2 * sum(sizes)} bytes of 'decoder', got {len(data)}", remedy=DAMAGED)
    values = torch.from_numpy(np.frombuffer(data, "<f2").astype(np.float32))
    return decoder_of([part.reshape(shape).clone() for part, shape in zip(values.split(sizes), shapes, strict=True)])
