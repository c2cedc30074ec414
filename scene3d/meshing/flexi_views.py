"""Fit FlexiCubes to images: what cameras saw decides, not another mesh.

The mesh of each step is rasterized in a few of the views. Where it is seen near the depth of the image, the depth of
its triangles is pulled there; where the image shows a surface and the mesh does not, the nearest point of the mesh is
pulled to it; where the mesh stands before what the image shows, or where the image shows nothing at all (the
silhouette), the distances of the grid are raised until that part is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.mesh import Mesh
from scene3d.meshing.flexi_fit import FlexSettings, optimize
from scene3d.meshing.flexicubes import CubeGrid, FlexSurface, extract
from scene3d.ops.triangles import MeshView, closest_on_mesh, view_mesh
from scene3d.render.planes import rays_of

# Depths of mesh and image that differ by more cells are of different surfaces.
SAME_SURFACE = 3.0
# What is to vanish gets at least this distance, cells.
EMPTY = 0.3
VIEWS_A_STEP = 4
PIXELS_A_VIEW = 1500


@dataclass(frozen=True)
class TargetView:
    """What one camera saw.

    Attributes:
        depth: z in the camera, 0 = unknown. [H, W]
        empty: Where rays meet nothing at all. [H, W] bool
    """

    depth: Tensor
    empty: Tensor


def fit_to_views(
    grid: CubeGrid,
    views: Sequence[TargetView],
    cameras: Cameras,
    settings: FlexSettings = FlexSettings(),  # noqa: B008 - frozen
    on_step: Callable[[float], None] = lambda loss: None,
) -> Mesh:
    """The mesh of a grid that looks like the views.

    Args:
        grid: To begin with: any closed surface, positive all around the border.
        views: One per camera, of its size.
        cameras: The views.
        settings: How; of it n_samples has no effect.
        on_step: Takes the loss after each step, squared cells.
    """

    def loss(surface: FlexSurface, moved: CubeGrid, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(settings.seed + step)
        total = moved.sdf.sum() * 0
        for i in torch.randperm(len(views), generator=generator)[:VIEWS_A_STEP].tolist():
            total = total + view_loss(surface, moved, views[i], cameras.select([i]), generator)
        return total / VIEWS_A_STEP

    return extract(optimize(grid, settings, loss, on_step)).mesh()


def view_loss(
    surface: FlexSurface, grid: CubeGrid, view: TargetView, camera: Cameras, generator: torch.Generator
) -> Tensor:
    """Mean over pixels of squared misses in cells. Differentiable in the surface and in grid.sdf, which is in cells."""
    mesh = Mesh(surface.vertices.detach().float(), surface.faces)
    if mesh.n_faces == 0:
        return grid.sdf.sum() * 0
    seen = view_mesh(mesh, camera)
    known = view.depth > 0
    gap = (seen.depth - view.depth) / grid.cell
    near = seen.hit & known & (gap.abs() < SAME_SURFACE)
    missing = known & ~near & ~(seen.hit & (gap < 0))
    in_front = seen.hit & ((known & (gap <= -SAME_SURFACE)) | view.empty)
    rays, eye = rays_of(camera, view.depth), camera.centers()[0]
    at = [_some(mask, generator) for mask in (near, missing, in_front)]
    there = [
        eye + rays[y, x] * depth[y, x, None]
        for (y, x), depth in zip(at, (view.depth, view.depth, seen.depth), strict=True)
    ]
    pulled = _depth_miss(surface, seen, at[0], rays, eye) - view.depth[at[0]]
    total = (pulled / grid.cell).square().sum()
    closest = closest_on_mesh(mesh, there[1].float()) if len(there[1]) else None
    if closest is not None:
        reached = (surface.vertices[surface.faces[closest.faces]] * closest.weights[:, :, None]).sum(dim=1)
        # Far ones pull no harder than those a few cells away.
        miss = ((reached - there[1]) / grid.cell).square().sum(dim=1).add(1e-12).sqrt()
        total = total + 2 * torch.nn.functional.huber_loss(
            miss, torch.zeros_like(miss), reduction="sum", delta=SAME_SURFACE
        )
    # Half a cell behind the wall that is to go, where the grid says inside.
    behind = there[2] + 0.5 * grid.cell * rays[at[2]]
    total = total + (EMPTY - _look_up(grid, behind)).clamp_min(0).sum()
    return total / max(sum(len(y) for y, _ in at), 1)


def _some(mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """At most PIXELS_A_VIEW of the pixels of a mask, rows and columns."""
    y, x = mask.nonzero(as_tuple=True)
    if len(y) > PIXELS_A_VIEW:
        chosen = torch.randperm(len(y), generator=generator)[:PIXELS_A_VIEW]
        y, x = y[chosen], x[chosen]
    return y, x


def _depth_miss(
    surface: FlexSurface, seen: MeshView, at: tuple[Tensor, Tensor], rays: Tensor, eye: Tensor
) -> Tensor:  # [P], differentiable
    """Depth at which the rays of pixels meet the planes of the triangles that they see."""
    a, b, c = surface.vertices[surface.faces[seen.face[at].long()]].unbind(dim=1)
    normals = torch.linalg.cross(b - a, c - a)
    across = (normals * rays[at]).sum(dim=1)
    # Triangles seen edge-on have no depth to speak of.
    sound = across.detach().abs() > 0.05 * normals.detach().norm(dim=1) * rays[at].norm(dim=1)
    depth = (normals * (a - eye)).sum(dim=1) / torch.where(sound, across, 1.0)
    return torch.where(sound, depth, seen.depth[at])


def _look_up(grid: CubeGrid, points: Tensor) -> Tensor:  # [P], trilinear, differentiable in grid.sdf
    n = grid.sdf.shape[0]
    unit = 2 * (points - grid.low) / (grid.cell * (n - 1)) - 1
    values = torch.nn.functional.grid_sample(
        grid.sdf[None, None], unit[None, None, None].to(grid.sdf.dtype), align_corners=True, padding_mode="border"
    )
    return values.reshape(-1)
