"""Closed solids with sharp edges or thin parts: what make_mesh_scenes puts on its table.

World axes: z up. Corners of faces run counter-clockwise seen from outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scene3d.core.mesh import Mesh

Point = tuple[float, float, float]


def merged(parts: Sequence[Mesh]) -> Mesh:
    """All parts in one mesh, one after the other."""
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + len(part.vertices))
    faces = [part.faces + start for part, start in zip(parts, starts, strict=False)]
    return Mesh(torch.cat([part.vertices for part in parts]), torch.cat(faces))


def placed(part: Mesh, at: Point = (0, 0, 0), turn_deg: float = 0.0, axis: Point = (0, 0, 1)) -> Mesh:
    """The part turned about an axis through the origin, then moved."""
    unit = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float32), dim=0)
    x, y, z = unit.tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = math.radians(turn_deg)
    rotation = torch.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    return Mesh(part.vertices @ rotation.T + torch.tensor(at, dtype=torch.float32), part.faces)


def slab(size: Point) -> Mesh:
    """A box that stands on z = 0, centred in x and y."""
    x, y, z = size
    outline = torch.tensor([[-x, -y], [x, -y], [x, y], [-x, y]]) / 2
    return extrusion(outline, z)


def extrusion(outline: Tensor, height: float, bore: float = 0.0) -> Mesh:
    """A profile pulled up from z = 0.

    Args:
        outline: Counter-clockwise; every point is seen from the origin. [N, 2]
        height: Of the solid.
        bore: Radius of a round hole about the origin, 0 = none.
    """
    n = len(outline)
    inner = torch.nn.functional.normalize(outline, dim=1) * bore
    rings = [(outline, 0.0), (outline, height)] + ([(inner, height), (inner, 0.0)] if bore else [])
    points = [torch.cat([ring, torch.full((n, 1), z)], dim=1) for ring, z in rings]
    faces = [_band(n, k * n, (k + 1) % len(rings) * n) for k in range(len(rings) if bore else 1)]
    if not bore:
        points.append(torch.tensor([[0, 0, 0], [0, 0, height]], dtype=torch.float32))
        at, after = torch.arange(n), (torch.arange(n) + 1) % n
        faces.append(torch.stack([after, at, torch.full((n,), 2 * n)], dim=1))
        faces.append(torch.stack([at + n, after + n, torch.full((n,), 2 * n + 1)], dim=1))
    return Mesh(torch.cat(points).float(), torch.cat(faces))


def turned(profile: Sequence[tuple[float, float]], n: int = 64) -> Mesh:
    """A profile of (radius, z), from the axis below to the axis above, turned about z."""
    angle = 2 * math.pi * torch.arange(n) / n
    around = torch.stack([angle.cos(), angle.sin()], dim=1)
    inner = profile[1:-1]
    rings = [torch.cat([r * around, torch.full((n, 1), z)], dim=1) for r, z in inner]
    ends = torch.tensor([[0, 0, profile[0][1]], [0, 0, profile[-1][1]]], dtype=torch.float32)
    low, top = len(rings) * n, (len(rings) - 1) * n
    at, after = torch.arange(n), (torch.arange(n) + 1) % n
    faces = [_band(n, k * n, (k + 1) * n) for k in range(len(rings) - 1)]
    faces.append(torch.stack([after, at, torch.full((n,), low)], dim=1))
    faces.append(torch.stack([at + top, after + top, torch.full((n,), low + 1)], dim=1))
    return Mesh(torch.cat([*rings, ends]).float(), torch.cat(faces))


def wire(path: Tensor, radius: float, sides: int = 12) -> Mesh:
    """A round wire along a path [P, 3], closed at its ends."""
    along = torch.nn.functional.normalize(
        torch.cat([path[1:2] - path[:1], path[2:] - path[:-2], path[-1:] - path[-2:-1]]), dim=1
    )
    right = torch.linalg.cross(along[0], torch.eye(3)[int(along[0].abs().argmin())])
    rings = []
    for point, direction in zip(path, along, strict=True):
        # Carried along without turning: the wire does not twist.
        right = torch.nn.functional.normalize(right - (right @ direction) * direction, dim=0)
        up = torch.linalg.cross(direction, right)
        angle = 2 * math.pi * torch.arange(sides)[:, None] / sides
        rings.append(point + radius * (angle.cos() * right + angle.sin() * up))
    n_rings = len(rings)
    first, last = n_rings * sides, n_rings * sides + 1
    at, after = torch.arange(sides), (torch.arange(sides) + 1) % sides
    faces = [_band(sides, k * sides, (k + 1) * sides) for k in range(n_rings - 1)]
    faces.append(torch.stack([after, at, torch.full((sides,), first)], dim=1))
    top = (n_rings - 1) * sides
    faces.append(torch.stack([at + top, after + top, torch.full((sides,), last)], dim=1))
    return Mesh(torch.cat([*rings, path[:1], path[-1:]]).float(), torch.cat(faces))


def gear_outline(n_teeth: int, radius: float, depth: float, per_tooth: int = 8) -> Tensor:
    """Teeth with flat tops and slanted flanks. [n_teeth * per_tooth, 2]"""
    steps = torch.arange(n_teeth * per_tooth)
    place = (steps % per_tooth) / per_tooth
    height = torch.where(place < 0.5, 1.0, 0.0)
    # Flanks: the first point in a tooth and the first in a gap stand a little inwards.
    angle = (
        2
        * math.pi
        * (steps / per_tooth + torch.where(place == 0, 0.06, 0.0) - torch.where(place == 0.375, 0.06, 0.0))
        / n_teeth
    )
    r = radius - depth * (1 - height)
    return torch.stack([r * angle.cos(), r * angle.sin()], dim=1)


def polygon(n_sides: int, radius: float, per_side: int = 1) -> Tensor:
    """A regular polygon, its sides cut into equal pieces. [n_sides * per_side, 2]"""
    angle = 2 * math.pi * torch.arange(n_sides + 1) / n_sides
    corners = radius * torch.stack([angle.cos(), angle.sin()], dim=1)
    share = (torch.arange(per_side) / per_side)[None, :, None]
    return (corners[:-1, None] * (1 - share) + corners[1:, None] * share).reshape(-1, 2)


def _band(n: int, low: int, high: int) -> Tensor:  # [2 n, 3]
    at, after = torch.arange(n), (torch.arange(n) + 1) % n
    one = torch.stack([at + low, after + low, after + high], dim=1)
    two = torch.stack([at + low, after + high, at + high], dim=1)
    return torch.cat([one, two])
