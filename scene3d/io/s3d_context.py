"""The "context" codec of .s3d: splats as integers, entropy coded against what is known around them. See docs/s3d.md.

Positions come first, as an octree in which a lone point is a leaf; they put the splats in Morton order. Then for all
splats, each from its nearest predecessors: classes of importance, opacity, scales, rotation, the rest of the position;
colour; the higher spherical harmonics in a basis of their own. One flow describes encoder and decoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scene3d.core.errors import BackendUnavailable, FormatError
from scene3d.core.gaussians import SH_COUNTS, Gaussians
from scene3d.io import s3d_steps as steps
from scene3d.io.s3d_container import DAMAGED, Container
from scene3d.io.s3d_model import Rule, model_bytes, model_from_bytes
from scene3d.io.s3d_steps import FIXED_ONE, POSITION_BITS, StepTables
from scene3d.ops import morton

try:
    from scene3d import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]

CODEC = "context-2"
N_NEIGHBORS = 4
MAX_DEPTH = 20
CHUNK_ORDER = ("model", "octree", "classes", "opacity", "scale", "rotation", "position", "color", "sh", "basis")
# Of 256 steps: residuals this much above a half are rounded down.
DEAD_ZONE = 0
QUAT_ONE = 2**30
# Half of the largest float32.
MAX_COORDINATE = 2.0**127
# Columns of spherical harmonics that share one "all zero" mark.
SH_GROUP = 3
N_SIDES = 64
# Opacities as their logarithm: below e^-8 nothing is seen; an opacity of 1 has no logit.
MAX_OPACITY = 1 - 2.0**-12


@dataclass(frozen=True)
class Frame:
    """The numbers of a header that are not steps.

    Attributes:
        depth: Of the octree.
        low: Corner of the cube, world.
        size: Of the cube, a power of two.
        sh_degree: Of the splats.
    """

    depth: int
    low: tuple[float, float, float]
    size: float
    sh_degree: int


@dataclass
class Fixed:
    """N splats as integers in the order of the octree; the encoder replaces them by what a decoder will see.

    Attributes:
        positions: Within the cube, of 2^30. [N, 3] uint32
        classes: Shape and colour. [N, 2] int32
        opacity: Logarithm, fixed point. [N, 1] int32
        scales: Log scales from long to short, fixed point. [N, 3] int32
        quats: wxyz of the sorted axes, of 2^30. [N, 4] int32
        color: Y Co Cg of sh0, fixed point. [N, 3] int32
        sh: Coordinates in the basis, fixed point. [N, M] int32
        basis: Rows span what is kept of the higher degrees. [M, 3 (K-1)] int16, of 2^14
    """

    positions: np.ndarray
    classes: np.ndarray
    opacity: np.ndarray
    scales: np.ndarray
    quats: np.ndarray
    color: np.ndarray
    sh: np.ndarray
    basis: np.ndarray

    def select(self, order: np.ndarray) -> Fixed:
        """Rows in another order."""
        rows = {f.name: np.ascontiguousarray(getattr(self, f.name)[order]) for f in fields(self) if f.name != "basis"}
        return replace(self, **rows)


class Streams:
    """Chunks that are written or read: the direction in which one flow runs."""

    def __init__(self, chunks: dict[str, bytes], rules: Mapping[str, Rule], is_encoding: bool) -> None:
        self.chunks, self.rules = chunks, rules
        self.is_encoding = is_encoding

    def planes(
        self, name: str, values: np.ndarray, step: np.ndarray, hood: Hood, sides: np.ndarray, known: np.ndarray
    ) -> None:
        """Code columns of fixed-point numbers in place."""
        rule, group = self.rules[name], SH_GROUP if name == "sh" else values.shape[1]
        common = (values, step, hood.neighbors, hood.distances, sides, known, rule.means, rule.factors, group)
        if self.is_encoding:
            self.chunks[name] = _cpu.encode_planes(*common, DEAD_ZONE)
        else:
            _cpu.decode_planes(self.chunks[name], *common)

    def rotations(self, quats: np.ndarray, step: np.ndarray, hood: Hood, scales: np.ndarray, sides: np.ndarray) -> None:
        """Code rotations in place."""
        common = (quats, step, hood.neighbors, scales, sides)
        if self.is_encoding:
            self.chunks["rotation"] = _cpu.encode_rotations(*common, DEAD_ZONE)
        else:
            _cpu.decode_rotations(self.chunks["rotation"], *common)

    def raw(self, name: str, values: np.ndarray, counts: np.ndarray) -> None:
        """Code the lowest bits of numbers as they are, in place."""
        if self.is_encoding:
            self.chunks[name] = _cpu.encode_raw(values, counts)
        else:
            _cpu.decode_raw(self.chunks[name], values, counts)


@dataclass(frozen=True)
class Hood:
    """What is near each splat among those before it.

    Attributes:
        neighbors: Rows, nearest first, -1 = none. [N, 4] int32
        distances: In quarter octaves. [N, 4] uint8
        levels: Of the leaves of the octree. [N] uint8
    """

    neighbors: np.ndarray
    distances: np.ndarray
    levels: np.ndarray


@dataclass(frozen=True)
class Arranged:
    """Splats in the order of their octree.

    Attributes:
        fixed: The splats.
        octree: Its chunk.
        hood: What is near each.
        corners: Of the leaves, of 2^30. [N, 3] int64
        order: Row of each in what was arranged. [N]
    """

    fixed: Fixed
    octree: bytes
    hood: Hood
    corners: np.ndarray
    order: np.ndarray


def arrange(fixed: Fixed, depth: int) -> Arranged:
    """Build the octree: what a plan needs to know before it can say how columns follow their neighbours."""
    _require_native()
    codes = morton.interleave(torch.from_numpy(fixed.positions >> (POSITION_BITS - depth))).numpy()
    order = np.argsort(codes, kind="stable")
    codes, levels = codes[order].astype(np.uint64), np.zeros(len(codes), np.uint8)
    octree = _cpu.encode_octree(codes, depth, levels)
    leaf_shift = (3 * (depth - levels.astype(np.int64))).astype(np.uint64)
    hood, corners = _hood((codes >> leaf_shift) << leaf_shift, levels, depth)
    return Arranged(fixed.select(order), octree, hood, corners, order)


def encode_context(
    arranged: Arranged, frame: Frame, tables: StepTables, rules: Mapping[str, Rule]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Code splats; `arranged.fixed` becomes what a decoder will see.

    Returns:
        Chunks and meta of the container.
    """
    fixed, chunks = arranged.fixed, {"octree": arranged.octree, "model": model_bytes(tables, rules)}
    _code(Streams(chunks, rules, True), fixed, arranged.hood, arranged.corners, frame, tables)
    if fixed.sh.shape[1]:
        chunks["basis"] = fixed.basis.astype("<i2").tobytes()
    # Threads finish in any order.
    chunks = {name: chunks[name] for name in CHUNK_ORDER if name in chunks}
    return chunks, {"depth": frame.depth, "low": list(frame.low), "size": frame.size, "sh_degree": frame.sh_degree}


