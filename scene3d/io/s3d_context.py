"""The "context" codec of .s3d: splats as integers, entropy coded against what is known around them. See docs/s3d.md.

Positions come first, as an octree in which a lone point is a leaf; they put the splats in Morton order. Then for all
splats, each from its nearest predecessors: classes of importance, opacity, scales, rotation, the rest of the position;
colour; the higher spherical harmonics in a basis of their own. One flow describes encoder and decoder.
"""

from __future__ import annotations

import math
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
from scene3d.io.s3d_steps import FIXED_ONE, POSITION_BITS, StepTables
from scene3d.ops import morton

try:
    from scene3d import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]

CODEC = "context"
N_NEIGHBORS = 4
MAX_DEPTH = 20
CHUNK_ORDER = ("octree", "classes", "opacity", "scale", "rotation", "position", "color", "sh", "basis")
QUAT_ONE = 2**30
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
        means: What each column is when nothing else is known, fixed point, by stream.
        gains: How far it follows its neighbours, fixed point, by stream.
        dead_zone: Of 256 steps: residuals this much above a half are rounded down; encoder only.
        pull: Of 256 steps: residuals other than 0 are decoded this much nearer to the prediction.
    """

    depth: int
    low: tuple[float, float, float]
    size: float
    sh_degree: int
    means: dict[str, list[int]]
    gains: dict[str, list[int]]
    dead_zone: int = 0
    pull: int = 0


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

    def __init__(self, chunks: dict[str, bytes], is_encoding: bool) -> None:
        self.chunks = chunks
        self.is_encoding = is_encoding

    def planes(
        self, name: str, values: np.ndarray, step: np.ndarray, hood: Hood, sides: np.ndarray, frame: Frame
    ) -> None:
        """Code columns of fixed-point numbers in place."""
        means, gains = (np.array(table[name], np.int32) for table in (frame.means, frame.gains))
        group = SH_GROUP if name == "sh" else values.shape[1]
        common = (values, step, hood.neighbors, hood.distances, sides, means, gains, group)
        if self.is_encoding:
            # Classes are needed as they are.
            dead_zone = 0 if name == "classes" else frame.dead_zone
            self.chunks[name] = _cpu.encode_planes(*common, dead_zone, frame.pull)
        else:
            _cpu.decode_planes(self.chunks[name], *common, frame.pull)

    def rotations(
        self, quats: np.ndarray, step: np.ndarray, hood: Hood, scales: np.ndarray, sides: np.ndarray, frame: Frame
    ) -> None:
        """Code rotations in place."""
        common = (quats, step, hood.neighbors, scales, sides)
        if self.is_encoding:
            self.chunks["rotation"] = _cpu.encode_rotations(*common, frame.dead_zone)
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


def encode_context(arranged: Arranged, frame: Frame, tables: StepTables) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Code splats; `arranged.fixed` becomes what a decoder will see.

    Returns:
        Chunks and meta of the container.
    """
    fixed, chunks = arranged.fixed, {"octree": arranged.octree}
    _code(Streams(chunks, True), fixed, arranged.hood, arranged.corners, frame, tables)
    if fixed.sh.shape[1]:
        chunks["basis"] = fixed.basis.astype("<i2").tobytes()
    # Threads finish in any order.
    chunks = {name: chunks[name] for name in CHUNK_ORDER if name in chunks}
    meta = {"depth": frame.depth, "low": list(frame.low), "size": frame.size, "sh_degree": frame.sh_degree}
    meta |= {"means": frame.means, "gains": frame.gains, "pull": frame.pull, "steps": tables.as_json()}
    return chunks, meta


def decode_context(container: Container, path: Path) -> Gaussians:
    """The splats of a container.

    Raises:
        FormatError: its header or chunks are not what this codec writes.
    """
    _require_native()
    try:
        frame, tables = _frame_from_meta(container.meta), steps.tables_from_json(container.meta.get("steps"))
        fixed = _empty(container, frame)
        keys, levels = np.zeros(container.n_items, np.uint64), np.zeros(container.n_items, np.uint8)
        if container.n_items == 0 and container.chunks["octree"]:
            raise ValueError("the octree holds splats, the header says there are none")
        if not _cpu.decode_octree(container.chunks["octree"], frame.depth, keys, levels):
            raise ValueError("the octree holds another number of splats than the header says")
        hood, corners = _hood(keys, levels, frame.depth)
        _code(Streams(container.chunks, False), fixed, hood, corners, frame, tables)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise FormatError(path, f"is not what the codec {CODEC!r} writes: {error}", remedy=DAMAGED) from error
    return to_gaussians(fixed, frame)


