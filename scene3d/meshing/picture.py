"""Pictures of meshes: textured, by vertex colours, or shaded by their normals."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.mesh import Mesh, face_normals
from scene3d.ops.sample_picture import sample_picture
from scene3d.ops.triangles import MeshView, view_mesh

PictureMode = Literal["color", "normals"]


def mesh_picture(
    mesh: Mesh, cameras: Cameras, i: int = 0, mode: PictureMode = "color", oversampling: int = 2
) -> tuple[Tensor, Tensor]:
    """What camera i sees of a mesh.

    Args:
        mesh: With texture, colours, or neither: then its normals are shown.
        cameras: Views.
        i: Which of them.
        mode: color, or normals = x y z as red green blue.
        oversampling: Rays a pixel along each side.

    Returns:
        Colour in [0, 1] over black [H, W, 3] and covered share of the pixels [H, W].
    """
    view = cameras.select([i])
    fine = view.resized(view.sizes * oversampling)
    seen = view_mesh(mesh, fine)
    color = torch.zeros(fine.height(), fine.width(), 3)
    rows, columns = seen.hit.nonzero(as_tuple=True)
    color[rows, columns] = _colors(mesh, seen, rows, columns, mode)
    both = torch.cat([color, seen.hit[..., None].float()], dim=-1).permute(2, 0, 1)[None]
    small = torch.nn.functional.avg_pool2d(both, oversampling)[0].permute(1, 2, 0)
    return small[..., :3], small[..., 3]


def _colors(mesh: Mesh, seen: MeshView, rows: Tensor, columns: Tensor, mode: PictureMode) -> Tensor:  # [P, 3]
    faces = seen.face[rows, columns].long()
    weights = seen.weights[rows, columns][:, :, None]
    corners = mesh.faces[faces]
    if mode == "color" and mesh.texture is not None and mesh.uvs is not None:
        uv = (mesh.uvs[corners] * weights).sum(dim=1)
        height, width, _ = mesh.texture.shape
        place = torch.stack([uv[:, 0] * width, (1 - uv[:, 1]) * height], dim=1)
        return sample_picture(mesh.texture, place) / 255
    if mode == "color" and mesh.colors is not None:
        return (mesh.colors[corners].float() * weights).sum(dim=1) / 255
    return 0.5 + 0.5 * torch.nn.functional.normalize(face_normals(mesh), dim=1)[faces]
