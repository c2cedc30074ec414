"""Pulls: where vertices of a mesh are drawn to, met in the sense of least squares with neighbours moving alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.mesh import Mesh, unique_edges

# Of an edge between vertices, beside one pull of weight 1, and how many times as much that of short ones is at most.
STIFFNESS, MOST_TIMES = 1.0, 25.0
INERTIA = 0.02
N_SOLVER_STEPS = 40


@dataclass(frozen=True)
class Pulls:
    """Least squares of the displacements d of V vertices: the least of d . A d - 2 b . d.

    Attributes:
        A: Upper triangles xx xy xz yy yz zz. [V, 6]
        b: Weights times scene units. [V, 3]
    """

    A: Tensor
    b: Tensor


def squares(directions: Tensor) -> Tensor:
    """Upper triangles xx xy xz yy yz zz of d d^T for directions [P, 3]. [P, 6]"""
    x, y, z = directions.unbind(dim=1)
    return torch.stack([x * x, x * y, x * z, y * y, y * z, z * z], dim=1)


def solve(mesh: Mesh, pulls: Pulls) -> Tensor:
    """Displacements that meet the pulls, neighbours alike: conjugate gradients. [V, 3]"""
    n = len(mesh.vertices)
    a, b = unique_edges(mesh).unbind(dim=1)
    length = (mesh.vertices[a] - mesh.vertices[b]).norm(dim=1)
    # Of close ones any difference turns slivers over.
    stiffness = STIFFNESS * (length.mean() / length.clamp_min(1e-30)).clamp(1, MOST_TIMES)
    total = torch.zeros(n).index_add_(0, a, stiffness).index_add_(0, b, stiffness)
    full = pulls.A[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    diagonal = pulls.A[:, [0, 3, 5]] + total[:, None] + INERTIA

    def apply(d: Tensor) -> Tensor:
        apart = stiffness[:, None] * (d[a] - d[b])
        stiff = torch.zeros_like(d).index_add_(0, a, apart).index_add_(0, b, -apart)
        return (full @ d[..., None])[..., 0] + stiff + INERTIA * d

    d, residual = torch.zeros_like(pulls.b), pulls.b.clone()
    direction = residual / diagonal
    product = (residual * direction).sum()
    for _ in range(N_SOLVER_STEPS):
        if not float(product) > 0:
            break
        image = apply(direction)
        length = product / (direction * image).sum()
        d, residual = d + length * direction, residual - length * image
        preconditioned = residual / diagonal
        following = (residual * preconditioned).sum()
        direction, product = preconditioned + following / product * direction, following
    return d
