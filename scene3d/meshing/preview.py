"""A turntable of a mesh as one picture: views from all around, row by row, that a page can turn by hand."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.mesh import Mesh
from scene3d.meshing.picture import mesh_picture
from scene3d.ops.triangles import sample_surface
from scene3d.render.paths import Shot, orbit
from scene3d.render.scene_points import ScenePoints
from scene3d.render.surround import from_points

N_VIEWS = 24
COLUMNS = 6
SIDE = 320
# Points that stand for the surface where the camera is placed.
N_POINTS = 20_000
ELEVATION_DEG = 20.0
BACKGROUND = 0.13
# Share of the picture that the mesh fills at most.
FILL = 0.9


def turntable(mesh: Mesh, up: tuple[float, float, float] | None = None) -> Tensor:
    """Draw a mesh from N_VIEWS places around it.

    Args:
        mesh: With at least one triangle.
        up: World direction that is up; None takes -y.

    Returns:
        sRGB, COLUMNS squares of SIDE pixels in each row. [H, W, 3] uint8
    """
    points, _ = sample_surface(mesh, N_POINTS)
    surround = from_points(ScenePoints(points, torch.ones(len(points))), up)
    surround = replace(surround, focus=((points.amin(dim=0) + points.amax(dim=0)) / 2).double())
    cameras = _filled(orbit(surround, Shot(SIDE, SIDE, N_VIEWS), ELEVATION_DEG), points)
    tiles = []
    for i in range(N_VIEWS):
        rgb, alpha = mesh_picture(mesh, cameras, i)
        tiles.append(rgb + BACKGROUND * (1 - alpha[..., None]))
    rows = [torch.cat(tiles[i : i + COLUMNS], dim=1) for i in range(0, N_VIEWS, COLUMNS)]
    return (torch.cat(rows).clamp(0, 1) * 255).round().to(torch.uint8)


def _filled(cameras: Cameras, points: Tensor) -> Cameras:
    """The views, all zoomed alike so that every point is in each picture."""
    in_cam = points @ cameras.viewmats[:, :3, :3].transpose(1, 2) + cameras.viewmats[:, None, :3, 3]
    # From a mesh that is larger than its dense middle, what lies at the camera cannot be shown.
    ahead = in_cam[..., 2] > 0.1 * in_cam[..., 2].median()
    slope = (in_cam[..., :2].abs().amax(dim=-1) / in_cam[..., 2])[ahead].max()
    Ks = cameras.Ks.clone()
    Ks[:, 0, 0] = Ks[:, 1, 1] = FILL * SIDE / 2 / slope
    return replace(cameras, Ks=Ks)
