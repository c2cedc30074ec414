"""Stretches of the rays of an image that lie in a shell (Adaptive Shells, Wang et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.mesh import Mesh, face_normals
from scene3d.core.shell import Shell
from scene3d.ops.triangles import view_mesh

# Farther than any scene.
FAR = 1e30
# Depths of triangles are rounded: stretches begin and end this share of the distance sooner and later.
SLACK = 1e-4


def shell_stretches(shell: Shell, camera: Cameras) -> tuple[Tensor, Tensor]:
    """Where the ray of each pixel enters the outer mesh and where it meets the inner one, along the ray.

    Args:
        shell: Its meshes may have the camera inside of them.
        camera: One view.

    Returns:
        From and until, scene units [H, W] float32 each; from is not below until where the ray misses the shell.
    """
    camera = camera.to(dtype=torch.float32)
    K = camera.Ks[0]
    y = ((torch.arange(camera.height()) + 0.5 - K[1, 2]) / K[1, 1])[:, None]
    x = ((torch.arange(camera.width()) + 0.5 - K[0, 2]) / K[0, 0])[None] - y * (K[0, 1] / K[0, 0])
    length = (x.square() + y.square() + 1).sqrt()
    outer, is_inside = _first_hits(shell.outer, camera, x, y)
    inner, is_behind = _first_hits(shell.inner, camera, x, y)
    begins = torch.where(is_inside, 0.0, outer * (1 - SLACK) * length)
    ends = torch.where((inner > 0) & ~is_behind, inner * (1 + SLACK) * length, FAR)
    return torch.where(outer > 0, begins, FAR), torch.where(outer > 0, ends, 0.0)


def _first_hits(mesh: Mesh, camera: Cameras, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Depth of the nearest face, 0 where there is none, and whether it is seen from within. [H, W] each"""
    if mesh.n_faces == 0:
        nothing = torch.zeros(camera.height(), camera.width())
        return nothing, nothing.bool()
    view = view_mesh(mesh, camera)
    normals = face_normals(mesh) @ camera.viewmats[0, :3, :3].T
    a, b, c = normals[view.face.clamp_min(0).long()].unbind(dim=-1)
    return view.depth, (a * x + b * y + c > 0) & view.hit