def decode_context(container: Container, path: Path) -> Gaussians:
    """The splats of a container.

    Raises:
        FormatError: its header or chunks are not what this codec writes.
    """
    return to_gaussians(*_decoded(container, path))


def read_classes(container: Container, path: Path) -> np.ndarray:
    """Classes of shape and of colour, 0 to 15, one class more for steps half as large. [N, 2] int32

    Raises:
        FormatError: its header or chunks are not what this codec writes.
    """
    return _decoded(container, path)[0].classes // FIXED_ONE


def _decoded(container: Container, path: Path) -> tuple[Fixed, Frame]:
    _require_native()
    try:
        frame = _frame_from_meta(container.meta)
        fixed = _empty(container, frame)
        tables, rules = model_from_bytes(container.chunks["model"], fixed.sh.shape[1])
        keys, levels = np.zeros(container.n_items, np.uint64), np.zeros(container.n_items, np.uint8)
        if container.n_items == 0 and container.chunks["octree"]:
            raise ValueError("the octree holds splats, the header says there are none")
        if not _cpu.decode_octree(container.chunks["octree"], frame.depth, keys, levels):
            raise ValueError("the octree holds another number of splats than the header says")
        hood, corners = _hood(keys, levels, frame.depth)
        _code(Streams(container.chunks, rules, False), fixed, hood, corners, frame, tables)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise FormatError(path, f"is not what the codec {CODEC!r} writes: {error}", remedy=DAMAGED) from error
    return fixed, frame


