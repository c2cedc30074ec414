"""Radiance fields in the .s3d container, rounded: a step per rank, adaptive entropy coding, nothing where no matter is.

A factor is divided by the steps of its ranks, rounded, and coded rank by rank along its nodes. Of planes only nodes of
occupied cells are coded; the others are 0. Which those are follows from the occupancy, in whole numbers. The decoder's
network is kept in float16.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scene3d.core.errors import FormatError
from scene3d.core.fields import AXES, VM_FACTORS, Decoder, Field, decoder_of
from scene3d.core.scene import Scene
from scene3d.io import entropy, field_codec
from scene3d.io.s3d_container import DAMAGED, Container

CODEC = "field-steps"
# Lines are few: they are rounded so much finer than planes.
LINE_FINENESS = 8.0
SMALLEST_STEP = 1e-6
# Zeros cost a hundredth of a bit.
NUMBERS_PER_BYTE = 512
FREE_NUMBERS = 1 << 22


@dataclass(frozen=True)
class Steps:
    """How coarsely to round: the error of the density feature and of a decoder feature that one factor may make."""

    density: float
    color: float


def encode_steps(scene: Scene, steps: Steps) -> Container:
    """The container of a scene that holds a field, rounded."""
    field = scene.field().detach().to("cpu", torch.float32)
    plain = field_codec.encode_field(scene)
    names, chunks, bits = field.names, {}, {}
    gains = field.decoder.basis.norm(dim=1)
    for label, factors, step in (("density", field.density, steps.density), ("color", field.color, steps.color)):
        for i, (name, value) in enumerate(zip(names, factors, strict=True)):
            per_rank = rank_steps(field, factors, i, gains if label == "color" else None, step)
            shown = value[used_nodes(field.occupancy, value.shape[:-1], name)]
            chunk, n_bits = encode_rows(shown, per_rank)
            chunks[f"{label}_{name}"], bits[f"{label}_{name}"] = chunk, n_bits
    chunks["decoder"] = b"".join(value.numpy().astype("<f2").tobytes() for value in field.decoder.tensors())
    chunks.update({name: data for name, data in plain.chunks.items() if name not in chunks})
    return replace(plain, codec=CODEC, chunks=chunks, n_items=0, meta={**plain.meta, "bits": bits})


def decode_steps(container: Container, path: Path) -> Field:
    """The field of a container.

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
    factors = []
    for label, name, shape in layout.factors():
        key = f"{label}_{name}"
        used = used_nodes(layout.occupancy, torch.Size(shape[:-1]), name)
        value = torch.zeros(shape)
        value[used] = decode_rows(container, key, bits.get(key), (int(used.sum()), shape[-1]), path)
        factors.append(value)
    return layout.field(tuple(factors), read_decoder(container, layout.decoder_shapes(), path))


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


def encode_rows(values: Tensor, steps: Tensor) -> tuple[bytes, int]:
    """Numbers in whole steps, rank after rank, and the bits of the largest. [P, R], [R]"""
    scaled = values / steps
    limit = (1 << (entropy.MAX_SYMBOL_BITS - 1)) - 1
    whole = scaled.round().clamp(-limit, limit).long()
    folded = torch.where(whole >= 0, 2 * whole, -2 * whole - 1).T.reshape(-1).numpy()
    n_bits = max(1, int(folded.max(initial=0)).bit_length())
    return steps.numpy().astype("<f2").tobytes() + entropy.encode_symbols(folded, n_bits), n_bits


def decode_rows(container: Container, key: str, n_bits: object, shape: tuple[int, int], path: Path) -> Tensor:
    """The inverse of encode_rows. [P, R]

    Raises:
        FormatError: the chunk is missing or too short.
    """
    data = field_codec.chunk_of(container, key, path)
    if not isinstance(n_bits, int) or not 1 <= n_bits <= entropy.MAX_SYMBOL_BITS:
        raise FormatError(path, f"bits of {key!r}: expected 1 to {entropy.MAX_SYMBOL_BITS}, got {n_bits!r}")
    count, rank = shape
    if len(data) < 2 * rank:
        raise FormatError(path, f"expected at least {2 * rank} bytes of {key!r}, got {len(data)}", remedy=DAMAGED)
    steps = torch.from_numpy(np.frombuffer(data[: 2 * rank], "<f2").astype(np.float32))
    folded = torch.from_numpy(entropy.decode_symbols(data[2 * rank :], count * rank, n_bits)).long()
    whole = torch.where(folded % 2 == 0, folded // 2, -(folded + 1) // 2)
    return whole.reshape(rank, count).T.float() * steps


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