def _code(streams: Streams, fixed: Fixed, hood: Hood, corners: np.ndarray, frame: Frame, tables: StepTables) -> None:
    _code_classes(streams, fixed, hood, frame)
    with ThreadPoolExecutor(2) as threads:
        parts = [threads.submit(_code_shape, streams, fixed, hood, corners, frame, tables)]
        parts.append(threads.submit(_code_color, streams, fixed, hood, frame, tables))
        for part in parts:
            part.result()


def _code_classes(streams: Streams, fixed: Fixed, hood: Hood, frame: Frame) -> None:
    gap = np.clip(hood.distances[:, 0].astype(np.int64) // 2, 0, N_SIDES - 1)
    unit = np.full(fixed.classes.shape, steps.STEP_ONE, np.uint8)
    streams.planes("classes", fixed.classes, unit, hood, _sides(hood.levels, gap), frame)
    fixed.classes[:] = np.clip((fixed.classes + FIXED_ONE // 2) // FIXED_ONE, 0, steps.N_CLASSES - 1) * FIXED_ONE


def _code_shape(
    streams: Streams, fixed: Fixed, hood: Hood, corners: np.ndarray, frame: Frame, tables: StepTables
) -> None:
    shape_class, color_class = (fixed.classes // FIXED_ONE).T
    sides = _sides(shape_class, color_class)
    streams.planes("scale", fixed.scales, steps.scale_steps(tables, shape_class), hood, sides, frame)
    # How far the neighbour is, in quarter octaves (log(2) / 4 apart) of the splat's own size.
    octaves = math.frexp(frame.size)[1] - 1 - POSITION_BITS
    reach = hood.distances[:, 0].astype(np.int64) + 4 * octaves - fixed.scales[:, 0].astype(np.int64) // 11357
    reach = np.clip(reach + N_SIDES // 2, 0, N_SIDES - 1)
    turn = steps.turn_steps(tables, shape_class, fixed.scales)
    streams.rotations(fixed.quats, turn, hood, fixed.scales, _sides(shape_class, reach), frame)
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


def _code_color(streams: Streams, fixed: Fixed, hood: Hood, frame: Frame, tables: StepTables) -> None:
    shape_class, color_class = (fixed.classes // FIXED_ONE).T
    step = steps.opacity_steps(tables, shape_class)
    streams.planes("opacity", fixed.opacity, step, hood, _sides(shape_class, color_class), frame)
    opacity = np.clip(-fixed.opacity[:, 0] // (FIXED_ONE // 2), 0, 7)
    sides = _sides(color_class, np.clip(shape_class // 2, 0, 7) * 8 + opacity)
    streams.planes("color", fixed.color, steps.color_steps(tables, color_class), hood, sides, frame)
    if fixed.sh.shape[1]:
        step = steps.sh_steps(tables, color_class, fixed.sh.shape[1])
        streams.planes("sh", fixed.sh, step, hood, sides, frame)


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
    depth, sh_degree, pull = (int(meta[key]) for key in ("depth", "sh_degree", "pull"))
    x, y, z = (float(value) for value in meta["low"])
    if not (0 <= depth <= MAX_DEPTH and 0 <= sh_degree < len(SH_COUNTS) and 0 <= pull <= 128):
        raise ValueError("depth, sh_degree or pull is out of range")
    size = float(meta["size"])
    if not (all(map(math.isfinite, (x, y, z, size))) and size > 0 and math.frexp(size)[0] == 0.5):
        raise ValueError(f"low, size: expected finite numbers and a power of two, got {x}, {y}, {z} and {size}")
    if not all(isinstance(meta[key], dict) for key in ("means", "gains")):
        raise ValueError("means, gains: expected objects")
    means, gains = (
        {str(name): [int(value) for value in row] for name, row in meta[key].items()} for key in ("means", "gains")
    )
    return Frame(depth, (x, y, z), size, sh_degree, means, gains, 0, pull)


def _require_native() -> None:
    if _cpu is None:
        reason = "the native module is not built"
        raise BackendUnavailable("s3d", reason, "Install scene3d with its native code: pip install .")