def _code(streams: Streams, fixed: Fixed, hood: Hood, corners: np.ndarray, frame: Frame, tables: StepTables) -> None:
    _code_classes(streams, fixed, hood)
    shape_class, color_class = (fixed.classes // FIXED_ONE).T
    step, sides = steps.scale_steps(tables, shape_class), _sides(shape_class, color_class)
    streams.planes("scale", fixed.scales, step, hood, sides, fixed.classes)
    with ThreadPoolExecutor(2) as threads:
        parts = [threads.submit(_code_shape, streams, fixed, hood, corners, frame, tables)]
        parts.append(threads.submit(_code_color, streams, fixed, hood, tables))
        parts.append(threads.submit(_code_sh, streams, fixed, hood, tables))
        for part in parts:
            part.result()


def _code_classes(streams: Streams, fixed: Fixed, hood: Hood) -> None:
    gap = np.clip(hood.distances[:, 0].astype(np.int64) // 2, 0, N_SIDES - 1)
    unit = np.full(fixed.classes.shape, steps.STEP_ONE, np.uint8)
    streams.planes("classes", fixed.classes, unit, hood, _sides(hood.levels, gap), _nothing(fixed))
    fixed.classes[:] = np.clip((fixed.classes + FIXED_ONE // 2) // FIXED_ONE, 0, steps.N_CLASSES - 1) * FIXED_ONE


def _nothing(fixed: Fixed) -> np.ndarray:
    return np.zeros((len(fixed.classes), 0), np.int32)


def _code_shape(
    streams: Streams, fixed: Fixed, hood: Hood, corners: np.ndarray, frame: Frame, tables: StepTables
) -> None:
    shape_class = fixed.classes[:, 0] // FIXED_ONE
    # How far the neighbour is, in quarter octaves (log(2) / 4 apart) of the splat's own size.
    octaves = math.frexp(frame.size)[1] - 1 - POSITION_BITS
    reach = hood.distances[:, 0].astype(np.int64) + 4 * octaves - fixed.scales[:, 0].astype(np.int64) // 11357
    reach = np.clip(reach + N_SIDES // 2, 0, N_SIDES - 1)
    turn = steps.turn_steps(tables, shape_class, fixed.scales)
    streams.rotations(fixed.quats, turn, hood, fixed.scales, _sides(shape_class, reach))
    _code_positions(streams, fixed, hood, corners, steps.position_levels(tables, shape_class, fixed.scales))


def _code_positions(streams: Streams, fixed: Fixed, hood: Hood, corners: np.ndarray, wanted: np.ndarray) -> None:
    leaf = hood.levels.astype(np.int64)
    finest = np.maximum(wanted, leaf)
    n_bits = np.repeat((finest - leaf).astype(np.uint8), 3)
    shift = (POSITION_BITS - finest)[:, None]
    inside = ((fixed.positions - corners) >> shift).astype(np.uint32).reshape(-1)
    streams.raw("position", inside, n_bits)
    # The middle of the last cell.
    half = (np.int64(1) << shift) >> 1
    fixed.positions[:] = corners + (inside.reshape(-1, 3).astype(np.int64) << shift) + half


def _code_color(streams: Streams, fixed: Fixed, hood: Hood, tables: StepTables) -> None:
    shape_class, color_class = (fixed.classes // FIXED_ONE).T
    step, sides = steps.opacity_steps(tables, shape_class), _sides(shape_class, color_class)
    streams.planes("opacity", fixed.opacity, step, hood, sides, np.concatenate([fixed.classes, fixed.scales], axis=1))
    known = np.concatenate([fixed.classes, fixed.opacity], axis=1)
    opacity = np.clip(-fixed.opacity[:, 0] // (FIXED_ONE // 2), 0, 7)
    sides = _sides(color_class, np.clip(shape_class // 2, 0, 7) * 8 + opacity)
    streams.planes("color", fixed.color, steps.color_steps(tables, color_class), hood, sides, known)


def _code_sh(streams: Streams, fixed: Fixed, hood: Hood, tables: StepTables) -> None:
    if fixed.sh.shape[1]:
        shape_class, color_class = (fixed.classes // FIXED_ONE).T
        step = steps.sh_steps(tables, color_class, fixed.sh.shape[1])
        streams.planes("sh", fixed.sh, step, hood, _sides(color_class, shape_class), _nothing(fixed))


def _hood(keys: np.ndarray, levels: np.ndarray, depth: int) -> tuple[Hood, np.ndarray]:
    """Neighbours by the centres of the leaves, and the corners of these. [N, 3] int64"""
    corners = morton.deinterleave(torch.from_numpy(keys.astype(np.int64))).numpy() << (POSITION_BITS - depth)
    half = (np.int64(1) << (POSITION_BITS - levels.astype(np.int64)))[:, None] >> 1
    centers = np.ascontiguousarray((corners + half).astype(np.int32))
    neighbors = np.empty((len(keys), N_NEIGHBORS), np.int32)
    distances = np.empty((len(keys), N_NEIGHBORS), np.uint8)
    _cpu.nearest_before(centers, neighbors, distances)
    return Hood(neighbors, distances, levels), corners


def _sides(first: np.ndarray, second: np.ndarray) -> np.ndarray:  # [N], [N] below 64 -> [N, 2] uint8
    return np.ascontiguousarray(np.stack([first, second], axis=1).astype(np.uint8))


def to_gaussians(fixed: Fixed, frame: Frame) -> Gaussians:
    """Splats as floats. [N]"""
    cell = frame.size / 2**POSITION_BITS
    opacity = np.minimum(np.exp(fixed.opacity[:, 0] / FIXED_ONE), MAX_OPACITY)
    luma, orange, green = (fixed.color / FIXED_ONE).T
    rest = fixed.sh / FIXED_ONE @ (fixed.basis / 2**14)
    n_rest = SH_COUNTS[frame.sh_degree] - 1
    return Gaussians(
        means=_tensor(np.array(frame.low) + fixed.positions * cell),
        quats=_tensor(fixed.quats / QUAT_ONE),
        log_scales=_tensor(fixed.scales / FIXED_ONE),
        opacity_logits=_tensor(np.log(opacity) - np.log1p(-opacity)),
        sh0=_tensor(np.stack([luma + orange - green, luma + green, luma - orange - green], axis=1))[:, None, :],
        shN=_tensor(rest).view(len(rest), n_rest, 3),
    )


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values.astype(np.float32)))


def _empty(container: Container, frame: Frame) -> Fixed:
    """Zeros to decode into."""
    n, n_rest = container.n_items, 3 * (SH_COUNTS[frame.sh_degree] - 1)
    basis = np.frombuffer(container.chunks.get("basis", b""), "<i2")
    n_kept = len(basis) // n_rest if n_rest else 0
    if len(basis) != n_kept * n_rest or n_kept > n_rest:
        raise ValueError(f"basis: expected rows of {n_rest} numbers, got {len(basis)} numbers")

    def zeros(width: int) -> np.ndarray:
        return np.zeros((n, width), np.int32)

    return Fixed(
        positions=np.zeros((n, 3), np.int64),
        classes=zeros(2),
        opacity=zeros(1),
        scales=zeros(3),
        quats=zeros(4),
        color=zeros(3),
        sh=zeros(n_kept),
        basis=basis.reshape(n_kept, n_rest),
    )


def _frame_from_meta(meta: dict[str, Any]) -> Frame:
    depth, sh_degree = int(meta["depth"]), int(meta["sh_degree"])
    x, y, z = (float(value) for value in meta["low"])
    if not (0 <= depth <= MAX_DEPTH and 0 <= sh_degree < len(SH_COUNTS)):
        raise ValueError("depth or sh_degree is out of range")
    size = float(meta["size"])
    is_near = all(abs(value) <= MAX_COORDINATE for value in (x, y, z, size))
    if not (is_near and size > 0 and math.frexp(size)[0] == 0.5):
        raise ValueError(f"low, size: expected float32 numbers and a power of two, got {x}, {y}, {z} and {size}")
    return Frame(depth, (x, y, z), size, sh_degree)


def _require_native() -> None:
    if _cpu is None:
        reason = "the native module is not built"
        raise BackendUnavailable("s3d", reason, "Install scene3d with its native code: pip install .")
