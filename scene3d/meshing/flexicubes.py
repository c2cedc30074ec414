"""FlexiCubes: a surface out of a grid of signed distances that can follow sharp features, differentiable in all of it.

Every cube that the surface passes gets one vertex per sheet, a weighted mean of where the sheet cuts the cube's edges;
every cut edge of the grid gets a quad between the four cubes around it. Weights alpha move the cuts, beta the means,
gamma chooses the diagonal of quads, and grid vertices move by up to half a cell (Shen et al. 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from scene3d.core.mesh import Mesh
from scene3d.meshing.cubes import CORNERS, EDGES, loop_table, troubled_faces

# Weights keep away from 0, where a cut would depend on one end only.
WEIGHT_RANGE = 0.99
LEARNABLE = ("sdf", "offsets", "alpha", "beta", "gamma")


@dataclass(frozen=True)
class CubeGrid:
    """R^3 cubes with all that can be optimised. Indices run z, y, x.

    Only the M cubes and the N corners of a band around the surface have weights and offsets of their own; the others
    have neutral ones.

    Attributes:
        sdf: Signed distances at the corners of cubes, negative inside. [R+1, R+1, R+1]
        offsets: Of corners of the band, before tanh, which is half a cell at most. [N, 3]
        alpha: Of the corners of each cube of the band, before tanh. [M, 8]
        beta: Of the edges of each cube of the band, before tanh. [M, 12]
        gamma: Of each cube of the band, before the sigmoid. [M]
        cube_row: Row of each cube in these, M outside of the band. [R, R, R] int32
        corner_row: Row of each corner in the offsets, N outside of the band. [R+1, R+1, R+1] int32
        low: Corner of the box. [3]
        cell: Side of a cube.
    """

    sdf: Tensor
    offsets: Tensor
    alpha: Tensor
    beta: Tensor
    gamma: Tensor
    cube_row: Tensor
    corner_row: Tensor
    low: Tensor
    cell: float

    def learnable(self) -> dict[str, Tensor]:
        """What an optimizer moves, by name."""
        return {name: getattr(self, name) for name in LEARNABLE}

    def with_learnable(self, values: dict[str, Tensor]) -> CubeGrid:
        """The same grid with other values of `learnable`."""
        changes: dict[str, Any] = dict(values)
        return replace(self, **changes)

    def corners(self, xyz: Tensor) -> Tensor:
        """Places of corners [..., 3] int64, moved. [..., 3]"""
        x, y, z = xyz.unbind(-1)
        moved = _row(self.offsets, self.corner_row[z, y, x]).tanh()
        return self.low + self.cell * (xyz.to(self.low.dtype) + 0.5 * moved)

    def weights(self, cubes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Alpha [P, 8], beta [P, 12] and gamma [P] of cubes [P, 3], as they are stored."""
        x, y, z = cubes.unbind(1)
        row = self.cube_row[z, y, x]
        return _row(self.alpha, row), _row(self.beta, row), _row(self.gamma, row)


def _row(values: Tensor, row: Tensor) -> Tensor:
    """Rows of values, 0 for the one after the last."""
    return torch.cat([values, values.new_zeros(1, *values.shape[1:])])[row.long()]


@dataclass(frozen=True)
class FlexSurface:
    """What a grid gives.

    Attributes:
        vertices: Differentiable in the grid. [V, 3]
        faces: [F, 3] int64
        deviation: Mean spread of the distances between vertices and the cuts they are means of, in cells.
    """

    vertices: Tensor
    faces: Tensor
    deviation: Tensor

    def mesh(self) -> Mesh:
        """Without gradients."""
        mesh = Mesh(self.vertices.detach().float(), self.faces)
        return mesh.with_faces(torch.ones(mesh.n_faces, dtype=torch.bool)) if mesh.n_faces else mesh


def start_grid(sdf: Tensor, low: Tensor, cell: float, reach: float = math.inf) -> CubeGrid:
    """A grid with neutral weights.

    Args:
        sdf: At the corners of R^3 cubes, indexed z, y, x; positive all around its border. [R+1, R+1, R+1]
        low: Corner of the box. [3]
        cell: Side of a cube.
        reach: Cubes and corners farther from the surface, by sdf, get no weights: they cost memory and time.
    """
    n = sdf.shape[0] - 1
    if n < 1 or tuple(sdf.shape) != (n + 1,) * 3:
        raise ValueError(f"sdf: expected a cube of at least 2 corners a side, got {list(sdf.shape)}")
    near = sdf.abs() <= reach
    cubes = torch.nn.functional.max_pool3d(near[None, None].float(), 2, 1)[0, 0] > 0
    cube_row, n_cubes = _numbered(cubes)
    corner_row, n_corners = _numbered(near)
    zeros = sdf.new_zeros
    weights = zeros(n_cubes, 8), zeros(n_cubes, 12), zeros(n_cubes)
    return CubeGrid(sdf, zeros(n_corners, 3), *weights, cube_row, corner_row, low, cell)


