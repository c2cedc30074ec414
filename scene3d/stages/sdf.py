"""Keep the surface of a mesh as signed distances in a small file (.sdf), or make a mesh of such a file."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from scene3d.core.errors import OutputError
from scene3d.core.mesh import Mesh
from scene3d.io.mesh_files import check_mesh_suffix, read_mesh, write_mesh
from scene3d.meshing.mosaic import mosaic_of_mesh
from scene3d.meshing.radial_sdf import NEAR, fit_radial_sdf
from scene3d.meshing.sdf_file import SUFFIX, Sdf, read_sdf, surface_mesh, write_sdf
from scene3d.ops.radial_grid import RadialGridSettings
from scene3d.ops.threads import set_threads
from scene3d.ops.triangles import sample_surface, signed_distance
from scene3d.report.facts import size_text
from scene3d.report.mesh_facts import mesh_facts

logger = logging.getLogger(__name__)

N_JUDGES, JUDGES_SEED = 20_000, 99


@dataclass(frozen=True)
class Config:
    """What to turn into what."""

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MESH_OR_SDF")]
    """A closed mesh (.ply, .glb, .obj, .stl), or an .sdf file."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """An .sdf of a mesh, or a .ply, .glb, .obj or .usdz of an .sdf."""
    method: Literal["mosaic", "radial"] = "mosaic"
    """mosaic = small grids strewn over the surface, seconds, exact; radial = a pyramid of grids and radial bases along
    the surface (NeuRBF), fitted: a tenth of the bytes, smoother."""
    cells: int = 1024
    """mosaic: grids. More keep more detail."""
    numbers: int = 50_000
    """radial: parameters in all; two bytes each before they are deflated."""
    steps: int = 400
    """radial: of fitting."""
    voxel_size: float | None = None
    """Of a mesh made of an .sdf, scene units. Default: as fine as the distances."""
    seed: int = 0
    """Of every random number."""
    threads: int | None = None
    """Of the native code; all cores by default."""


def run(config: Config) -> None:
    """Convert one way or the other, and print what came of it."""
    set_threads(config.threads)
    began = time.perf_counter()
    if config.source.suffix.lower() == SUFFIX:
        check_mesh_suffix(config.out)
        mesh = surface_mesh(read_sdf(config.source), config.voxel_size)
        write_mesh(mesh, config.out)
        seconds = time.perf_counter() - began
        print(f"{mesh.n_faces:,} triangles, {len(mesh.vertices):,} vertices, {seconds:.1f} s -> {config.out}")
        return
    if config.out.suffix.lower() != SUFFIX:
        raise OutputError(config.out, f"a mesh becomes an {SUFFIX} file", f"Choose a name that ends in {SUFFIX}.")
    mesh = read_mesh(config.source).bare()
    n_open = mesh_facts(mesh, 0).n_open_edges
    if n_open:
        logger.warning("%s: %d open edges: near them inside and outside are guessed", config.source, n_open)
    sdf = _fitted(mesh, config)
    write_sdf(sdf, config.out)
    seconds = time.perf_counter() - began
    error, wrong = _errors(mesh, read_sdf(config.out))
    size, before = config.out.stat().st_size, config.source.stat().st_size
    print(f"near the surface {100 * error:.3f} % of the size off on average, {100 * wrong:.2f} % on the wrong side")
    print(f"{size_text(before)} -> {size_text(size)}, {seconds:.1f} s -> {config.out}")


def _fitted(mesh: Mesh, config: Config) -> Sdf:
    if config.method == "mosaic":
        return mosaic_of_mesh(mesh, config.cells, config.seed)
    return fit_radial_sdf(mesh, RadialGridSettings(config.numbers, n_steps=config.steps, seed=config.seed))


def _errors(mesh: Mesh, sdf: Sdf) -> tuple[float, float]:
    """Mean error over the size of the mesh, and the share on the wrong side, at places near the surface."""
    longest = float((mesh.vertices.amax(dim=0) - mesh.vertices.amin(dim=0)).max())
    places, _ = sample_surface(mesh, N_JUDGES, JUDGES_SEED)
    generator = torch.Generator().manual_seed(JUDGES_SEED)
    places = places + NEAR[0] * longest * torch.randn(places.shape, generator=generator)
    truth, found = signed_distance(mesh, places), sdf.distance(places)
    known = found.isfinite()
    error = float((found - truth)[known].abs().mean()) / longest
    return error, float(((found < 0) != (truth < 0))[known].float().mean())
