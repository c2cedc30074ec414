"""Shapes with known answers, and cameras around them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.mesh import Mesh
from scene3d.meshing.block_grid import SIDE, BlockGrid, evaluate_blocks


def sphere_field(points: Tensor, radius: float = 1.0) -> Tensor:
    return points.norm(dim=1) - radius


def torus_field(points: Tensor) -> Tensor:
    ring = points[:, :2].norm(dim=1) - 1.0
    return torch.stack([ring, points[:, 2]], dim=1).norm(dim=1) - 0.4


def dense_grid(field: Callable[[Tensor], Tensor], reach: float, voxel_size: float) -> BlockGrid:
    """The field in a box of half side `reach` and a little more."""
    n = math.ceil(reach / voxel_size / SIDE) + 1
    steps = torch.arange(-n, n)
    origin = torch.full((3,), 0.37 * voxel_size, dtype=torch.float64)
    return evaluate_blocks(torch.cartesian_prod(steps, steps, steps), origin, voxel_size, field)


def square(z: float, side: float = 1.0) -> Mesh:
    """Two triangles that face +z."""
    vertices = torch.tensor([[0.0, 0, z], [side, 0, z], [side, side, z], [0, side, z]])
    return Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]))


def ring_cameras(n: int = 12, distance: float = 4.0, side: int = 96, focal: float = 110.0) -> Cameras:
    """n square views around the origin from above and from below, z up."""
    viewmats = []
    for i in range(n):
        angle, height = 2 * math.pi * i / n, (1.5 if i % 2 else -1.5)
        eye = torch.tensor([math.cos(angle), math.sin(angle), 0.0]) * math.sqrt(distance**2 - height**2)
        eye[2] = height
        viewmats.append(look_at(eye, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0])))
    K = torch.tensor([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1.0]])
    return Cameras(torch.stack(viewmats), K.repeat(n, 1, 1), torch.tensor([[side, side]]).repeat(n, 1))


def edge_counts(mesh: Mesh) -> Tensor:
    """How many faces share each edge."""
    edges = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]).sort(dim=1).values
    return edges.unique(dim=0, return_counts=True)[1]


def is_closed(mesh: Mesh) -> bool:
    return bool((edge_counts(mesh) == 2).all())


def euler_number(mesh: Mesh) -> int:
    return len(mesh.faces.unique()) - len(edge_counts(mesh)) + mesh.n_faces


def area_and_volume(mesh: Mesh) -> tuple[float, float]:
    a, b, c = mesh.corners().double().unbind(dim=1)
    cross = torch.linalg.cross(b - a, c - a)
    return float(cross.norm(dim=1).sum() / 2), float((a * cross).sum() / 6)


def box(half: tuple[float, float, float] = (1.0, 1.0, 1.0), turn: Tensor | None = None) -> Mesh:
    """A closed box of 12 triangles around the origin, turned by a rotation [3, 3]."""
    corners = torch.tensor([[x, y, z] for z in (-1.0, 1.0) for y in (-1.0, 1.0) for x in (-1.0, 1.0)])
    quads = [[0, 4, 6, 2], [1, 3, 7, 5], [0, 1, 5, 4], [2, 6, 7, 3], [0, 2, 3, 1], [4, 5, 7, 6]]
    faces = torch.tensor([tri for a, b, c, d in quads for tri in ([a, b, c], [a, c, d])])
    vertices = corners * torch.tensor(half)
    return Mesh(vertices if turn is None else vertices @ turn.T, faces)


def tilt() -> Tensor:
    """A rotation that is aligned with nothing."""
    a, b = 0.6, 0.4
    about_z = torch.tensor([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1.0]])
    about_x = torch.tensor([[1.0, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    return about_z @ about_x


def bracket_field(points: Tensor) -> Tensor:
    """A mechanical part: a plate with a drilled hole and an upright with a groove. Sharp edges all over."""

    def block(centre: tuple[float, float, float], half: tuple[float, float, float]) -> Tensor:
        gap = (points - torch.tensor(centre)).abs() - torch.tensor(half)
        return gap.clamp_min(0).norm(dim=1) + gap.amax(dim=1).clamp_max(0)

    plate, upright = block((0, 0, 0), (1.0, 0.6, 0.15)), block((-0.8, 0, 0.5), (0.2, 0.6, 0.5))
    hole = (points[:, :2] - torch.tensor([0.4, 0.0])).norm(dim=1) - 0.3
    groove = block((-0.8, 0, 1.0), (0.5, 0.2, 0.25))
    return torch.maximum(torch.maximum(torch.minimum(plate, upright), -hole), -groove)