def _numbered(mask: Tensor) -> tuple[Tensor, int]:
    """Numbers of the places where a mask is set, in order, those of all others being their count; and that."""
    number = mask.reshape(-1).cumsum(0).int() - 1
    count = int(number[-1]) + 1
    return torch.where(mask, number.reshape(mask.shape), count).int(), count


def grid_points(n_cubes: int, low: Tensor, cell: float) -> Tensor:
    """Corners of cubes, indexed z, y, x. [n+1, n+1, n+1, 3]"""
    steps = torch.arange(n_cubes + 1, dtype=low.dtype)
    z, y, x = torch.meshgrid(steps, steps, steps, indexing="ij")
    return low + cell * torch.stack([x, y, z], dim=-1)


def extract(grid: CubeGrid, with_centers: bool = False) -> FlexSurface:
    """The surface of a grid.

    Args:
        grid: What to extract from.
        with_centers: Cut quads into four triangles around a point between both diagonals, as optimisation wants it:
            then gamma has gradients. Otherwise along the diagonal that gamma prefers.
    """
    n = grid.sdf.shape[0] - 1
    cubes, rows = _surface_cubes(grid.sdf.detach())
    if len(cubes) == 0:
        return FlexSurface(grid.sdf.new_zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), grid.sdf.sum() * 0)
    counts, polygon_of = loop_table()
    first = counts[rows].cumsum(0) - counts[rows]
    vertices, deviation = _dual_vertices(grid, cubes, polygon_of[rows], first, int(counts[rows].sum()))
    place = torch.full((n, n, n), -1, dtype=torch.int32)
    place[tuple(cubes.flip(1).unbind(1))] = torch.arange(len(cubes), dtype=torch.int32)
    quads, gammas = _quads(grid, place, polygon_of[rows], first, cubes)
    if with_centers:
        vertices, faces = _with_centers(vertices, quads, gammas)
        return FlexSurface(vertices, faces, deviation / grid.cell)
    first_diagonal = gammas[:, 0] * gammas[:, 2] > gammas[:, 1] * gammas[:, 3]
    one = quads[:, [0, 1, 2, 0, 2, 3]]
    two = quads[:, [1, 2, 3, 1, 3, 0]]
    faces = torch.where(first_diagonal[:, None], one, two).reshape(-1, 3)
    return FlexSurface(vertices, faces, deviation / grid.cell)


def sign_changes(sdf: Tensor) -> Tensor:
    """Cross-entropy between neighbours of different sign: small where the surface is clear. Differentiable."""
    total, count = sdf.new_zeros(()), 0
    for axis in range(3):
        a, b = sdf.narrow(axis, 0, sdf.shape[axis] - 1), sdf.narrow(axis, 1, sdf.shape[axis] - 1)
        differ = (a < 0) != (b < 0)
        a, b = a[differ], b[differ]
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        total = total + bce(a, (b > 0).to(a.dtype), reduction="sum") + bce(b, (a > 0).to(a.dtype), reduction="sum")
        count += len(a)
    return total / max(count, 1)


def _surface_cubes(sdf: Tensor) -> tuple[Tensor, Tensor]:
    """Cubes that the surface passes, x y z [P, 3], and their rows in loop_table [P]."""
    n = sdf.shape[0] - 1
    inside = sdf < 0
    case = torch.zeros(n, n, n, dtype=torch.int64)
    for bit, (x, y, z) in enumerate(CORNERS):
        case |= inside[z : z + n, y : y + n, x : x + n].long() << bit
    trouble = troubled_faces()[case]
    rows = case.clone()
    for axis in range(3):
        # Axis 0 is x, the last index.
        dim = 2 - axis
        if n < 2:
            continue
        low, high = (trouble.narrow(dim, start, n - 1) for start in (0, 1))
        both = (low == 2 * axis + 1) & (high == 2 * axis)
        for start in (0, 1):
            rows.narrow(dim, start, n - 1)[both] = case.narrow(dim, start, n - 1)[both] + 256
    cut = ((case > 0) & (case < 255)).nonzero()
    return cut.flip(1), rows[tuple(cut.unbind(1))]


