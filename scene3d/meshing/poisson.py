"""Poisson: the closed surface whose inside best explains oriented points; what nobody saw is closed smoothly.

Below a table that was seen from above only, the inside would swell to a bag larger than the table: nothing is inside
beyond the convex hull of what was seen.

The field f with the gradient of smallest error against the normals v solves div grad f = div v, which Fourier
transforms turn into a division (Kazhdan 2005; Peng et al. 2021). The surface is where f has its mean at the points.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scene3d.core.mesh import Mesh, face_normals
from scene3d.meshing.block_grid import SIDE, BlockGrid, extract_surface
from scene3d.meshing.cubes import CORNERS
from scene3d.ops.directions import even_directions
from scene3d.ops.triangles import sample_surface

# The box of the points fills this share of the periodic box: the surface must not feel its own copies.
FILL = 0.75
# Standard deviation of the smoothing, cells: less rings, more loses detail.
SMOOTHING = 1.0
# Complex 64-bit numbers that live at once: three components, a product, the sum.
BYTES_PER_CELL = 5 * 8
POINTS_PER_CELL = 6
# The hull is that of its largest faces and of evenly spread directions, so many of each.
N_HULL_FACES, N_DIRECTIONS = 64, 64
# What was seen lies at least so far within the hull, cells.
HULL_MARGIN = 0.6
# Lattice points compared with the hull at once.
AT_ONCE = 1 << 18


def close_surface(mesh: Mesh, resolution: int, max_bytes: int = 2 << 30, seed: int = 0) -> Mesh:
    """A closed surface through an open one: every edge has two faces.

    Args:
        mesh: Open or closed, faces counter-clockwise seen from outside.
        resolution: Cells along each side of the box, a multiple of 8; a piece thinner than two cells may be lost.
        max_bytes: Memory to take at most.
        seed: Of the points.

    Raises:
        ValueError: the resolution is out of range or takes too much memory, or the mesh has no area.
    """
    _check(resolution, max_bytes)
    low, high = mesh.vertices.amin(dim=0).double(), mesh.vertices.amax(dim=0).double()
    cell = float((high - low).max()) / (FILL * resolution)
    n_points = POINTS_PER_CELL * resolution**2
    points, faces = sample_surface(mesh, n_points, seed)
    normals = torch.nn.functional.normalize(face_normals(mesh), dim=1)[faces]
    origin = (low + high) / 2 - cell * resolution / 2
    place = ((points.double() - origin) / cell).float()
    field = poisson_field(place, normals, resolution)
    steepness = (_look_up(field, place + normals) - _look_up(field, place - normals)).mean() / 2
    directions = hull_directions(mesh.vertices)
    reach = (((mesh.vertices.double() - origin) / cell).float() @ directions.T).amax(dim=0) + HULL_MARGIN
    _clip(field, directions, reach, float(steepness.clamp_min(torch.finfo(field.dtype).tiny)))
    return extract_surface(_as_blocks(field, origin, cell))


def poisson_field(place: Tensor, normals: Tensor, resolution: int) -> Tensor:
    """The field on a periodic lattice, negative inside, positive on the border, 0 at the points in the mean.

    Args:
        place: Positions in cells, inside of the lattice. [P, 3]
        normals: Unit, outwards. [P, 3]
        resolution: Lattice points a side.

    Returns:
        [R, R, R] float32, indexed z, y, x.
    """
    n = resolution
    whole = 2 * torch.pi * torch.fft.fftfreq(n)
    half = 2 * torch.pi * torch.fft.rfftfreq(n)
    waves = (half[None, None, :], whole[None, :, None], whole[:, None, None])
    square = waves[0].square() + waves[1].square() + waves[2].square()
    total = torch.zeros(n, n, n // 2 + 1, dtype=torch.complex64)
    for axis in range(3):
        total += 1j * waves[axis] * torch.fft.rfftn(_splat(place, normals[:, axis], n))
    total *= -torch.exp(-0.5 * SMOOTHING**2 * square) / square.clamp_min(1e-12)
    total[0, 0, 0] = 0
    field = torch.fft.irfftn(total, s=(n, n, n))
    field -= _look_up(field, place).mean()
    least = field.abs().mean() * 1e-3
    for axis in range(3):
        for end in (0, n - 1):
            border = field.select(axis, end)
            border.copy_(border.clamp_min(least))
    return field


def hull_directions(vertices: Tensor) -> Tensor:
    """Outward directions of planes that bound points [P, 3]: their polyhedron is little larger than the hull. [D, 3]"""
    from scipy.spatial import ConvexHull, QhullError

    axes = torch.cat([torch.eye(3, dtype=torch.float64), -torch.eye(3, dtype=torch.float64)])
    spread = torch.cat([axes, even_directions(N_DIRECTIONS)]).float()
    size = float((vertices.amax(dim=0) - vertices.amin(dim=0)).max())
    points = ((vertices.double() - vertices[0].double()) / size).numpy()
    try:
        hull = ConvexHull(points)
    except QhullError:
        return spread  # A flat sheet has no hull with an inside.
    a, b, c = (points[hull.simplices[:, k]] for k in range(3))
    largest = np.argsort(-np.linalg.norm(np.cross(b - a, c - a), axis=1), kind="stable")[:N_HULL_FACES]
    return torch.cat([torch.from_numpy(hull.equations[largest, :3]).float(), spread])


def _clip(field: Tensor, directions: Tensor, reach: Tensor, steepness: float) -> None:
    """Make a field [R, R, R] positive, in place, beyond planes [D, 3] at distances [D] from the first cell."""
    n = field.shape[0]
    inside = (field.reshape(-1) < 0).nonzero()[:, 0]
    for rows in inside.split(AT_ONCE):
        place = torch.stack([rows % n, rows // n % n, rows // n**2], dim=1).float()
        beyond = steepness * (place @ directions.T - reach).amax(dim=1)
        field.view(-1)[rows] = torch.maximum(field.view(-1)[rows], beyond)


def _check(resolution: int, max_bytes: int) -> None:
    if not 16 <= resolution <= 1024 or resolution % SIDE:
        raise ValueError(f"resolution: expected a multiple of {SIDE} from 16 to 1024 cells, got {resolution}")
    wanted = BYTES_PER_CELL * resolution**3
    if wanted > max_bytes:
        better = max(16, int((max_bytes / BYTES_PER_CELL) ** (1 / 3)) // SIDE * SIDE)
        raise ValueError(
            f"resolution: {resolution} would take {wanted / 2**30:.1f} GB, allowed are {max_bytes / 2**30:.1f}. "
            f"Use {better} or less"
        )


def _corners(place: Tensor, n: int) -> list[tuple[Tensor, Tensor]]:
    """Lattice points around positions: flat index and weight, eight times."""
    low = place.floor().clamp(0, n - 2)
    share = place - low
    x, y, z = low.long().unbind(1)
    result = []
    for dx, dy, dz in CORNERS:
        weights = [share[:, axis] if d else 1 - share[:, axis] for axis, d in enumerate((dx, dy, dz))]
        result.append((((z + dz) * n + y + dy) * n + x + dx, weights[0] * weights[1] * weights[2]))
    return result


def _splat(place: Tensor, values: Tensor, n: int) -> Tensor:  # [R, R, R]
    grid = torch.zeros(n**3)
    for index, weight in _corners(place, n):
        grid.index_add_(0, index, weight * values)
    return grid.reshape(n, n, n)


def _look_up(field: Tensor, place: Tensor) -> Tensor:  # [P]
    flat = field.reshape(-1)
    return torch.stack([weight * flat[index] for index, weight in _corners(place, field.shape[0])]).sum(dim=0)


def _as_blocks(field: Tensor, origin: Tensor, cell: float) -> BlockGrid:
    n = field.shape[0] // SIDE
    values = field.reshape(n, SIDE, n, SIDE, n, SIDE).permute(0, 2, 4, 1, 3, 5).reshape(-1, SIDE, SIDE, SIDE)
    steps = torch.arange(n)
    z, y, x = torch.meshgrid(steps, steps, steps, indexing="ij")
    blocks = torch.stack([x, y, z], dim=-1).reshape(-1, 3).int()
    # Most blocks are far from the surface: only those with both signs in them or towards a neighbour are kept.
    near = torch.nn.functional.max_pool3d((values < 0).flatten(1).any(dim=1).float().reshape(1, 1, n, n, n), 3, 1, 1)
    keep = near.reshape(-1) > 0
    return BlockGrid(blocks[keep].contiguous(), values[keep].contiguous(), origin, cell)
