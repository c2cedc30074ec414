"""Light and paint for scenes of triangles: solid textures, a soft sky through shadow maps, mirror-like coats.

Everything is a function of the place in the world and, for coats, of the direction of sight: the same surface point has
the same matte colour in all views. Colours are linear until they are written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.mesh import Mesh
from scene3d.ops.triangles import view_mesh

SHADOW_SIDE = 1024
# Shadow maps are taken from so many scene radii away: nearly parallel light.
SHADOW_DISTANCE = 30.0
# Reflectance of a coat seen straight on.
COAT_F0 = 0.06


@dataclass(frozen=True)
class Paint:
    """Colour of one object.

    Attributes:
        light: Of the bright parts, linear.
        dark: Of the others, linear.
        cell: Size of the pattern's coarsest lumps, scene units.
        stripes: Width of stripes on top, 0 = none.
        coat: 0 = matte, 1 = a mirror-like coat.
        glow: Shines with its own colour, without light or shadow: what is far away.
    """

    light: tuple[float, float, float]
    dark: tuple[float, float, float]
    cell: float = 0.12
    stripes: float = 0.0
    coat: float = 0.0
    glow: bool = False


@dataclass(frozen=True)
class Sky:
    """Light from many directions, with its shadows.

    Attributes:
        directions: Towards the light. [D, 3]
        strengths: Linear, of all together 1. [D]
        cameras: What each of them sees.
        depths: Of the nearest surface. D of [S, S]
    """

    directions: Tensor
    strengths: Tensor
    cameras: Cameras
    depths: tuple[Tensor, ...]


def value_noise(points: Tensor, seed: int = 0) -> Tensor:
    """Smooth random values in [0, 1] with lumps of size 1. [P, 3] -> [P]"""
    low = points.floor()
    share = points - low
    share = share * share * (3 - 2 * share)
    total = torch.zeros(len(points))
    for corner in range(8):
        step = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2])
        weight = torch.where(step.bool(), share, 1 - share).prod(dim=1)
        total += weight * _hash(low.long() + step, seed)
    return total


def painted(paint: Paint, points: Tensor, seed: int) -> Tensor:
    """Linear colours at points [P, 3] of an object. [P, 3]"""
    place = points / paint.cell
    mix = sum(0.5**k * value_noise(place * 2.1**k + 17.0 * k, seed + k) for k in range(4)) / 1.875
    mix = ((mix - 0.5) * 3 + 0.5).clamp(0, 1)
    if paint.stripes:
        wave = (2 * math.pi / paint.stripes * (points @ torch.tensor([0.48, 0.6, 0.64]))).sin()
        mix = mix * (0.6 + 0.4 * (3 * wave).tanh())
    tint = 0.8 + 0.4 * torch.stack([value_noise(place * 0.9, seed + 50 + c) for c in range(3)], dim=1)
    return (torch.tensor(paint.dark) + mix[:, None] * (torch.tensor(paint.light) - torch.tensor(paint.dark))) * tint


def make_sky(mesh: Mesh, n: int, radius: float) -> Sky:
    """A sky brighter on one side, `n` directions spread evenly over it, shadows of everything in `mesh`."""
    k = torch.arange(n) + 0.5
    height = 0.12 + 0.88 * k / n
    angle = math.pi * (1 + math.sqrt(5)) * k
    flat = (1 - height**2).sqrt()
    directions = torch.stack([flat * angle.cos(), flat * angle.sin(), height], dim=1)
    strengths = (
        0.35 + (directions @ torch.nn.functional.normalize(torch.tensor([0.5, -0.4, 0.7]), dim=0)).clamp_min(0) ** 3
    )
    distance = SHADOW_DISTANCE * radius
    focal = 0.5 * SHADOW_SIDE * distance / (1.05 * radius)
    viewmats = torch.stack([look_at(distance * d, torch.zeros(3), torch.tensor([0.01, 1.0, 0.02])) for d in directions])
    K = torch.tensor([[focal, 0, SHADOW_SIDE / 2], [0, focal, SHADOW_SIDE / 2], [0, 0, 1]])
    cameras = Cameras(viewmats, K.repeat(n, 1, 1), torch.tensor([[SHADOW_SIDE, SHADOW_SIDE]]).repeat(n, 1))
    depths = tuple(view_mesh(mesh, cameras, i).depth for i in range(n))
    return Sky(directions, strengths / strengths.sum(), cameras, depths)


def sky_light(sky: Sky, points: Tensor, normals: Tensor, bias: float) -> Tensor:
    """Irradiance at points [P, 3], 1 for a level place without shadow or so. [P]"""
    total = torch.zeros(len(points))
    focal, half = float(sky.cameras.Ks[0, 0, 0]), SHADOW_SIDE / 2
    for i, direction in enumerate(sky.directions):
        facing = (normals @ direction).clamp_min(0)
        viewmat = sky.cameras.viewmats[i]
        # Lifted off the surface, more where the light grazes it.
        lifted = points + bias * normals
        in_cam = lifted @ viewmat[:3, :3].T + viewmat[:3, 3]
        pixel = (in_cam[:, :2] / in_cam[:, 2:] * focal + half).long().clamp(0, SHADOW_SIDE - 1)
        depth = sky.depths[i][pixel[:, 1], pixel[:, 0]]
        lit = (depth == 0) | (in_cam[:, 2] <= depth + bias)
        total += float(sky.strengths[i]) * facing * lit
    return 1.9 * total + 0.12 * (0.5 + 0.5 * normals[:, 2])


def environment(directions: Tensor) -> Tensor:
    """What a mirror sees: soft boxes and windows in a bright room. [P, 3] -> [P, 3], linear."""
    boxes = ((0.5, -0.4, 0.75), (-0.7, 0.3, 0.6), (0.1, 0.9, 0.4), (-0.3, -0.8, 0.5))
    total = 0.25 + 0.25 * directions[:, 2:3].clamp(-1, 1).expand(-1, 3)
    for k, box in enumerate(boxes):
        cosine = directions @ torch.nn.functional.normalize(torch.tensor(box), dim=0)
        lobe = ((cosine - 0.93) * 60).sigmoid()
        total = total + lobe[:, None] * torch.tensor([[3.0, 2.8, 2.5], [2.0, 2.3, 2.8]][k % 2])
    return total.clamp_min(0)


def coated(matte: Tensor, coat: Tensor, normals: Tensor, views: Tensor) -> Tensor:
    """Matte colours [P, 3] under coats [P] with unit normals, seen along unit views [P, 3]. [P, 3]"""
    cosine = -(normals * views).sum(dim=1, keepdim=True).clamp(-1, 0)
    fresnel = (COAT_F0 + (1 - COAT_F0) * (1 - cosine) ** 5) * coat[:, None]
    mirrored = views - 2 * (views * normals).sum(dim=1, keepdim=True) * normals
    return matte * (1 - fresnel) + fresnel * environment(mirrored)


def to_srgb(linear: Tensor) -> Tensor:
    """Linear to sRGB in [0, 1]."""
    x = linear.clamp(0, 1)
    return torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp_min(1e-8) ** (1 / 2.4) - 0.055)


def _hash(cells: Tensor, seed: int) -> Tensor:  # [P, 3] int64 -> [P] in [0, 1]
    h = cells[:, 0] * 73856093 ^ cells[:, 1] * 19349663 ^ cells[:, 2] * 83492791 ^ (seed * 2654435761 & 0xFFFFFFFF)
    h = (h ^ h >> 13) * 1274126177 & 0xFFFFFFFF
    h = (h ^ h >> 16) * 668265263 & 0xFFFFFFFF
    return ((h ^ h >> 15) & 0xFFFFFF).float() / 0xFFFFFF