def _dual_vertices(
    grid: CubeGrid, cubes: Tensor, polygon_of: Tensor, first: Tensor, n_vertices: int
) -> tuple[Tensor, Tensor]:  # [P, 3], [P, 12], [P] -> [V, 3], scalar
    corners = cubes[:, None] + torch.tensor(CORNERS)[None]  # [P, 8, 3]
    sdf, points = grid.sdf[tuple(corners.flip(-1).unbind(-1))], grid.corners(corners)
    alpha, beta = (1 + WEIGHT_RANGE * weight.tanh() for weight in grid.weights(cubes)[:2])
    row, edge = (polygon_of >= 0).nonzero(as_tuple=True)
    a, b = torch.tensor(EDGES)[edge].unbind(1)
    wa, wb = sdf[row, a] * alpha[row, a], sdf[row, b] * alpha[row, b]
    # Signs differ, so the denominator is not 0 unless both distances vanish.
    share = wa / torch.where(wa == wb, torch.ones_like(wa), wa - wb)
    cut = points[row, a] + share[:, None] * (points[row, b] - points[row, a])
    owner = first[row] + polygon_of[row, edge]
    weight = beta[row, edge]
    total = cut.new_zeros(n_vertices, 3).index_add(0, owner, weight[:, None] * cut)
    mass = cut.new_zeros(n_vertices).index_add(0, owner, weight)
    vertices = total / mass[:, None]
    gap = ((vertices[owner] - cut).square().sum(dim=1) + 1e-12).sqrt()
    n_cuts = torch.zeros(n_vertices, dtype=cut.dtype).index_add(0, owner, torch.ones_like(weight))
    mean = cut.new_zeros(n_vertices).index_add(0, owner, gap) / n_cuts
    return vertices, (gap - mean[owner]).abs().mean()


@lru_cache(maxsize=1)
def _around_edges() -> tuple[tuple[tuple[int, int, int, int], ...], ...]:
    """For each axis the four cubes around a grid edge, counter-clockwise seen from its far end: steps back in x, y, z
    and the number of the edge within that cube."""
    turns = ((1, 1), (0, 1), (0, 0), (1, 0))
    result = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        cubes = []
        for back_u, back_v in turns:
            step = [0, 0, 0]
            step[u], step[v] = back_u, back_v
            low = step[0] + 2 * step[1] + 4 * step[2]
            cubes.append((step[0], step[1], step[2], EDGES.index((low, low | 1 << axis))))
        result.append(tuple(cubes))
    return tuple(result)


def _quads(
    grid: CubeGrid, place: Tensor, polygon_of: Tensor, first: Tensor, cubes: Tensor
) -> tuple[Tensor, Tensor]:  # [Q, 4], [Q, 4]
    n = place.shape[0]
    inside = grid.sdf.detach() < 0
    gamma = grid.weights(cubes)[2].sigmoid()
    quads, gammas = [], []
    for axis in range(3):
        dim = 2 - axis
        start, end = inside.narrow(dim, 0, n), inside.narrow(dim, 1, n)
        zyx = (start != end).nonzero()
        # Only edges with a cube on all four sides; the border is outside, so no others are cut.
        others = [2 - d for d in range(3) if d != axis]
        zyx = zyx[((zyx[:, others] >= 1) & (zyx[:, others] <= n - 1)).all(dim=1)]
        corners, weights = [], []
        for back_x, back_y, back_z, edge in _around_edges()[axis]:
            row = place[zyx[:, 0] - back_z, zyx[:, 1] - back_y, zyx[:, 2] - back_x].long()
            corners.append(first[row] + polygon_of[row, edge])
            weights.append(gamma[row])
        quad, weight = torch.stack(corners, dim=1), torch.stack(weights, dim=1)
        leaves = start[tuple(zyx.unbind(1))]
        # Seen from outside: from the far end where the edge leaves the inside, from the near end where it enters.
        quads.append(torch.where(leaves[:, None], quad, quad.flip(1)))
        gammas.append(torch.where(leaves[:, None], weight, weight.flip(1)))
    return torch.cat(quads), torch.cat(gammas)


def _with_centers(vertices: Tensor, quads: Tensor, gammas: Tensor) -> tuple[Tensor, Tensor]:
    corners = vertices[quads]
    one, two = gammas[:, 0] * gammas[:, 2], gammas[:, 1] * gammas[:, 3]
    middle = one[:, None] * (corners[:, 0] + corners[:, 2]) + two[:, None] * (corners[:, 1] + corners[:, 3])
    middle = middle / (2 * (one + two)[:, None]).clamp_min(1e-12)
    centre = len(vertices) + torch.arange(len(quads))
    fans = [torch.stack([quads[:, k], quads[:, (k + 1) % 4], centre], dim=1) for k in range(4)]
    return torch.cat([vertices, middle]), torch.cat(fans)
