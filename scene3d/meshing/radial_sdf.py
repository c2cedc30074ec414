"""Signed distances of a mesh as grids and radial bases, which lie along its surface (NeuRBF, Chen et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.mesh import Mesh
from scene3d.meshing.block_grid import SIDE, evaluate_blocks, extract_surface, pack, unpack
from scene3d.ops.radial_grid import RadialGrid, RadialGridSettings, fit_radial_grid
from scene3d.ops.triangles import sample_surface, signed_distance

# Room around the mesh, as a share of its longest side.
MARGIN = 0.05
# Samples near the surface lie off it by these shares of the longest side, others anywhere.
NEAR, FAR_SHARE = (0.003, 0.02), 0.2
# Distances beyond that share of the longest side are fitted as if they were just so long: no surface depends on them.
REACH = 0.1
N_SAMPLES = 200_000


@dataclass(frozen=True)
class RadialSdf:
    """Signed distances, negative inside.

    Attributes:
        model: Of places in the box, 0 to 1; in units of REACH size.
        low: Least corner of the box, a cube. [3]
        size: Its side, scene units.
    """

    model: RadialGrid
    low: Tensor
    size: float

    @torch.no_grad()
    def distance(self, points: Tensor) -> Tensor:
        """Distances at points [P, 3], scene units; those outside of the box are looked up on its faces. [P]"""
        return self.model(((points - self.low) / self.size).clamp(0, 1))[:, 0] * (REACH * self.size)


def fit_radial_sdf(mesh: Mesh, settings: RadialGridSettings) -> RadialSdf:
    """Fit to the signed distances of a closed mesh.

    Args:
        mesh: Closed, faces counter-clockwise seen from outside.
        settings: How.
    """
    if mesh.n_faces == 0:
        raise ValueError("mesh: expected triangles, got none")
    least, most = mesh.vertices.amin(dim=0), mesh.vertices.amax(dim=0)
    longest = float((most - least).max())
    if not longest > 0:
        raise ValueError("mesh: expected a surface with a size, got a point")
    size = (1 + 2 * MARGIN) * longest
    low = (least + most) / 2 - size / 2
    points = _samples(mesh, low, size, longest, settings.seed)
    distances = torch.cat([signed_distance(mesh, part) for part in points.split(1 << 16)]) / (REACH * size)
    distances = distances.clamp(-1, 1)
    weights = torch.exp(-distances.abs() * (REACH / NEAR[1])) + 1e-3
    # Relative errors: near the surface small ones count.
    emphasis = 1 / (distances.abs() + NEAR[0] / REACH)
    model = fit_radial_grid(((points - low) / size).clamp(0, 1), distances[:, None], weights, settings, emphasis)
    return RadialSdf(model, low, size)


def mesh_of_radial_sdf(sdf: RadialSdf, voxel_size: float) -> Mesh:
    """The surface by marching cubes over all of the box."""
    if not 0 < voxel_size <= sdf.size / 4:
        raise ValueError(f"voxel_size: expected at most a quarter of the box ({sdf.size / 4:g}), got {voxel_size}")
    side = SIDE * voxel_size
    axis = [torch.arange(int((low) // side), int((low + sdf.size) // side) + 1) for low in sdf.low.tolist()]
    blocks = unpack(pack(torch.cartesian_prod(*axis)).unique())
    return extract_surface(
        evaluate_blocks(blocks, torch.zeros(3, dtype=torch.float64), voxel_size, sdf.distance, 1 << 17)
    )


def _samples(mesh: Mesh, low: Tensor, size: float, longest: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    n_far = round(FAR_SHARE * N_SAMPLES)
    points, _ = sample_surface(mesh, N_SAMPLES - n_far, seed)
    near_share, wide_share = NEAR
    sigma = longest * torch.where(torch.rand(len(points), 1, generator=generator) < 0.5, near_share, wide_share)
    near = points + sigma * torch.randn(len(points), 3, generator=generator)
    return torch.cat([near, low + size * torch.rand(n_far, 3, generator=generator)]).clamp(low, low + size)
