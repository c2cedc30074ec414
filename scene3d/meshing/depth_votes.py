"""Depth votes: what the depths of all views say of a mesh, vertex by vertex: how far off it is, whether it is there.

Opacity is that of the least opaque view alone, so level sets fill whatever no view looks into: between the surface that
is seen and where looks end lies a hull that nobody ever saw. And they lie where splats do, which need not be where
photos have the surface. Each view that sees a vertex has a vote. Its depth there may be nearly the same: the vertex is
drawn along its normal to where all such views have it. Or it sees on behind: then it is against it. Views that have
something in front say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.mesh import Mesh, vertex_normals
from scene3d.meshing.fusion import DepthImage
from scene3d.meshing.pulls import Pulls, solve, squares
from scene3d.ops.pinhole import in_image, to_pixels
from scene3d.ops.triangles import view_mesh

# Votes of each round are for places within so many pixels along the normal, less and less towards these.
REACHES = (5.0, 2.5)
# Views are for a vertex within so many pixels of their depth, and where depths are rough.
NEAR_BY, ROUGHLY = 1.6, 5.0
# Flatter than 80 degrees a depth says little. Cosine.
MIN_FACING = 0.17
# A vertex is seen that is no farther behind the mesh itself, share of the depth.
OWN_DEPTH = 0.003
# Corners of a triangle that views must be for.
MIN_CORNERS = 2


@dataclass(frozen=True)
class DepthVotes:
    """What C views say of V vertices.

    Attributes:
        weight: Of all votes for a place. [V]
        shift: Sum of these weights times the distance to that place along the normal, scene units. [V]
        n_for: Weight of the views that have a surface there. [V]
        n_against: Weight of the views that see on behind. [V]
    """

    weight: Tensor
    shift: Tensor
    n_for: Tensor
    n_against: Tensor


def settle(
    mesh: Mesh, depths: Sequence[DepthImage], cameras: Cameras, on_view: Callable[[], None] = lambda: None
) -> Mesh:
    """The mesh moved to where the views have the surface, without the triangles that most views are against.

    Args:
        mesh: A raw surface; faces towards the views count.
        depths: One per camera, right to a pixel where they are right at all.
        cameras: The views.
        on_view: Called after each view of each of the len(REACHES) rounds.
    """
    is_held = torch.ones(len(mesh.vertices), dtype=torch.bool)
    for reach in REACHES:
        normals = vertex_normals(mesh)
        votes = ask_depths(mesh, normals, depths, cameras, reach, NEAR_BY, on_view)
        pulls = Pulls(votes.weight[:, None] * squares(normals), votes.shift[:, None] * normals)
        mesh = replace(mesh.bare(), vertices=mesh.vertices + solve(mesh, pulls))
        is_held = votes.n_for > votes.n_against
    return _held_faces(mesh, is_held)


def without_refuted(
    mesh: Mesh, depths: Sequence[DepthImage], cameras: Cameras, on_view: Callable[[], None] = lambda: None
) -> Mesh:
    """The mesh where it is, without the triangles that most views are against, whose depths are rough."""
    votes = ask_depths(mesh, vertex_normals(mesh), depths, cameras, ROUGHLY, ROUGHLY, on_view)
    return _held_faces(mesh, votes.n_for > votes.n_against)


def _held_faces(mesh: Mesh, is_held: Tensor) -> Mesh:
    return mesh.with_faces(is_held[mesh.faces].sum(dim=1) >= MIN_CORNERS)


def ask_depths(
    mesh: Mesh,
    normals: Tensor,
    depths: Sequence[DepthImage],
    cameras: Cameras,
    reach: float,
    near_by: float,
    on_view: Callable[[], None] = lambda: None,
) -> DepthVotes:
    """Ask the depth of every view about every vertex that it sees.

    Args:
        mesh: Hides its own vertices.
        normals: Unit, of its vertices, towards the outside. [V, 3]
        depths: One per camera.
        cameras: The views.
        reach: Votes are for places so near along the normal, pixels.
        near_by: Views are for the vertex where their depth is so near, pixels.
        on_view: Called after each view.
    """
    votes = DepthVotes(*(torch.zeros(len(mesh.vertices)) for _ in range(4)))
    for i, image in enumerate(depths):
        vote = _vote(mesh, normals, image, cameras.select([i]))
        near = (1 - (vote.shift / reach).square()).clamp_min(0).square() * vote.weight
        votes.weight.index_add_(0, vote.vertices, near)
        votes.shift.index_add_(0, vote.vertices, near * vote.shift * vote.pixel)
        votes.n_for.index_add_(0, vote.vertices, vote.weight * (vote.shift.abs() <= near_by))
        votes.n_against.index_add_(0, vote.vertices, vote.weight * (vote.shift < -near_by))
        on_view()
    return votes


@dataclass(frozen=True)
class _Vote:
    """What one view says of the S vertices that it sees."""

    vertices: Tensor  # [S]
    shift: Tensor  # Along the normal to where its depth is, pixels. [S]
    weight: Tensor  # [S]
    pixel: Tensor  # Size at the vertex, scene units. [S]


def _vote(mesh: Mesh, normals: Tensor, image: DepthImage, camera: Cameras) -> _Vote:
    rays = mesh.vertices - camera.centers()[0].float()
    distance, facing = rays.norm(dim=1), -(rays * normals).sum(dim=1)
    pixels, z = to_pixels(mesh.vertices, camera.viewmats[0], camera.Ks[0])
    is_shown = in_image(pixels, z, camera.width(0), camera.height(0)) & (facing > MIN_FACING * distance)
    at = is_shown.nonzero()[:, 0]
    corners, shares = _around(pixels[at], image.depth.shape)
    own = view_mesh(mesh, camera).depth.reshape(-1)[corners].amax(dim=1)
    known = torch.where(image.is_known(), image.depth, 0.0).reshape(-1)[corners]
    speaks = (z[at] <= (1 + OWN_DEPTH) * own) & (known > 0).all(dim=1)
    at, corners, shares, known = at[speaks], corners[speaks], shares[speaks], known[speaks]
    # 1 / z is linear in pixels on planes.
    there = 1 / (shares / known).sum(dim=1)
    pixel = z[at] / float(camera.Ks[0, 0, 0])
    # Along the normal, to a plane through what is seen that is as steep as the mesh.
    shift = (1 - there / z[at]) * facing[at] / pixel
    weight = image.weight.reshape(-1)[corners].amin(dim=1) * facing[at] / distance[at]
    return _Vote(at, shift, weight, pixel)


def _around(pixels: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Places in an image, row by row, of the four pixels around each point [P, 2], and their bilinear shares. [P, 4]"""
    height, width = shape
    low = (pixels - 0.5).floor()
    low = torch.stack([low[:, 0].clamp(0, max(width - 2, 0)), low[:, 1].clamp(0, max(height - 2, 0))], dim=1)
    x, y = (pixels - 0.5 - low).clamp(0, 1).unbind(dim=1)
    column, row = low.long().unbind(dim=1)
    right, below = (column + 1).clamp_max(width - 1), (row + 1).clamp_max(height - 1)
    corners = torch.stack([row * width + column, row * width + right, below * width + column, below * width + right])
    shares = torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y])
    return corners.T, shares.T
