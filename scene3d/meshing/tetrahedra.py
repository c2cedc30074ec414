"""Adaptive tetrahedra: a surface from points that the splats themselves place, so that thin parts survive.

Every splat gives nine points, its centre and the corners of its box of three deviations. Delaunay tetrahedra between
all of them are small where splats are small. Where opacity crosses the level along their edges is found by bisection
(Yu et al. 2024, Gaussian Opacity Fields).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.gaussians import Gaussians
from scene3d.core.mesh import Mesh, face_normals
from scene3d.meshing.bisection import bisect
from scene3d.meshing.level_set import LEVEL, check_level
from scene3d.ops.delaunay import delaunay
from scene3d.ops.quaternions import to_rotmat

# Corners of the box lie at so many standard deviations.
BOX = 3.0
# More transparent splats are no part of a surface.
MIN_OPACITY = 0.1
# Shares of the longest edge by which the places behind a triangle lie behind it.
BEHIND = (0.03, 0.1, 0.3)
# Of tetrahedra, their neighbours and what is done with them: 1,370 at the most of scenes measured, with 3.6 triangles a
# point. Noise, with 8, would take twice as much.
BYTES_PER_POINT = 1500


@dataclass(frozen=True)
class TetraPoints:
    """Corners of tetrahedra.

    Attributes:
        points: [P, 3] float32
        reach: Size of the splat that each comes from: edges are no longer than those of both ends. [P]
    """

    points: Tensor
    reach: Tensor


def tetra_points(gaussians: Gaussians, region: Tensor, spacing: float) -> TetraPoints:
    """Centres and box corners of the splats that can be part of a surface.

    Args:
        gaussians: Of the scene.
        region: Low and high corner of the box that counts. [2, 3]
        spacing: Points that share a cell of this side become one.
    """
    inside = ((gaussians.means >= region[0]) & (gaussians.means <= region[1])).all(dim=1)
    size = region[1] - region[0]
    # Splats as large as the scene are background; their boxes would reach everywhere.
    small = gaussians.scales.amax(dim=1) * BOX < 0.25 * float(size.max())
    kept = gaussians.detach().select(inside & small & (gaussians.opacities > MIN_OPACITY) & gaussians.is_finite())
    signs = torch.tensor([[x, y, z] for x in (-1.0, 1) for y in (-1, 1) for z in (-1, 1)] + [[0, 0, 0]])
    # Discs get a box at least as thick as the spacing: flat boxes make flat tetrahedra.
    half = (BOX * kept.scales.float()).clamp_min(spacing)
    offsets = signs * half[:, None]
    points = kept.means.float()[:, None] + offsets @ to_rotmat(kept.quats.float()).transpose(1, 2)
    reach = half.amax(dim=1, keepdim=True).expand(-1, 9).reshape(-1)
    points = points.reshape(-1, 3)
    cells = ((points - region[0]) / spacing).floor().long().clamp(-(1 << 20), 1 << 20) + (1 << 20)
    keys = (cells[:, 2] << 42) | (cells[:, 1] << 21) | cells[:, 0]
    unique, inverse = torch.unique(keys, return_inverse=True)
    some = torch.full((len(unique),), len(points)).scatter_reduce(0, inverse, torch.arange(len(points)), "amin")
    largest = torch.zeros(len(unique)).scatter_reduce(0, inverse, reach, "amax")
    return TetraPoints(points[some], largest)


def tetra_surface(
    opacity: Callable[[Tensor], Tensor],
    corners: TetraPoints,
    level: float = LEVEL,
    max_bytes: int = 2 << 30,
    longest: float = math.inf,
    precision: float = 0.0,
    rough_opacity: Callable[[Tensor], Tensor] | None = None,
) -> Mesh:
    """The surface where opacity crosses a level between the corners of Delaunay tetrahedra.

    Args:
        opacity: From places [P, 3] to [P], NaN = unknown, which counts as empty.
        corners: Points to connect.
        level: Between 0 and 1.
        max_bytes: Memory of the tetrahedra at most.
        longest: Triangles with a longer edge stay only where the place behind them is inside: where nothing is placed,
            in mid-air, tetrahedra reach from one surface to the next.
        precision: Where edges are crossed need not be known better.
        rough_opacity: Asked instead of `opacity` for where edges between inner and outer corners are crossed.

    Raises:
        ValueError: too few points, too many for the memory, or a level out of range.
    """
    check_level(level)
    n_points = len(corners.points)
    if n_points < 5:
        raise ValueError(f"splats: expected opaque ones before the cameras, got {n_points // 9}")
    if n_points * BYTES_PER_POINT > max_bytes:
        raise ValueError(
            f"points: {n_points:,} would take {n_points * BYTES_PER_POINT / 2**30:.1f} GB, allowed are "
            f"{max_bytes / 2**30:.1f}. Use a larger --voxel-size, which merges points, or --max-memory-gb"
        )
    tetrahedra = delaunay(corners.points)

    def is_inside(places: Tensor) -> Tensor:
        return opacity(places) > level

    def is_nearly_inside(places: Tensor) -> Tensor:
        return (rough_opacity or opacity)(places) > level

    mesh = march_tetrahedra(corners, tetrahedra, is_inside(corners.points), is_nearly_inside, precision)
    return without_membranes(mesh, is_inside, longest)


def without_membranes(mesh: Mesh, is_inside: Callable[[Tensor], Tensor], longest: float) -> Mesh:
    """The mesh without the triangles that have an edge longer than `longest` and nothing behind their middle.

    Triangles across a hollow have matter a little farther behind them, at most half of `longest`: they stay.
    """
    places = mesh.corners()
    length = (places - places.roll(1, dims=1)).norm(dim=2).amax(dim=1)
    long = (length > longest).nonzero()[:, 0]
    if len(long) == 0:
        return mesh
    normals = torch.nn.functional.normalize(face_normals(mesh)[long], dim=1)
    middle, depth = places[long].mean(dim=1), length[long, None]
    held = [is_inside(middle - (share * depth).clamp_max(longest / 2) * normals) for share in BEHIND]
    keep = torch.ones(mesh.n_faces, dtype=torch.bool)
    keep[long] = torch.stack(held).any(dim=0)
    return mesh.with_faces(keep)


def march_tetrahedra(
    corners: TetraPoints,
    tetrahedra: Tensor,
    inside: Tensor,
    is_inside: Callable[[Tensor], Tensor],
    precision: float = 0.0,
) -> Mesh:
    """Triangles between inner and outer corners, facing outwards, but for those along edges longer than both splats.

    Args:
        corners: Their points.
        tetrahedra: Of positive volume, be it on a finer grid than float32 has: flat ones too then turn as their
            neighbours do. [T, 4]
        inside: Of the corners. [P] bool
        is_inside: Of any places.
        precision: Where edges are crossed need not be known better.
    """
    n_inside = inside[tetrahedra].sum(dim=1)
    cut = tetrahedra[(n_inside > 0) & (n_inside < 4)]
    # Inner corners first; equal ones keep their order.
    order = (~inside[cut]).long().argsort(dim=1, stable=True)
    cut = cut.gather(1, order)
    n_inside = inside[cut].sum(dim=1)
    turned = _is_odd(order)
    triangles = torch.cat([_triangles(cut, n_inside, turned, k) for k in (1, 2, 3)])  # ends of edges, [F, 3, 2]
    too_long = _is_too_long(corners, triangles.reshape(-1, 2)).reshape(-1, 3).any(dim=1)
    triangles = triangles[~too_long]
    keys = triangles[..., 0] * len(corners.points) + triangles[..., 1]
    unique, faces = torch.unique(keys, return_inverse=True)
    inner, outer = unique // len(corners.points), unique % len(corners.points)
    return Mesh(bisect(is_inside, corners.points[inner], corners.points[outer], precision=precision), faces)


def _is_odd(order: Tensor) -> Tensor:  # Permutations [T, 4] -> [T]
    pairs = torch.combinations(torch.arange(order.shape[1]))
    return (order[:, pairs[:, 0]] > order[:, pairs[:, 1]]).sum(dim=1) % 2 == 1


def _triangles(cut: Tensor, n_inside: Tensor, turned: Tensor, k: int) -> Tensor:
    """Triangles of the tetrahedra with k inner corners, which come first: edges as (inner, outer). [F, 3, 2]"""
    mine, flip = cut[n_inside == k], turned[n_inside == k]
    # For positive volume, counter-clockwise seen from outside.
    pattern = {
        1: [[(0, 1), (0, 2), (0, 3)]],
        2: [[(0, 2), (0, 3), (1, 3)], [(0, 2), (1, 3), (1, 2)]],
        3: [[(0, 3), (1, 3), (2, 3)]],
    }[k]
    found = []
    for triangle in pattern:
        edges = torch.stack([mine[:, list(edge)] for edge in triangle], dim=1)
        found.append(torch.where(flip[:, None, None], edges.flip(1), edges))
    return torch.cat(found)


def _is_too_long(corners: TetraPoints, edges: Tensor) -> Tensor:  # [E, 2] -> [E]
    ends = corners.points[edges]
    return (ends[:, 0] - ends[:, 1]).norm(dim=1) > corners.reach[edges].sum(dim=1)
