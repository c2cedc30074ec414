"""Fit FlexiCubes to a surface: few triangles that lie on it, sharp edges included.

The loss is the squared distance both ways: from points on the triangles to the target and back. What is fitted is
closed; targets with holes are met where they are and closed beyond.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.mesh import Mesh
from scene3d.meshing.flexicubes import CubeGrid, FlexSurface, extract, grid_points, sign_changes, start_grid
from scene3d.meshing.poisson import close_surface
from scene3d.ops.triangles import closest_on_mesh, sample_surface, signed_distance

# Distances with gradient and moments, rows, and what extraction takes. Weights are few beside it.
BYTES_PER_CUBE = 120
# Cells from the surface at the start within which cubes have weights: it moves by less.
BAND = 3.0
# Distances far from the surface are taken from a lattice so many times as coarse.
COARSE = 4
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


def box_around(target: Mesh, resolution: int) -> tuple[Tensor, float]:
    """Low corner [3] and side of the cubes of a grid around a target."""
    low, high = target.vertices.amin(dim=0), target.vertices.amax(dim=0)
    cell = float((high - low).max()) / (resolution - 2 * MARGIN_CELLS)
    return (low + high) / 2 - cell * resolution / 2, cell


def grid_around(target: Mesh, resolution: int, field: Callable[[Tensor], Tensor]) -> CubeGrid:
    """A neutral grid around a target with the values of a field [P, 3] -> [P], negative inside."""
    low, cell = box_around(target, resolution)
    points = grid_points(resolution, low, cell)
    return start_grid(field(points.reshape(-1, 3)).reshape(points.shape[:3]), low, cell)


def near_distance(closed: Mesh, points: Tensor, cell: float) -> Tensor:
    """Signed distances at the points of a lattice, exact near the surface, else from a coarser lattice.

    Args:
        closed: The surface.
        points: [D, D, D, 3], `cell` apart.
        cell: Their distance.

    Returns:
        [D, D, D].
    """
    n = points.shape[0]
    some = torch.arange(0, n + COARSE - 1, COARSE).clamp_max(n - 1)
    rough = signed_distance(closed, points[some][:, some][:, :, some].reshape(-1, 3)).reshape((len(some),) * 3)
    # Within its cell of 4 a distance differs by at most the diagonal.
    nearest = torch.div(torch.arange(n) + COARSE // 2, COARSE, rounding_mode="floor").clamp_max(len(some) - 1)
    result = rough[nearest][:, nearest][:, :, nearest].clone()
    near = result.abs() < (COARSE * 3**0.5 + BAND) * cell
    result[near] = signed_distance(closed, points[near])
    return result


def fit_flexicubes(
    target: Mesh,
    settings: FlexSettings = FlexSettings(),
    on_step: Callable[[float], None] = lambda loss: None,
    signs: Mesh | None = None,
) -> Mesh:
    """The mesh of `resolution` cubes that lies closest to a target.

    Args:
        target: The surface.
        settings: How.
        on_step: Takes the loss after each step, squared cells.
        signs: A closed surface that tells inside from outside; None takes the target, which must be closed then.
    """
    closed = target if signs is None else signs
    low, cell = box_around(target, settings.resolution)
    points = grid_points(settings.resolution, low, cell)
    grid = start_grid(near_distance(closed, points, cell), low, cell, BAND * cell)

    def loss(surface: FlexSurface, moved: CubeGrid, step: int) -> Tensor:
        return surface_loss(surface, target, grid.cell, settings.n_samples, settings.seed + step)

    return extract(optimize(grid, settings, loss, on_step)).mesh()


def optimize(
    grid: CubeGrid,
    settings: FlexSettings,
    loss: Callable[[FlexSurface, CubeGrid, int], Tensor],
    on_step: Callable[[float], None] = lambda loss: None,
) -> CubeGrid:
    """Move distances, corners and weights of a grid down a loss.

    Args:
        grid: To begin with.
        settings: How.
        loss: Of the surface, the grid (its distances in cells) and the number of the step.
        on_step: Takes the loss after each step.
    """
    # Distances in cells: step sizes and weights then do not depend on the scale of the scene.
    learned = {name: value.clone() for name, value in grid.learnable().items()}
    learned["sdf"] /= grid.cell
    learned = {name: value.requires_grad_() for name, value in learned.items()}
    optimizer = torch.optim.Adam(learned.values(), lr=settings.lr)
    for step in range(settings.n_steps):
        done = step / settings.n_steps
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * 0.05**done
        moved = grid.with_learnable(learned)
        surface = extract(moved, with_centers=True)
        value = loss(surface, moved, step)
        # Later pulls on the signs would move what lies well already.
        signs = settings.signs * max(0.05, 1 - 4 * done)
        total = value + settings.deviation * surface.deviation + signs * sign_changes(learned["sdf"])
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        on_step(float(value.detach()))
    return grid.with_learnable({name: value.detach() for name, value in learned.items()})


def fit_open_surface(
    raw: Mesh,
    settings: FlexSettings = FlexSettings(),
    on_step: Callable[[float], None] = lambda loss: None,
    max_bytes: int = 2 << 30,
) -> Mesh:
    """The mesh of few triangles that lies closest to an open surface, open where that is.

    A closed surface through it (Poisson) tells inside from outside, and stands in where the surface is missing; what
    was fitted to the stand-in is cut away again.

    Args:
        raw: The surface, faces counter-clockwise seen from outside.
        settings: How.
        on_step: Takes the loss after each step, squared cells.
        max_bytes: Memory at most.

    Raises:
        ValueError: the resolution takes too much memory, or the surface has no area.
    """
    wanted = BYTES_PER_CUBE * settings.resolution**3
    if wanted > max_bytes:
        better = int((max_bytes / BYTES_PER_CUBE) ** (1 / 3))
        raise ValueError(
            f"resolution: {settings.resolution} cubes a side would take {wanted / 2**30:.1f} GB, allowed are "
            f"{max_bytes / 2**30:.1f}. Use {better} or fewer, or --max-memory-gb"
        )
    closed = close_surface(raw, 256 if settings.resolution > 48 else 128, max_bytes)
    size = float((raw.vertices.amax(dim=0) - raw.vertices.amin(dim=0)).max())
    cell = size / (settings.resolution - 2 * MARGIN_CELLS)
    stand_in = closed.with_faces(_distances(closed, raw) > cell)
    target = Mesh(
        torch.cat([raw.vertices, stand_in.vertices]), torch.cat([raw.faces, stand_in.faces + len(raw.vertices)])
    )
    fitted = fit_flexicubes(target, settings, on_step, closed)
    return fitted.with_faces(_distances(fitted, raw) <= cell)


def _distances(mesh: Mesh, other: Mesh) -> Tensor:  # [F], of the middles of faces from the other mesh
    return closest_on_mesh(other, mesh.corners().mean(dim=1)).distances


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
