"""A mesh beside the scene that it was made of: one picture, a view a row."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.mesh import Mesh
from scene3d.core.scene import Scene
from scene3d.meshing.picture import mesh_picture
from scene3d.render.scene_view import render_scene
from scene3d.render.types import RasterSettings

N_VIEWS = 3
# Longer side of a picture, pixels.
SIDE = 400


@torch.no_grad()
def beside(scene: Scene, mesh: Mesh, cameras: Cameras, backend: str = "auto") -> Tensor:
    """Draw both from some of the views: the scene, the mesh, the normals of the mesh.

    Args:
        scene: What the mesh was made of.
        mesh: With texture, colours, or neither.
        cameras: Views; the first one's size is that of all pictures.
        backend: Of the rasterizer.

    Returns:
        sRGB over black, N_VIEWS rows of three pictures. [H, W, 3] uint8
    """
    n = min(N_VIEWS, len(cameras))
    # From the middle of equal parts: the first and the last view of a capture often show its edge.
    picked = cameras.select([(2 * i + 1) * len(cameras) // (2 * n) for i in range(n)])
    shrink = min(1.0, SIDE / float(picked.sizes[0].max()))
    sizes = (picked.sizes[:1].double() * shrink).round().long().clamp_min(1)
    views = picked.resized(sizes.expand(n, 2))
    rows = []
    for i in range(n):
        view = views.select([i]).to(dtype=torch.float32)
        render = render_scene(scene, view, RasterSettings(antialiased=scene.info.antialiased), backend).rgb[0].cpu()
        pictures = [render, mesh_picture(mesh, view)[0], mesh_picture(mesh, view, mode="normals")[0]]
        rows.append(torch.cat(pictures, dim=1))
    return (torch.cat(rows).clamp(0, 1) * 255).round().to(torch.uint8)
