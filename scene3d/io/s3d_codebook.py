"""The codec "codebook" of .s3d: shapes and colours as rows of codebooks, in residual stages; colours also from a field.

Chunks: `octree` and `below` (positions, cells of a box), `opacity` (levels of the sigmoid), and for every coded tensor
and stage `<name>.<stage>.codes` (float16, high bytes before low bytes) and `.index` (one a Gaussian, ceil(log2 K) bits,
entropy coded). Gaussians lie in the order of the octree, so that what neighbours share costs little. Where colours come
from a field instead, `field` holds it (ops/hash_field.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scene3d.core.errors import FormatError
from scene3d.core.gaussians import SH_COUNTS, Gaussians
from scene3d.core.scene import SceneInfo
from scene3d.io.entropy import decode_cells, decode_symbols, encode_cells, encode_symbols
from scene3d.io.field_bytes import pack_field, pack_float16, unpack_field, unpack_float16
from scene3d.io.s3d_container import DAMAGED, Container
from scene3d.ops.hash_field import HashField

CODEC = "codebook"
MAX_CODES = 1 << 16
MAX_STAGES = 16
MAX_DEPTH = 20
MAX_FLOAT16 = 65504.0
SHAPE_WIDTHS = {"quats": 4, "log_scales": 3}


@dataclass(frozen=True)
class CodedColumn:
    """A tensor of N rows as codes: row n is the sum over stages s of codes[s][indices[s, n]].

    Attributes:
        codes: S tensors. [K, D] float32, exact in float16
        indices: [S, N] int64
    """

    codes: tuple[Tensor, ...]
    indices: Tensor

    def rows(self) -> Tensor:
        """The restored rows. [N, D]"""
        return torch.stack([codes[index] for codes, index in zip(self.codes, self.indices, strict=True)]).sum(dim=0)

    def select(self, order: Tensor) -> CodedColumn:
        """Rows in another order. order [M] int64"""
        return CodedColumn(self.codes, self.indices[:, order])


@dataclass(frozen=True)
class CodedGaussians:
    """Gaussians whose shapes and colours are rows of codebooks.

    Attributes:
        means: [N, 3]
        opacity_logits: [N]
        columns: The coded tensors of Gaussians by name; shN is missing where there is none. Where there is a field,
            those of colours are what is added to its values, and may be missing.
        field: Gives sh0 and shN, side by side, of a position as it is stored.
    """

    means: Tensor
    opacity_logits: Tensor
    columns: dict[str, CodedColumn]
    field: HashField | None = None

    @property
    def sh_degree(self) -> int:
        if self.field is not None:
            return SH_COUNTS.index(len(self.field.layers[-1]) // 3)
        column = self.columns.get("shN")
        return 0 if column is None else SH_COUNTS.index(column.codes[0].shape[1] // 3 + 1)


def float16(values: Tensor) -> Tensor:
    """Round to float16, which is what codes are stored in."""
    return values.clamp(-MAX_FLOAT16, MAX_FLOAT16).half().float()


def round_opacities(opacity_logits: Tensor, n_bits: int) -> Tensor:
    """What a file of `n_bits` per opacity gives back. [N]"""
    return _opacity_logits(_opacity_levels(opacity_logits, n_bits), n_bits)


def round_means(means: Tensor, depth: int) -> Tensor:
    """What a file with cells of 2^depth to the longest side of the box gives back. [N, 3]"""
    box = _box(means)
    return _cell_centers(_cells(means, box, depth), box, depth)


def size_of_positions(means: Tensor, depth: int) -> int:
    """Bytes that positions take."""
    octree, below, _ = encode_cells(_cells(means, _box(means), depth), depth)
    return len(octree) + len(below)


def size_of_opacities(opacity_logits: Tensor, n_bits: int) -> int:
    """Bytes that opacities take, about: their neighbours are not looked at."""
    return len(encode_symbols(_opacity_levels(opacity_logits, n_bits).numpy(), n_bits))


def encode_codebook(coded: CodedGaussians, depth: int, opacity_bits: int, info: SceneInfo) -> tuple[Container, Tensor]:
    """Make the container.

    Args:
        coded: The scene.
        depth: Bits per axis of positions, over the longest side of their box; 1 to 20.
        opacity_bits: Bits of opacities, 1 to 16.
        info: Facts about the scene.

    Returns:
        The container, and the rows of `coded` in the order in which it gives them back. [N] int64
    """
    n = len(coded.means)
    box = _box(coded.means)
    octree, below, rows = encode_cells(_cells(coded.means, box, depth), depth)
    order = torch.from_numpy(np.ascontiguousarray(rows)).long()
    levels = _opacity_levels(coded.opacity_logits, opacity_bits)[order]
    chunks = {"octree": octree, "below": below, "opacity": encode_symbols(levels.numpy(), opacity_bits)}
    sizes: dict[str, list[int]] = {}
    for name, column in coded.columns.items():
        sizes[name] = [len(codes) for codes in column.codes]
        for stage, (codes, index) in enumerate(zip(column.codes, column.indices, strict=True)):
            chunks[f"{name}.{stage}.codes"] = pack_float16(codes)
            chunks[f"{name}.{stage}.index"] = encode_symbols(index[order].numpy(), _index_bits(len(codes)))
    meta = {
        "box": [float(value) for value in box],
        "depth": depth,
        "opacity_bits": opacity_bits,
        "sh_degree": coded.sh_degree,
        "codes": sizes,
    }
    if coded.field is not None:
        parts, meta["field"] = pack_field(coded.field)
        chunks.update(parts)
    return Container("splats", CODEC, n, chunks, info, meta), order


def decode_codebook(container: Container, path: Path) -> Gaussians:
    """Restore the Gaussians.

    Raises:
        FormatError: a size or number is not what this codec writes.
    """
    n = container.n_items
    depth = _whole(container, path, "depth", 1, MAX_DEPTH)
    opacity_bits = _whole(container, path, "opacity_bits", 1, 16)
    degree = _degree(container, path)
    box = _read_box(container, path)
    try:
        cells = decode_cells(_chunk(container, path, "octree"), _chunk(container, path, "below"), n, depth)
    except ValueError as error:
        raise FormatError(path, str(error), remedy=DAMAGED) from error
    levels = torch.from_numpy(decode_symbols(_chunk(container, path, "opacity"), n, opacity_bits))
    means = _cell_centers(cells, box, depth)
    rows = {name: _read_column(container, path, name, width) for name, width in SHAPE_WIDTHS.items()}
    colors = _read_colors(container, path, means, SH_COUNTS[degree])
    gaussians = Gaussians(
        means=means,
        quats=rows["quats"],
        log_scales=rows["log_scales"],
        opacity_logits=_opacity_logits(levels, opacity_bits),
        sh0=colors[:, :1].contiguous(),
        shN=colors[:, 1:].contiguous(),
    )
    if not bool(gaussians.is_finite().all()):
        raise FormatError(path, "holds numbers that are not finite", remedy=DAMAGED)
    return gaussians


def _read_colors(container: Container, path: Path, means: Tensor, n_coefficients: int) -> Tensor:  # [N, K, 3]
    if "field" in container.meta:
        field = unpack_field(container.chunks, container.meta["field"], 3 * n_coefficients, path)
        total = field(means)
        table: Any = container.meta.get("codes")
        for name, columns in (("sh0", slice(0, 3)), ("shN", slice(3, None))):
            if isinstance(table, dict) and name in table:
                total[:, columns] += _read_column(container, path, name, total[:, columns].shape[1])
        return total.view(len(means), n_coefficients, 3)
    parts = [_read_column(container, path, "sh0", 3)]
    if n_coefficients > 1:
        parts.append(_read_column(container, path, "shN", 3 * (n_coefficients - 1)))
    return torch.cat(parts, dim=1).view(len(means), n_coefficients, 3)


def read_indices(container: Container, path: Path) -> dict[str, list[Tensor]]:
    """Which code each Gaussian has, stage by stage, of every coded tensor. [N] int64 each

    Raises:
        FormatError: a size or number is not what this codec writes.
    """
    table: Any = container.meta.get("codes")
    widths = {**SHAPE_WIDTHS, "sh0": 3, "shN": 3 * (SH_COUNTS[_degree(container, path)] - 1)}
    names = [name for name in widths if isinstance(table, dict) and name in table]
    return {name: [index for _, index in _stages(container, path, name, widths[name])] for name in names}


def _read_column(container: Container, path: Path, name: str, width: int) -> Tensor:  # [N, width]
    total = torch.zeros(container.n_items, width)
    for codes, index in _stages(container, path, name, width):
        total += codes[index]
    return total


def _stages(container: Container, path: Path, name: str, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Codes [K, width] and indices [N] of every stage."""
    table: Any = container.meta.get("codes")
    sizes: Any = table.get(name) if isinstance(table, dict) else None
    is_sound = isinstance(sizes, list) and 1 <= len(sizes) <= MAX_STAGES
    if not is_sound or not all(type(k) is int and 0 <= k <= MAX_CODES for k in sizes):
        problem = f"codes of {name}: expected 1 to {MAX_STAGES} sizes up to {MAX_CODES}, got {str(sizes)[:60]}"
        raise FormatError(path, problem, remedy=DAMAGED)
    for stage, n_codes in enumerate(sizes):
        codes = unpack_float16(_chunk(container, path, f"{name}.{stage}.codes"), n_codes * width).view(n_codes, width)
        index = decode_symbols(
            _chunk(container, path, f"{name}.{stage}.index"), container.n_items, _index_bits(n_codes)
        )
        if len(index) and int(index.max()) >= n_codes:
            problem = f"{name}: expected indices below {n_codes}, got {int(index.max())}"
            raise FormatError(path, problem, remedy=DAMAGED)
        yield codes, torch.from_numpy(index).long()


