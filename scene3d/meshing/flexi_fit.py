"""Fit FlexiCubes to a surface: few triangles that lie on it, sharp edges included.

The loss is the squared distance both ways: from points on the triangles to the target and back. What is fitted is
closed; targets with holes are met where they are and closed beyond.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.core.mesh import Mesh
from scene3d.meshing.flexicubes import CubeGrid, FlexSurface, extract, grid_points, sign_changes, start_grid
from scene3d.ops.triangles import closest_on_mesh, sample_surface, signed_distance

# Cells between the target and the border of the grid, on each side.
MARGIN_CELLS = 2.0


@dataclass(frozen=True)
class FlexSettings:
    """How to fit.

    Attributes:
        resolution: Cubes along the longest side.
        n_steps: Of Adam.
        lr: Its first step size, in units in which a cell is 1 and weights are as stored.
        n_samples: Points on each surface in a step.
        deviation: Weight of the spread of cuts.
        signs: First weight of the cross-entropy of sign changes; a twentieth at the end.
        seed: Of the samples.
    """

    resolution: int = 32
    n_steps: int = 150
    lr: float = 0.03
    n_samples: int = 6000
    deviation: float = 0.02
    signs: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not 4 <= self.resolution <= 256:
            raise ValueError(f"resolution: expected 4 to 256 cubes, got {self.resolution}")
        if self.n_steps < 0 or self.n_samples < 1:
            raise ValueError(f"n_steps, n_samples: expected 0 and 1 or more, got {self.n_steps} and {self.n_samples}")


def grid_around(target: Mesh, resolution: int, field: Callable[[Tensor], Tensor]) -> CubeGrid:
    """A neutral grid around a target with the values of a field [P, 3] -> [P], negative inside."""
    low, high = target.vertices.amin(dim=0), target.vertices.amax(dim=0)
    cell = float((high - low).max()) / (resolution - 2 * MARGIN_CELLS)
    corner = (low + high) / 2 - cell * resolution / 2
    points = grid_points(resolution, corner, cell)
    return start_grid(field(points.reshape(-1, 3)).reshape(points.shape[:3]), corner, cell)


def fit_flexicubes(
    target: Mesh, settings: FlexSettings = FlexSettings(), on_step: Callable[[float], None] = lambda loss: None
) -> Mesh:
    """The mesh of `resolution` cubes that lies closest to a closed target.

    Args:
        target: The surface, closed.
        settings: How.
        on_step: Takes the loss after each step, squared cells.
    """
    grid = grid_around(target, settings.resolution, lambda points: signed_distance(target, points))
    # Distances in cells: step sizes and weights then do not depend on the scale of the scene.
    learned = {name: value.clone() for name, value in grid.learnable().items()}
    learned["sdf"] /= grid.cell
    learned = {name: value.requires_grad_() for name, value in learned.items()}
    optimizer = torch.optim.Adam(learned.values(), lr=settings.lr)
    for step in range(settings.n_steps):
        done = step / settings.n_steps
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * 0.05**done
        moved = replace(grid, **learned)
        surface = extract(moved, with_centers=True)
        loss = surface_loss(surface, target, grid.cell, settings.n_samples, settings.seed + step)
        # Later pulls on the signs would move what lies well already.
        signs = settings.signs * max(0.05, 1 - 4 * done)
        total = loss + settings.deviation * surface.deviation + signs * sign_changes(learned["sdf"])
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        on_step(float(loss.detach()))
    final = replace(grid, **{name: value.detach() for name, value in learned.items()})
    return extract(final).mesh()


def surface_loss(surface: FlexSurface, target: Mesh, cell: float, n_samples: int, seed: int) -> Tensor:
    """Mean squared distance both ways, squared cells. Differentiable in the surface."""
    ours = Mesh(surface.vertices.detach(), surface.faces)
    _, faces = sample_surface(ours, n_samples, seed)
    weights = _weights(n_samples, seed)
    points = (surface.vertices[surface.faces[faces]] * weights[:, :, None]).sum(dim=1)
    nearest = closest_on_mesh(target, points.detach()).points(target)
    forth = (points - nearest).square().sum(dim=1).mean()
    wanted, _ = sample_surface(target, n_samples, seed + 1)
    back = closest_on_mesh(ours, wanted)
    reached = (surface.vertices[surface.faces[back.faces]] * back.weights[:, :, None]).sum(dim=1)
    return (forth + (reached - wanted).square().sum(dim=1).mean()) / cell**2


def _weights(n: int, seed: int) -> Tensor:  # [n, 3]
    """Barycentric weights spread evenly over triangles."""
    u, v = torch.rand(2, n, generator=torch.Generator().manual_seed(seed + 7))
    root = u.sqrt()
    return torch.stack([1 - root, root * (1 - v), root * v], dim=1)
