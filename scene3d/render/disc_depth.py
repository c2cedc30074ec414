"""Disc depth: where rays meet the plane of the flat Gaussian at which half of the light is stopped.

The plane is that of ray_planes.py, which for a flat Gaussian is its own, here exact in perspective. Which Gaussian it
is, the render of the colours says, so that lines thinner than a pixel have depth wherever they have colour; discs cut
by rays themselves (surfels.py) miss such lines.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.ops.pinhole import pixel_rays
from scene3d.ops.quaternions import to_rotmat
from scene3d.render.rasterize import rasterize
from scene3d.render.ray_planes import centers_and_normals
from scene3d.render.types import RasterSettings, Render

# A plane counts up to so many deviations of its Gaussian in depth: steep ones would end anywhere else.
N_DEVIATIONS = 3.0


@torch.no_grad()
def disc_depth(gaussians: Gaussians, camera: Cameras, settings: RasterSettings, render: Render) -> Tensor:
    """Depth of one view, 0 where less than half of the light is stopped. [H, W], on the CPU

    Args:
        gaussians: Flat ones: their shortest axis is the normal.
        camera: One view.
        settings: Those of the render.
        render: Of that view, with depth. Where its backend does not say which Gaussian is the median, the CPU is asked.
    """
    splats, camera = gaussians.to("cpu", torch.float32), camera.to("cpu", torch.float32)
    if render.median_ids is None:
        render = rasterize(splats, camera, replace(settings, with_depth=True, with_normals=False), "cpu")
    assert render.median_ids is not None
    assert render.median_depth is not None
    ids, center = render.median_ids[0].cpu().long(), render.median_depth[0, ..., 0].cpu()
    of_pixel = ids.clamp_min(0)
    x, y = pixel_rays(camera, center)
    m, n = centers_and_normals(splats, camera)
    # On a plane n.(z r) = n.m: 1 / z is linear in the pixel.
    slant = (n[of_pixel] * torch.stack([x, y, torch.ones_like(x)], dim=-1)).sum(dim=-1) / (n * m).sum(dim=1)[of_pixel]
    reach = N_DEVIATIONS * _depth_deviations(splats, camera)[of_pixel]
    depth = torch.where(slant > 0, 1 / slant, torch.inf).nan_to_num(nan=0.0)
    depth = torch.clamp(depth, center - reach, center + reach)
    return torch.where(ids >= 0, depth.clamp_min(0.0), 0.0)


def _depth_deviations(gaussians: Gaussians, camera: Cameras) -> Tensor:  # [N]
    axes = camera.viewmats[0, 2, :3].to(gaussians.means) @ to_rotmat(gaussians.quats)
    return (axes * gaussians.scales).norm(dim=1)
