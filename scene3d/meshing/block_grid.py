"""Block grid: values at the points of a regular lattice, stored only in blocks of 8x8x8 where there is something.

Point (x, y, z) of block b lies at origin + (8 b + (x, y, z)) * voxel_size. Values are [B, 8, 8, 8] indexed z, y, x.
NaN stands for unknown. Negative is inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.checks import Dims
from scene3d.core.mesh import Mesh
from scene3d.meshing.cubes import CORNERS, EDGE_AXES, EDGES, triangle_table

SIDE = 8
VOXELS = SIDE**3
# Lattice coordinates are packed into one integer, this many bits an axis.
KEY_BITS = 20
KEY_LIMIT = 1 << (KEY_BITS - 1)
_BLOCKS_AT_ONCE = 2048


@dataclass(frozen=True)
class BlockGrid:
    """Values in B blocks.

    Attributes:
        blocks: Coordinates, sorted by key. [B, 3] int32
        values: [B, 8, 8, 8] float32
        origin: Of the lattice, world. [3] float64
        voxel_size: Distance of neighbouring points.
    """

    blocks: Tensor
    values: Tensor
    origin: Tensor
    voxel_size: float

    def __post_init__(self) -> None:
        dims = Dims()
        dims.check("blocks", self.blocks, "B 3", torch.int32)
        dims.check("values", self.values, f"B {SIDE} {SIDE} {SIDE}", torch.float32)
        dims.check("origin", self.origin, "3", torch.float64)


def pack(coordinates: Tensor) -> Tensor:
    """One sortable integer per row of integer coordinates [P, 3], each from -KEY_LIMIT to KEY_LIMIT - 1. [P] int64"""
    shifted = coordinates.long() + KEY_LIMIT
    return (shifted[:, 2] << 2 * KEY_BITS) | (shifted[:, 1] << KEY_BITS) | shifted[:, 0]


def unpack(keys: Tensor) -> Tensor:
    """The reverse of pack. [P, 3] int64"""
    mask = (1 << KEY_BITS) - 1
    return torch.stack([keys & mask, keys >> KEY_BITS & mask, keys >> 2 * KEY_BITS], dim=1) - KEY_LIMIT


def block_points(blocks: Tensor, origin: Tensor, voxel_size: float) -> Tensor:
    """World positions of the points of blocks [B, 3]. [B, 8, 8, 8, 3] float32"""
    steps = torch.arange(SIDE)
    z, y, x = torch.meshgrid(steps, steps, steps, indexing="ij")
    offsets = torch.stack([x, y, z], dim=-1)
    lattice = SIDE * blocks.long()[:, None, None, None] + offsets
    return (origin + lattice.double() * voxel_size).float()


def evaluate_blocks(
    blocks: Tensor, origin: Tensor, voxel_size: float, field: Callable[[Tensor], Tensor], batch: int = 1 << 20
) -> BlockGrid:
    """The grid whose values are those of a field at its points.

    Args:
        blocks: [B, 3]
        origin: [3] float64
        voxel_size: Distance of neighbouring points.
        field: From positions [P, 3] to values [P], negative inside.
        batch: Points at once.
    """
    blocks = unpack(pack(blocks).unique()).int()
    parts = []
    for chunk in blocks.split(max(1, batch // VOXELS)):
        points = block_points(chunk, origin, voxel_size)
        parts.append(field(points.reshape(-1, 3)).reshape(-1, SIDE, SIDE, SIDE))
    values = torch.cat(parts) if parts else torch.zeros(0, SIDE, SIDE, SIDE)
    return BlockGrid(blocks, values.float(), origin, voxel_size)


def extract_surface(grid: BlockGrid, cross: Callable[[Tensor, Tensor], Tensor] | None = None) -> Mesh:
    """Marching cubes over the blocks: the surface where values change sign, facing from negative to positive.

    Cells with an unknown corner have no surface. Closed where the known cells go all around; Lorensen and Cline 1987,
    with ambiguous faces decided alike from both sides.

    Args:
        grid: What to extract from.
        cross: Finds where the surface lies between an inner and an outer point, [E, 3] and [E, 3] to [E, 3] float32, of
            fields that are not straight between lattice points; None takes the straight line.
    """
    cells, corners = _active_cells(grid)
    if len(cells) == 0:
        return Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    weights = torch.tensor([1 << c for c in range(8)])
    case = ((corners < 0).long() * weights).sum(dim=1)
    counts, table = triangle_table()
    n_triangles = counts[case]
    cell_of = torch.repeat_interleave(torch.arange(len(cells)), n_triangles)
    first = n_triangles.cumsum(0) - n_triangles
    nth = torch.arange(len(cell_of)) - first[cell_of]
    edges = table[case[cell_of], nth]
    rows, edges = cell_of[:, None].expand(-1, 3).reshape(-1), edges.reshape(-1)
    keys, (starts, ends, shares) = _cut_edges(cells[rows], corners[rows], edges)
    unique, inverse = torch.unique(keys, return_inverse=True)
    some = torch.empty(len(unique), dtype=torch.int64)
    # Cells that share an edge see the same two ends with the same two numbers: any of them will do.
    some[inverse] = torch.arange(len(keys))
    place = starts[some] + shares[some, None] * (ends[some] - starts[some])
    vertices = (grid.origin + place * grid.voxel_size).float()
    if cross is not None:
        low, high = ((grid.origin + at[some] * grid.voxel_size).float() for at in (starts, ends))
        low_inside = corners[rows[some], torch.tensor(EDGES)[edges[some], 0]][:, None] < 0
        vertices = cross(torch.where(low_inside, low, high), torch.where(low_inside, high, low))
    faces = inverse.reshape(-1, 3)
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    return Mesh(vertices, faces)


def _active_cells(grid: BlockGrid) -> tuple[Tensor, Tensor]:
    """Cells that the surface passes: lattice coordinates [P, 3] int64 and values at their corners [P, 8]."""
    keys = pack(grid.blocks)
    order = keys.argsort()
    places, values = [], []
    for chunk in torch.arange(len(keys)).split(_BLOCKS_AT_ONCE):
        padded = _padded(grid, keys[order], order, chunk)
        corners = torch.stack(
            [padded[:, z : z + SIDE, y : y + SIDE, x : x + SIDE] for x, y, z in CORNERS], dim=-1
        )  # [b, 8, 8, 8, 8]
        n_inside = (corners < 0).sum(dim=-1)
        active = (n_inside > 0) & (n_inside < 8) & ~corners.isnan().any(dim=-1)
        b, z, y, x = active.nonzero(as_tuple=True)
        places.append(SIDE * grid.blocks[chunk[b]].long() + torch.stack([x, y, z], dim=1))
        values.append(corners[active])
    if not places:
        return torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 8)
    return torch.cat(places), torch.cat(values)


def _padded(grid: BlockGrid, sorted_keys: Tensor, order: Tensor, chunk: Tensor) -> Tensor:  # [b, 9, 9, 9]
    """Blocks with one more layer, from their neighbours, towards +x, +y, +z."""
    padded = torch.full((len(chunk), SIDE + 1, SIDE + 1, SIDE + 1), torch.nan)
    for dx, dy, dz in CORNERS:
        wanted = pack(grid.blocks[chunk].long() + torch.tensor([dx, dy, dz]))
        at = torch.searchsorted(sorted_keys, wanted).clamp_max(len(sorted_keys) - 1)
        found = sorted_keys[at] == wanted
        source = grid.values[order[at[found]]]
        into = [slice(SIDE, None) if d else slice(0, SIDE) for d in (dz, dy, dx)]
        out_of = [slice(0, 1) if d else slice(0, SIDE) for d in (dz, dy, dx)]
        padded[(found.nonzero()[:, 0], *into)] = source[(slice(None), *out_of)]
    return padded


def _cut_edges(
    cells: Tensor, corners: Tensor, edges: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:  # [P, 3], [P, 8], [P]
    """Keys of lattice edges [P]; their ends in voxels [P, 3] float64 and where between these they are cut [P]."""
    ends, axes, offsets = torch.tensor(EDGES), torch.tensor(EDGE_AXES), torch.tensor(CORNERS)
    lower, axis = ends[edges], axes[edges]
    a = corners.gather(1, lower[:, :1])[:, 0].double()
    b = corners.gather(1, lower[:, 1:])[:, 0].double()
    start = cells + offsets[lower[:, 0]]
    end = cells + offsets[lower[:, 1]]
    low = cells.amin(dim=0)
    extent = cells.amax(dim=0) - low + 2
    shifted = start - low
    key = (shifted[:, 2] * extent[1] + shifted[:, 1]) * extent[0] + shifted[:, 0]
    # Signs differ, so a - b is not 0.
    return key * 3 + axis, (start.double(), end.double(), a / (a - b))
