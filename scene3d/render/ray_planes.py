"""Ray planes: the depth of round Gaussians where rays come nearest to their middle, by one plane each (RaDe-GS).

Along a ray a Gaussian peaks at a depth that, near its centre, changes with the pixel as a plane does:
z = z0 (1 - n.(r - r0) / n.r0) for rays r = (x, y, 1), r0 that of the centre, n = Σ^-1 m with m the centre in the camera
(Zhang et al. 2024). Such planes are linear in the pixel, so three blended numbers, those of a + b x + c y, give the
mean depth of every pixel and its slopes: the rasterizer blends them as if they were colours.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.ops.pinhole import pixel_rays
from scene3d.ops.quaternions import to_rotmat
from scene3d.ops.sh import C0
from scene3d.render.planes import MIN_ALPHA, Planes
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings

# Depth changes by at most so many depths over a unit of x or y: 80 degrees of slant. Discs seen edge-on have no plane.
MAX_SLOPE = 5.7


def render_ray_planes(gaussians: Gaussians, camera: Cameras, settings: RasterSettings, backend: str = "auto") -> Planes:
    """Mean depth of the planes of one view, and its normals.

    Args:
        gaussians: The scene, flat or round.
        camera: One view.
        settings: As for colours; background and degree have no effect.
        backend: Of the rasterizer.

    Differentiable in means, quats, log_scales and opacity_logits.
    """
    planes = plane_coefficients(gaussians, camera)
    low, high = planes.detach().amin(dim=0), planes.detach().amax(dim=0)
    span = (high - low).clamp_min(torch.finfo(planes.dtype).tiny)
    # The rasterizer adds one half to the colour and clamps it at 0: shares of the range are safe.
    sh0 = (((planes - low) / span - 0.5) / C0)[:, None]
    carrier = replace(gaussians, sh0=sh0, shN=gaussians.shN[:, :0])
    raster = replace(
        settings, sh_degree=0, background=(0.0, 0.0, 0.0), with_depth=False, with_normals=False, absgrad=False
    )
    render = rasterize(carrier, camera, raster, backend)
    alpha = render.alpha[0, ..., 0]
    known = alpha > MIN_ALPHA
    safe = torch.where(known, alpha, 1.0)
    mean = render.rgb[0] / safe[..., None] * span + low
    x, y = pixel_rays(camera, mean)
    a, b, c = mean.unbind(dim=-1)
    depth = a + b * x + c * y
    # The plane z = a + b x + c y in space: points (x z, y z, z), whose tangents by x and y are crossed.
    in_cam = torch.stack([b, c, -(depth + b * x + c * y)], dim=-1)
    normals = torch.nn.functional.normalize(in_cam, dim=-1) @ camera.viewmats[0, :3, :3].to(mean)
    known = known & (depth > 0)
    normals = torch.where(known[..., None], normals * alpha[..., None], 0.0)
    return Planes(normals, torch.where(known, depth, 0.0), alpha)


def plane_coefficients(gaussians: Gaussians, camera: Cameras) -> Tensor:
    """a, b, c of every Gaussian: depth = a + b x + c y on the ray (x, y, 1). [N, 3]"""
    m, n = centers_and_normals(gaussians, camera)
    z = torch.where(m[:, 2].abs() > 1e-6, m[:, 2], 1.0)
    x0, y0 = m[:, 0] / z, m[:, 1] / z
    facing = n[:, 0] * x0 + n[:, 1] * y0 + n[:, 2]
    facing = torch.where(facing.abs() > 1e-12, facing, 1e-12)
    slopes = -z[:, None] * n[:, :2] / facing[:, None]
    limit = MAX_SLOPE * z.detach().abs()[:, None]
    slopes = torch.minimum(torch.maximum(slopes, -limit), limit)
    found = torch.stack([m[:, 2] - slopes[:, 0] * x0 - slopes[:, 1] * y0, slopes[:, 0], slopes[:, 1]], dim=1)
    # What is behind the camera or not finite is not rendered; its numbers must not widen the range of the others.
    sound = (m[:, 2] > 1e-3) & found.detach().isfinite().all(dim=1) & (found.detach().abs().amax(dim=1) < 1e6)
    filler = found.detach()[sound].mean(dim=0) if bool(sound.any()) else found.new_zeros(3)
    return torch.where(sound[:, None], found, filler)


def centers_and_normals(gaussians: Gaussians, camera: Cameras) -> tuple[Tensor, Tensor]:
    """Centres m in the camera and normals n = Σ^-1 m of the planes, of any length. Each [N, 3]"""
    viewmat = camera.viewmats[0].to(gaussians.means)
    axes = viewmat[:3, :3] @ to_rotmat(gaussians.quats)
    m = gaussians.means @ viewmat[:3, :3].T + viewmat[:3, 3]
    # Times the square of the shortest scale: only its direction counts.
    shortest = gaussians.log_scales.detach().amin(dim=1, keepdim=True)
    weights = (2 * (shortest - gaussians.log_scales)).exp()
    return m, (axes @ (weights[:, :, None] * (axes.transpose(1, 2) @ m[:, :, None])))[:, :, 0]
