"""How straight the surface of a depth image is seen, up to its edges."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.ops.depth_edges import ONE_SURFACE, nearness_of
from scene3d.ops.pinhole import pixel_rays

# At an edge a neighbour whose 1 / z differs by more than this share is of another surface.
MOST_SLANTED = 0.06


def facing_cosine(depth: Tensor, camera: Cameras) -> Tensor:
    """Cosine between the rays and the normals of a depth image [H, W], 0 where nothing is known. [H, W]

    Normals are those of the surface that a pixel lies on, up to its edges: else no view would see thin parts. There
    the cosine is halved, for what is round is steeper than it looks from one side.
    """
    K = camera.Ks[0].to(depth.dtype)
    rays = torch.stack([*pixel_rays(camera, depth), torch.ones_like(depth)], dim=-1)
    across, is_smooth_across = _tangents(rays, depth, 1, float(1 / K[0, 0]))
    down, is_smooth_down = _tangents(rays, depth, 0, float(1 / K[1, 1]))
    normals = torch.nn.functional.normalize(torch.linalg.cross(across, down), dim=-1)
    cosine = (normals * torch.nn.functional.normalize(rays, dim=-1)).sum(dim=-1).abs()
    return torch.where(depth > 0, torch.where(is_smooth_across & is_smooth_down, cosine, 0.5 * cosine), 0.0)


def _tangents(rays: Tensor, depth: Tensor, dim: int, pixel: float) -> tuple[Tensor, Tensor]:
    """Tangents [H, W, 3] along one axis of a depth image, and where it is smooth along it [H, W].

    There they go from one neighbour to the other; at an edge to or from the one that is nearer in depth; where neither
    belongs to the surface, they are one pixel at the same depth.
    """
    points = rays * depth[..., None]
    near = nearness_of(depth)
    (before, near_before), (after, near_after) = (
        (torch.roll(points, shift, dim), _shifted(near, shift, dim)) for shift in (1, -1)
    )
    jump_before, jump_after = (torch.where(v > 0, (v - near).abs(), torch.inf) for v in (near_before, near_after))
    is_smooth = (
        (near_before > 0) & (near_after > 0) & ((near_before + near_after - 2 * near).abs() <= ONE_SURFACE * near)
    )
    one_sided = torch.where((jump_before < jump_after)[..., None], points - before, after - points)
    has_side = torch.minimum(jump_before, jump_after) <= MOST_SLANTED * near
    facing = torch.zeros_like(points)
    facing[..., 1 - dim] = pixel * depth
    tangents = torch.where(has_side[..., None], one_sided, facing)
    return torch.where(is_smooth[..., None], after - before, tangents), is_smooth


def _shifted(image: Tensor, shift: int, dim: int) -> Tensor:
    """Rolled, with 0 beyond the border."""
    moved = torch.roll(image, shift, dim)
    moved.select(dim, 0 if shift > 0 else -1).zero_()
    return moved
