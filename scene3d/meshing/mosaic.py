"""Mosaic-SDF: a surface as small grids of signed distances strewn over it (Yariv et al. 2024).

SDF(x) = sum_i w_i(x) trilinear(V_i, (x - p_i) / s) / sum_i w_i(x), with w_i(x) = max(0, 1 - |x - p_i|_inf / s). Nothing
is stored away from the surface, and nothing of it depends on how the surface was cut into triangles.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scene3d.core.checks import Dims
from scene3d.core.mesh import Mesh
from scene3d.io.binary import inflate
from scene3d.meshing.block_grid import SIDE, evaluate_blocks, extract_surface, pack, unpack
from scene3d.ops.knn import nearest
from scene3d.ops.triangles import sample_surface, signed_distance

GRID = 7
MAGIC = b"MSDF0001"
HEADER = struct.Struct("<8sIff3f")
# Cells reach a little farther than half way to each other, so that they cover the surface between them.
OVERLAP = 1.15
# Cells that may hold a point, of which the nearest are looked at.
N_NEAR = 24
MAX_CELLS = 1 << 20


@dataclass(frozen=True)
class MosaicSdf:
    """N cells.

    Attributes:
        centers: On the surface. [N, 3] float32
        reach: Half side of every cell, scene units.
        values: Signed distances over reach at 7x7x7 points of each cell, indexed z, y, x. [N, 7, 7, 7] float32
    """

    centers: Tensor
    reach: float
    values: Tensor

    def __post_init__(self) -> None:
        dims = Dims()
        dims.check("centers", self.centers, "N 3", torch.float32)
        dims.check("values", self.values, f"N {GRID} {GRID} {GRID}", torch.float32)
        if not 0 < self.reach < float("inf"):
            raise ValueError(f"reach: expected a length above 0, got {self.reach}")

    def distance(self, points: Tensor) -> Tensor:
        """Signed distance at points [P, 3], NaN where no cell reaches. [P]"""
        k = min(N_NEAR, len(self.centers))
        near = nearest(self.centers, points, k)[1]
        place = (points[:, None] - self.centers[near]) / self.reach
        weight = (1 - place.abs().amax(dim=-1)).clamp_min(0)
        value = _trilinear(self.values, near, place)
        mass = weight.sum(dim=1)
        total = (weight * value).sum(dim=1) * self.reach
        return torch.where(mass > 0, total / mass.clamp_min(1e-12), torch.nan)


def mosaic_of_mesh(mesh: Mesh, n_cells: int = 1024, seed: int = 0) -> MosaicSdf:
    """The mosaic of a closed mesh.

    Args:
        mesh: Closed, faces counter-clockwise seen from outside.
        n_cells: More are smaller and keep more detail.
        seed: Of the points among which centres are chosen.
    """
    if not 1 <= n_cells <= MAX_CELLS:
        raise ValueError(f"n_cells: expected 1 to {MAX_CELLS}, got {n_cells}")
    points, _ = sample_surface(mesh, max(20 * n_cells, 2000), seed)
    centers = points[_spread_out(points, n_cells)]
    # In the largest norm, so that cubes cover what balls would.
    gaps = (points - centers[nearest(centers, points, 1)[1][:, 0]]).abs().amax(dim=1)
    reach = OVERLAP * max(float(gaps.max()), 1e-12) * GRID / (GRID - 1)
    steps = torch.linspace(-1, 1, GRID)
    z, y, x = torch.meshgrid(steps, steps, steps, indexing="ij")
    offsets = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    values = [
        signed_distance(mesh, (chunk[:, None] + reach * offsets).reshape(-1, 3)) / reach for chunk in centers.split(512)
    ]
    return MosaicSdf(centers, reach, torch.cat(values).reshape(-1, GRID, GRID, GRID))


def mesh_of_mosaic(mosaic: MosaicSdf, voxel_size: float | None = None) -> Mesh:
    """The surface of a mosaic by marching cubes where its cells are.

    Args:
        mosaic: What to mesh.
        voxel_size: Default: half the spacing of its grids.
    """
    voxel_size = voxel_size or mosaic.reach / (GRID - 1)
    side = SIDE * voxel_size
    steps = torch.arange(int(2 * mosaic.reach / side) + 2)
    low = ((mosaic.centers - mosaic.reach) / side).floor().long()
    blocks = (low[:, None] + torch.cartesian_prod(steps, steps, steps)[None]).reshape(-1, 3)
    blocks = unpack(pack(blocks).unique())
    return extract_surface(
        evaluate_blocks(blocks, torch.zeros(3, dtype=torch.float64), voxel_size, mosaic.distance, 1 << 17)
    )


def pack_mosaic(mosaic: MosaicSdf) -> bytes:
    """Bytes: header, centres as 16-bit shares of their box, values as 8-bit shares of the reach, compressed."""
    import zlib

    low, high = mosaic.centers.amin(dim=0), mosaic.centers.amax(dim=0)
    side = max(float((high - low).max()), 1e-12)
    centers = ((mosaic.centers - low) / side * 65535).round().clamp(0, 65535).numpy().astype("<u2")
    # Distances beyond the reach of a cell never meet the surface.
    values = (mosaic.values.clamp(-1, 1) * 32767).round().numpy().astype("<i2")
    head = HEADER.pack(MAGIC, len(centers), mosaic.reach, side, *low.tolist())
    return head + zlib.compress(centers.tobytes() + values.tobytes(), 9)


def unpack_mosaic(data: bytes) -> MosaicSdf:
    """The reverse of pack_mosaic.

    Raises:
        ValueError: these are no such bytes.
    """
    if len(data) < HEADER.size or data[:8] != MAGIC:
        raise ValueError("mosaic: expected bytes that begin with MSDF0001")
    _, n, reach, side, *low = HEADER.unpack_from(data)
    size = n * (3 + GRID**3) * 2
    if n > MAX_CELLS:
        raise ValueError(f"mosaic: expected at most {MAX_CELLS} cells, got {n}")
    try:
        body = inflate(data[HEADER.size :], size)
    except ValueError as error:
        raise ValueError(f"mosaic: {error}") from error
    centers = np.frombuffer(body, "<u2", n * 3).reshape(n, 3).astype(np.float32)
    values = np.frombuffer(body, "<i2", offset=n * 6).reshape(n, GRID, GRID, GRID).astype(np.float32)
    positions = torch.from_numpy(centers) / 65535 * side + torch.tensor(low)
    return MosaicSdf(positions.float(), reach, torch.from_numpy(values) / 32767)


def _spread_out(points: Tensor, n: int) -> Tensor:
    """Indices of n points far from each other: each is the farthest from those before (Gonzalez 1985)."""
    chosen = torch.zeros(min(n, len(points)), dtype=torch.int64)
    gap = (points - points[0]).square().sum(dim=1)
    for i in range(1, len(chosen)):
        chosen[i] = gap.argmax()
        gap = torch.minimum(gap, (points - points[chosen[i]]).square().sum(dim=1))
    return chosen


def _trilinear(values: Tensor, cells: Tensor, place: Tensor) -> Tensor:  # [N, 7, 7, 7], [P, k], [P, k, 3] -> [P, k]
    at = ((place.clamp(-1, 1) + 1) / 2 * (GRID - 1)).clamp(0, GRID - 1)
    low = at.floor().clamp_max(GRID - 2)
    share = at - low
    x, y, z = low.long().unbind(-1)
    flat, first = values.reshape(-1), cells * GRID**3
    total = torch.zeros_like(share[..., 0])
    for dx, dy, dz in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1)):
        weight = torch.ones_like(total)
        for axis, d in enumerate((dx, dy, dz)):
            weight = weight * (share[..., axis] if d else 1 - share[..., axis])
        total = total + weight * flat[first + ((z + dz) * GRID + y + dy) * GRID + x + dx]
    return total
