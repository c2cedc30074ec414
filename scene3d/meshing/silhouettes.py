"""Silhouettes: move a mesh until its outlines lie where pictures of the scene have them.

Wherever one surface ends before another, in any view, the picture tells how far the near colour really reaches: on the
line of pixels across the outline every pixel is so much near and so much far colour, and the sum of the shares is where
the outline lies, to a fraction of a pixel. Each such place pulls at the corners of its triangle, in the plane of the
picture, across the outline; all pulls of all views are met in the sense of least squares, with stiffness between
neighbouring vertices. Few rounds are needed, each with the outlines of the moved mesh.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.mesh import Mesh, vertex_normals
from scene3d.meshing.depth_views import SurfaceViews
from scene3d.meshing.outlines import Across, find_outlines, outward_directions, shifts_of
from scene3d.meshing.pulls import Pulls, solve, squares
from scene3d.meshing.texture import color_vertices
from scene3d.ops.triangles import MeshView, view_mesh

# More views and rounds change little.
MAX_VIEWS = 48
N_ROUNDS = 2
# Outlines that lines of pixels meet at a flatter angle are seen by the lines of the other direction. Cosine.
MIN_ACROSS = 0.5


def fit_silhouettes(
    mesh: Mesh, views: SurfaceViews, is_fixed: Tensor | None = None, on_view: Callable[[], None] = lambda: None
) -> Mesh:
    """The mesh with its vertices moved, with normals; colours and textures are dropped.

    Args:
        mesh: At least one face.
        views: Their pictures and opacities count; at most MAX_VIEWS of them, evenly picked.
        is_fixed: Vertices that stay. [V] bool
        on_view: Called after each view of each round.
    """
    picked = picked_views(len(views.cameras))
    cameras = views.cameras.select(picked)
    colors = color_vertices(mesh, cameras, [views.pictures[i] for i in picked]).colors
    assert colors is not None
    for _ in range(N_ROUNDS):
        pulls = Pulls(torch.zeros(len(mesh.vertices), 6), torch.zeros(len(mesh.vertices), 3))
        for i in picked:
            picture = torch.cat([views.pictures[i], views.opacities[i][..., None]], dim=-1)
            add_pulls(replace(mesh, colors=colors), views.cameras.select([i]), picture, pulls)
            on_view()
        moved = solve(mesh, pulls)
        if is_fixed is not None:
            moved[is_fixed] = 0
        mesh = replace(mesh.bare(), vertices=mesh.vertices + moved)
    return replace(mesh, normals=vertex_normals(mesh))


def picked_views(n: int) -> list[int]:
    """Which of n views are looked at."""
    count = min(n, MAX_VIEWS)
    return [k * n // count for k in range(count)]


def add_pulls(mesh: Mesh, camera: Cameras, picture: Tensor, pulls: Pulls) -> None:
    """Add what one picture says of the outlines of a mesh with colours.

    Args:
        mesh: With colours.
        camera: One view.
        picture: What it shows of the scene: colour over black, opacity. [H, W, 4] uint8
        pulls: Grows.
    """
    seen = view_mesh(mesh, camera)
    nearness = torch.where(seen.hit, 1 / seen.depth, 0.0)
    outwards = outward_directions(nearness)

    def shown(rows: Tensor, columns: Tensor) -> Tensor:
        return _drawn(mesh, seen, rows, columns)

    for outline in find_outlines(nearness):
        direction = outwards[outline.rows, outline.columns]
        across = direction[:, 1 - outline.axis] * outline.step
        outline = outline.select(across > MIN_ACROSS)
        direction, across = direction[across > MIN_ACROSS], across[across > MIN_ACROSS]
        found = shifts_of(outline, shown, picture, nearness)
        # A line that is met at a slant moves less than the place where it is met.
        found = Across(found.shift * across, found.weight * across)
        _pull(mesh, camera, seen, (outline.rows, outline.columns), direction, found, pulls)


def _drawn(mesh: Mesh, seen: MeshView, rows: Tensor, columns: Tensor) -> Tensor:
    """Colours and opacity of a mesh at pixels [...]. [..., 4]"""
    assert mesh.colors is not None
    face = seen.face[rows, columns]
    weights = seen.weights[rows, columns][..., None]
    color = (mesh.colors[mesh.faces[face.clamp_min(0).long()]].float() * weights).sum(dim=-2) / 255
    hit = (face >= 0).float()[..., None]
    return torch.cat([color * hit, hit], dim=-1)


def _pull(
    mesh: Mesh,
    camera: Cameras,
    seen: MeshView,
    at: tuple[Tensor, Tensor],
    direction: Tensor,
    found: Across,
    pulls: Pulls,
) -> None:
    """Add pulls at pixels, along directions [P, 2] in the picture."""
    size = seen.depth[at] / camera.Ks[0, 0, 0].float()
    world = direction @ camera.viewmats[0, :2, :3].float()
    square = squares(world)
    corners = mesh.faces[seen.face[at].long()]
    for k in range(3):
        weight = seen.weights[at][:, k] * found.weight
        pulls.A.index_add_(0, corners[:, k], weight[:, None] * square)
        pulls.b.index_add_(0, corners[:, k], (weight * found.shift * size)[:, None] * world)
