"""Planes: every Gaussian as the plane through its centre across its shortest axis, blended to one plane a pixel.

Depth at a Gaussian's centre is a staircase; the plane through it gives depth where the ray meets it. With n the blended
normals and d the blended distances from the camera, depth = d / |n . r| for the ray r of the pixel (unbiased for flat
Gaussians; Chen et al. 2024, PGSR, equation 5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.ops.pinhole import pixel_rays
from scene3d.ops.quaternions import to_rotmat
from scene3d.ops.sh import C0
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings

# Rays that run along the blended plane within 84 degrees of its normal meet it; flatter ones give no depth.
MIN_FACING = 0.1
# Thinner matter has no plane.
MIN_ALPHA = 0.05


@dataclass(frozen=True)
class Planes:
    """What one view sees.

    Attributes:
        normals: Blended, weighted by opacity, world, facing the camera. [H, W, 3]
        depth: z in the camera at which the ray meets the blended plane, 0 = unknown. [H, W]
        alpha: Opacity. [H, W]
    """

    normals: Tensor
    depth: Tensor
    alpha: Tensor


def render_planes(
    gaussians: Gaussians,
    camera: Cameras,
    settings: RasterSettings,
    backend: str = "auto",
    normals: Tensor | None = None,
) -> Planes:
    """Normals and unbiased depth of one view.

    Args:
        gaussians: The scene.
        camera: One view.
        settings: As for colours; background and degree have no effect.
        backend: Of the rasterizer.
        normals: Those that a render of this view gave already [H, W, 3]; None renders them.

    Differentiable in means, quats, log_scales and opacity_logits.
    """
    distances = plane_distances(gaussians, camera)
    unit = distances.detach().amax().clamp_min(torch.finfo(distances.dtype).tiny)
    # Distances go where colours go: the rasterizer adds one half to the colour, and nothing is below 0 to be clamped.
    sh0 = torch.nn.functional.pad(((distances / unit - 0.5) / C0)[:, None, None], (0, 2))
    carrier = replace(gaussians, sh0=sh0, shN=gaussians.shN[:, :0])
    raster = replace(
        settings, sh_degree=0, background=(0.0, 0.0, 0.0), with_depth=False, with_normals=normals is None, absgrad=False
    )
    render = rasterize(carrier, camera, raster, backend)
    if normals is None:
        assert render.normals is not None
        normals = render.normals[0]
    distance, alpha = render.rgb[0, ..., 0] * unit, render.alpha[0, ..., 0]
    facing = -(normals * rays_of(camera, normals)).sum(dim=-1)
    length = normals.norm(dim=-1)
    known = (alpha > MIN_ALPHA) & (facing > MIN_FACING * length) & (length > MIN_FACING * alpha)
    depth = torch.where(known, distance / torch.where(known, facing, 1.0), 0.0)
    return Planes(normals, depth, alpha)


def plane_distances(gaussians: Gaussians, camera: Cameras) -> Tensor:
    """Distance of the camera from the plane of every Gaussian, at least 0. [N]"""
    rotations = to_rotmat(gaussians.quats)
    shortest = gaussians.log_scales.detach().argmin(dim=1)
    axes = rotations.gather(2, shortest[:, None, None].expand(-1, 3, 1))[:, :, 0]
    center = camera.centers()[0].to(axes)
    return (axes * (gaussians.means - center)).sum(dim=1).abs()


def rays_of(camera: Cameras, like: Tensor) -> Tensor:
    """Directions through pixel centres in the world, 1 along the axis of the camera. [H, W, 3]"""
    x, y = pixel_rays(camera, like)
    return torch.stack([x, y, torch.ones_like(x)], dim=-1) @ camera.viewmats[0, :3, :3].to(like)


def depth_normals(depth: Tensor, camera: Cameras) -> tuple[Tensor, Tensor]:
    """Normals of a depth image by central differences.

    Args:
        depth: z in the camera, 0 = unknown. [H, W]
        camera: Its view.

    Returns:
        Unit normals in the world, facing the camera, 0 where not known [H, W, 3], and where they are known [H, W].

    Differentiable in depth.
    """
    points = rays_of(camera, depth) * depth[..., None]
    across = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    known = torch.zeros_like(depth, dtype=torch.bool)
    ok = depth > 0
    known[1:-1, 1:-1] = ok[1:-1, 2:] & ok[1:-1, :-2] & ok[2:, 1:-1] & ok[:-2, 1:-1] & ok[1:-1, 1:-1]
    cross = torch.nn.functional.pad(torch.linalg.cross(down, across), (0, 0, 1, 1, 1, 1))
    cross = torch.where(known[..., None], cross, 0.0)
    # Flat triangles of a pixel are tiny: lengths far below 1 are sound, 0 is not.
    normals = torch.nn.functional.normalize(cross, dim=-1, eps=1e-20)
    return normals, known
