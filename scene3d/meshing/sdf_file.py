"""Surfaces as signed distances on disk (.sdf): a mosaic of small grids, or grids with radial bases.

The container is that of .s3d (see io.s3d_container), kind "surface". Codec "mosaic-sdf" holds the chunk `mosaic`,
bytes of pack_mosaic. Codec "radial-sdf" holds float16 numbers, deflated: `grids` coarse to fine, `rows`, `layers`, and
of bases `shapes`; and `centers` as 16-bit shares of the box. meta tells sizes, the box and the frequencies.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scene3d.core.errors import FormatError
from scene3d.core.mesh import Mesh
from scene3d.io.binary import inflate
from scene3d.io.s3d_container import DAMAGED, Container, read_container, write_container
from scene3d.meshing.mosaic import MosaicSdf, mesh_of_mosaic, pack_mosaic, unpack_mosaic
from scene3d.meshing.radial_sdf import RadialSdf, mesh_of_radial_sdf
from scene3d.ops.radial_bases import listed
from scene3d.ops.radial_grid import PLACE_NUMBERS, RadialGrid

SUFFIX = ".sdf"
KIND = "surface"
MOSAIC, RADIAL = "mosaic-sdf", "radial-sdf"
CENTER_STEPS = 65535
# Of a box, where nothing tells how fine a surface is.
DEFAULT_VOXELS = 160
MAX_NUMBERS = 50_000_000
SHAPE_NUMBERS = PLACE_NUMBERS[3] - 3

Sdf = MosaicSdf | RadialSdf


def write_sdf(sdf: Sdf, path: Path) -> None:
    """Write a surface.

    Raises:
        OutputError: path cannot be written.
    """
    if isinstance(sdf, MosaicSdf):
        write_container(Container(KIND, MOSAIC, 0, {"mosaic": pack_mosaic(sdf)}), path)
        return
    model = sdf.model
    chunks = {
        "grids": _packed(torch.cat([grid.reshape(-1) for grid in model.grids])),
        "rows": _packed(model.rows.reshape(-1)),
        "layers": _packed(torch.cat([layer.reshape(-1) for layer in model.layers])),
    }
    meta: dict[str, Any] = {
        "low": sdf.low.double().tolist(),
        "size": sdf.size,
        "grids": [list(grid.shape) for grid in model.grids],
        "rows": list(model.rows.shape),
        "layers": [list(layer.shape) for layer in model.layers],
    }
    if model.bases is not None:
        steps = (model.bases.centers * CENTER_STEPS).round().clamp(0, CENTER_STEPS).numpy().astype("<u2")
        chunks |= {"centers": zlib.compress(steps.tobytes(), 9), "shapes": _packed(model.bases.shapes.reshape(-1))}
        meta["waves"] = list(model.bases.waves)
    write_container(Container(KIND, RADIAL, 0, chunks, meta=meta), path)


def read_sdf(path: Path) -> Sdf:
    """Read a surface.

    Raises:
        FormatError: the file is damaged or holds something else.
    """
    container = read_container(path)
    if container.kind != KIND or container.codec not in (MOSAIC, RADIAL):
        problem = f"holds {container.kind} by {container.codec}, expected a surface by {MOSAIC} or {RADIAL}"
        raise FormatError(path, problem, remedy="Make one with scene3d sdf.")
    try:
        return unpack_mosaic(container.chunks["mosaic"]) if container.codec == MOSAIC else _radial(container)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FormatError(path, f"is no whole surface: {error}", remedy=DAMAGED) from error


def surface_mesh(sdf: Sdf, voxel_size: float | None = None) -> Mesh:
    """The surface by marching cubes; the default voxel suits the fineness of the distances."""
    if isinstance(sdf, MosaicSdf):
        return mesh_of_mosaic(sdf, voxel_size)
    return mesh_of_radial_sdf(sdf, sdf.size / DEFAULT_VOXELS if voxel_size is None else voxel_size)


def _radial(container: Container) -> RadialSdf:
    chunks, meta = container.chunks, container.meta
    grids = _unpacked(chunks["grids"], [_shape(shape) for shape in meta["grids"]])
    (rows,) = _unpacked(chunks["rows"], [_shape(meta["rows"])])
    layers = _unpacked(chunks["layers"], [_shape(shape) for shape in meta["layers"]])
    bases, n = None, len(rows)
    if n > 0:
        centers = np.frombuffer(inflate(chunks["centers"], 2 * 3 * n), "<u2").reshape(n, 3).astype(np.float32)
        (shapes,) = _unpacked(chunks["shapes"], [(n, SHAPE_NUMBERS)])
        least, most = (float(value) for value in meta["waves"])
        bases = listed(torch.from_numpy(centers / CENTER_STEPS), shapes, (least, most))
    _check_sizes(grids, rows, layers)
    low, size = torch.tensor([float(value) for value in meta["low"]]), float(meta["size"])
    if low.shape != (3,) or not bool(low.isfinite().all()) or not 0 < size < float("inf"):
        raise ValueError("low, size: expected a corner and a side above 0")
    return RadialSdf(RadialGrid(tuple(grids), bases, rows, tuple(layers)), low, size)


def _check_sizes(grids: list[Tensor], rows: Tensor, layers: list[Tensor]) -> None:
    """Whether the parts fit together."""
    n_in = sum(grid.shape[0] for grid in grids) + (rows.shape[1] if len(rows) else 0)
    if any(grid.ndim != 4 or min(grid.shape) < 1 for grid in grids) or rows.ndim != 2 or len(layers) % 2 or not layers:
        raise ValueError("grids, rows, layers: expected those of three dimensions")
    for weights, bias in zip(layers[::2], layers[1::2], strict=True):
        if weights.ndim != 2 or weights.shape[0] != n_in or bias.shape != weights.shape[1:]:
            raise ValueError(f"layers: expected one that takes {n_in} numbers, got {list(weights.shape)}")
        n_in = weights.shape[1]
    if n_in != 1:
        raise ValueError(f"layers: expected one number in the end, got {n_in}")


def _packed(values: Tensor) -> bytes:
    return zlib.compress(values.detach().numpy().astype("<f2").tobytes(), 9)


def _shape(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not 1 <= len(values) <= 4 or not all(type(v) is int and v >= 0 for v in values):
        raise ValueError(f"expected a shape, got {str(values)[:60]}")
    return tuple(values)


def _unpacked(data: bytes, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    sizes = [int(np.prod(shape, dtype=object)) for shape in shapes]
    if sum(sizes) > MAX_NUMBERS:
        raise ValueError(f"expected at most {MAX_NUMBERS:,} numbers, got {sum(sizes):,}")
    values = torch.from_numpy(np.frombuffer(inflate(data, 2 * sum(sizes)), "<f2").astype(np.float32))
    if not bool(values.isfinite().all()):
        raise ValueError("expected finite numbers")
    return [part.reshape(shape).clone() for part, shape in zip(values.split(sizes), shapes, strict=True)]
