"""Sharp edges on few cubes: the true shape, marching cubes, and FlexiCubes fitted to the shape, side by side.

    python tools/draw_flexicubes.py --out docs/images/flexicubes.jpg

Prints a row per shape: Chamfer, normal consistency and triangles of both, over cubes of the same size.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from mesh_parts import extrusion, gear_outline, merged, placed, slab
from PIL import Image

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.mesh import Mesh
from scene3d.io.atomic import atomic_write
from scene3d.meshing.block_grid import SIDE, evaluate_blocks, extract_surface
from scene3d.meshing.compare import CompareSettings, compare_meshes
from scene3d.meshing.flexi_fit import FlexSettings, fit_flexicubes, grid_around
from scene3d.meshing.picture import mesh_picture
from scene3d.ops.threads import set_threads, single_threaded_torch
from scene3d.ops.triangles import signed_distance

TURN_DEG = 33.0
AXIS = (0.4, 0.7, 0.6)
PIXELS = 420
PAPER = 1.0


@dataclass(frozen=True)
class Config:
    out: Path = Path("flexicubes.jpg")
    """The picture."""
    cells: int = 24
    """Cubes along the longest side."""
    steps: int = 100
    """Of the fit."""


def main(config: Config) -> None:
    """Fit, print, draw."""
    set_threads(None)
    gear = extrusion(gear_outline(9, 1.0, 0.28), 0.5, bore=0.35)
    shapes = {"cube": slab((1.5, 1.5, 1.5)), "gear": gear}
    print("| shape | marching cubes: Chamfer | normals | triangles | FlexiCubes: Chamfer | normals | triangles | s |")
    rows = []
    for name, shape in shapes.items():
        truth = placed(merged([shape]), turn_deg=TURN_DEG, axis=AXIS)
        start = time.perf_counter()
        with single_threaded_torch():
            fitted = fit_flexicubes(truth, FlexSettings(config.cells, config.steps))
        seconds = time.perf_counter() - start
        cubes = marching_cubes(truth, config.cells)
        parts = " | ".join(text(mesh, truth) for mesh in (cubes, fitted))
        print(f"| {name} | {parts} | {seconds:.0f} |", flush=True)
        rows.append(torch.cat([picture(mesh, truth) for mesh in (truth, cubes, fitted)], dim=1))
    with atomic_write(config.out) as temporary:
        Image.fromarray((torch.cat(rows).clamp(0, 1) * 255).byte().numpy()).save(temporary, format="JPEG", quality=85)


def marching_cubes(truth: Mesh, cells: int) -> Mesh:
    """The true signed distance, on cubes as large as those of FlexiCubes."""
    grid = grid_around(truth, cells, lambda points: signed_distance(truth, points))
    n = torch.arange(-(-(cells + 1) // SIDE))
    blocks = torch.cartesian_prod(n, n, n)
    return extract_surface(
        evaluate_blocks(blocks, grid.low.double(), grid.cell, lambda points: signed_distance(truth, points))
    )


def text(mesh: Mesh, truth: Mesh) -> str:
    found = compare_meshes(mesh, truth, CompareSettings((0.01,), 20_000))
    return f"{1e3 * found.chamfer:.2f}e-3 | {found.normal_consistency:.3f} | {mesh.n_faces:,}"


def picture(mesh: Mesh, truth: Mesh) -> torch.Tensor:
    """Normals on white, seen from where the true shape fills the picture. [H, W, 3]"""
    middle = (truth.vertices.amin(dim=0) + truth.vertices.amax(dim=0)) / 2
    reach = float((truth.vertices - middle).norm(dim=1).max())
    eye = middle + 4 * reach * torch.nn.functional.normalize(torch.tensor([0.7, -0.8, 0.9]), dim=0)
    focal = 0.48 * PIXELS * 4
    K = torch.tensor([[focal, 0, PIXELS / 2], [0, focal, PIXELS / 2], [0, 0, 1]])
    view = look_at(eye, middle, torch.tensor([0.0, 0.0, 1.0]))
    camera = Cameras(view[None].float(), K[None], torch.tensor([[PIXELS, PIXELS]]))
    color, alpha = mesh_picture(mesh, camera, mode="normals")
    return color + PAPER * (1 - alpha[..., None])


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