def _degree(container: Container, path: Path) -> int:
    return _whole(container, path, "sh_degree", 0, len(SH_COUNTS) - 1)


def _index_bits(n_codes: int) -> int:
    return max(1, (n_codes - 1).bit_length())


def _box(means: Tensor) -> Tensor:  # [4]: lowest corner and longest side
    if len(means) == 0:
        return torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    low, high = means.double().amin(dim=0), means.double().amax(dim=0)
    side = (high - low).amax().clamp_min(1e-30)
    return torch.cat([low, side[None]])


def _cells(means: Tensor, box: Tensor, depth: int) -> np.ndarray:  # [N, 3]
    unit = (means.double() - box[:3]) / box[3]
    return (unit * 2**depth).floor().clamp(0, 2**depth - 1).long().numpy()


def _cell_centers(cells: np.ndarray, box: Tensor, depth: int) -> Tensor:  # [N, 3]
    return (box[:3] + (torch.from_numpy(cells).double() + 0.5) * (box[3] / 2**depth)).float()


def _opacity_levels(opacity_logits: Tensor, n_bits: int) -> Tensor:  # [N] int64
    return (opacity_logits.sigmoid() * 2**n_bits).floor().clamp(0, 2**n_bits - 1).long()


def _opacity_logits(levels: Tensor, n_bits: int) -> Tensor:  # [N]
    # Levels stand for the middles of their intervals, so that no logit is infinite.
    return ((levels.float() + 0.5) / 2**n_bits).logit()


def _chunk(container: Container, path: Path, name: str) -> bytes:
    if name not in container.chunks:
        raise FormatError(path, f"the chunk {name!r} is missing", remedy=DAMAGED)
    return container.chunks[name]


def _whole(container: Container, path: Path, name: str, low: int, high: int) -> int:
    value: Any = container.meta.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        problem = f"{name}: expected a whole number from {low} to {high}, got {str(value)[:60]}"
        raise FormatError(path, problem, remedy=DAMAGED)
    return value


def _read_box(container: Container, path: Path) -> Tensor:
    value: Any = container.meta.get("box")
    is_numbers = isinstance(value, list) and len(value) == 4 and all(isinstance(v, int | float) for v in value)
    if not isinstance(value, list) or not is_numbers or not value[3] > 0:
        problem = f"box: expected a corner and a side, four numbers, got {str(value)[:60]}"
        raise FormatError(path, problem, remedy=DAMAGED)
    return torch.tensor(value, dtype=torch.float64)
