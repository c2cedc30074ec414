"""Few triangles, same surface: the mesh of a scene by TSDF decimated and met by FlexiCubes, and mosaics of shapes.

    python tools/bench_small_meshes.py captures/mechanical-matte pgsr/scene.ply

First table: distances from the true mesh of the capture, exact and not aligned, of what training views see, for all
triangles of the fused surface, for level set and tetrahedra, for fewer of each (quadric decimation), and for FlexiCubes
of several numbers of cells. Second table: mesh to mosaic of signed distances to bytes to mesh, of a gear and a torus
(nothing of the capture).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from mesh_parts import extrusion, gear_outline, merged, placed

from scene3d.core.capture import Capture
from scene3d.core.mesh import Mesh
from scene3d.io.capture_files import read_capture
from scene3d.io.mesh_files import read_mesh
from scene3d.io.registry import read_scene
from scene3d.meshing.block_grid import SIDE, evaluate_blocks, extract_surface
from scene3d.meshing.compare import CompareSettings, MeshComparison, compare_meshes, pixel_footprint
from scene3d.meshing.depth_views import DepthKind, ViewSettings
from scene3d.meshing.finish import FinishSettings, decimate, finish
from scene3d.meshing.mosaic import mesh_of_mosaic, mosaic_of_mesh, pack_mosaic, unpack_mosaic
from scene3d.meshing.scene_mesh import MeshSettings, raw_surface
from scene3d.meshing.surfaces import Method, SurfaceSettings, few_triangles
from scene3d.ops.threads import set_threads, single_threaded_torch

TURN_DEG, AXIS = 33.0, (0.4, 0.7, 0.6)
TORUS_RADII = (1.0, 0.4)
TORUS_VOXEL = 0.03
COLUMNS = ("", "Chamfer", "accuracy", "completeness", "F 1 px", "normals", "triangles", "s")


@dataclass(frozen=True)
class Config:
    capture: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CAPTURE")]
    """Capture with its true mesh.ply."""
    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE")]
    """Fitted to it."""
    depth: DepthKind = "auto"
    """Of the views that are fused."""
    far: float = 4.6
    """Surfaces farther from the cameras are left out."""
    photo_depth: bool = False
    """Better the depth by comparing the photos."""
    methods: tuple[Method, ...] = ("levelset", "tetrahedra")
    """Beside tsdf, with as few triangles."""
    shares: tuple[int, ...] = (4, 10, 16, 64)
    """Quadric decimation to one in so many of the triangles of tsdf."""
    cells: tuple[int, ...] = (64, 96, 128)
    """FlexiCubes along the longest side."""
    mosaics: tuple[int, ...] = (100, 300, 1000)
    """Cells of mosaics."""
    n_samples: int = 50_000
    """Points on each surface."""


def main(config: Config) -> None:
    """Measure, print both tables."""
    set_threads(None)
    with single_threaded_torch():
        print_compact(config)
        print_mosaics(config)


def print_compact(config: Config) -> None:
    """The table of few triangles."""
    capture = read_capture(config.capture)
    truth, train = read_mesh(config.capture / "mesh.ply"), capture.cameras.select(capture.train)
    settings = CompareSettings((pixel_footprint(truth, train),), config.n_samples)
    whole = surface(config, capture, "tsdf")
    print(f"| {' | '.join(COLUMNS)} |")
    base = compare_meshes(whole, truth, settings, train)
    print(compact_row("TSDF, all triangles", base, base, None), flush=True)
    makers: list[tuple[str, Callable[[], Mesh]]] = []
    for method in ("tsdf", *config.methods):
        mesh = whole if method == "tsdf" else surface(config, capture, method)
        if method != "tsdf":
            found = compare_meshes(mesh, truth, settings, train)
            print(compact_row(f"{method}, all triangles", found, base, None), flush=True)
        for share in config.shares:
            makers.append(
                (f"{method}, 1/{share}", lambda mesh=mesh, share=share: decimate(mesh, whole.n_faces // share))
            )
    for cells in config.cells:
        how = SurfaceSettings("flexicubes", resolution=cells)
        makers.append(
            (
                f"FlexiCubes, {cells} cells",
                lambda how=how: finish(few_triangles(whole, how), FinishSettings(max_faces=0)),
            )
        )
    for name, make in makers:
        start = time.perf_counter()
        mesh = make()
        seconds = time.perf_counter() - start
        print(compact_row(name, compare_meshes(mesh, truth, settings, train), base, seconds), flush=True)


def surface(config: Config, capture: Capture, method: Method) -> Mesh:
    """The scene's surface by a method, with all its triangles, as scene3d mesh makes it."""
    settings = MeshSettings(
        views=ViewSettings(config.depth, far=config.far),
        surface=SurfaceSettings(method),
        photo_depth=config.photo_depth,
    )
    photos = [capture.load(i) for i in capture.train] if config.photo_depth else None
    raw, _ = raw_surface(read_scene(config.scene), capture.cameras.select(capture.train), settings, photos)
    return finish(raw, FinishSettings(max_faces=0))


def compact_row(name: str, found: MeshComparison, base: MeshComparison, seconds: float | None) -> str:
    more = "" if found is base else f" ({100 * (found.chamfer / base.chamfer - 1):+.1f} %)"
    score, normals = found.f_scores[0], found.normal_consistency
    took = "-" if seconds is None else f"{seconds:.0f}"
    lengths = " | ".join(f"{1e3 * v:.2f}e-3" for v in (found.accuracy, found.completeness))
    shares = f"{score:.3f} | {normals:.3f}"
    return f"| {name} | {1e3 * found.chamfer:.2f}e-3{more} | {lengths} | {shares} | {found.n_faces:,} | {took} |"


def print_mosaics(config: Config) -> None:
    """The table of mosaics."""
    gear = placed(merged([extrusion(gear_outline(9, 1.0, 0.28), 0.5, bore=0.35)]), turn_deg=TURN_DEG, axis=AXIS)
    print(
        "\n| | cells | bytes | Chamfer | normals | triangles again | s |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for name, truth in {"gear": gear, "torus": torus()}.items():
        for cells in config.mosaics:
            start = time.perf_counter()
            data = pack_mosaic(mosaic_of_mesh(truth, cells))
            again = mesh_of_mosaic(unpack_mosaic(data))
            seconds = time.perf_counter() - start
            found = compare_meshes(again, truth, CompareSettings((0.01,), config.n_samples))
            print(
                f"| {name} | {cells} | {len(data):,} | {1e3 * found.chamfer:.2f}e-3 | {found.normal_consistency:.3f} | "
                f"{again.n_faces:,} | {seconds:.0f} |",
                flush=True,
            )


def torus() -> Mesh:
    """Of the radii TORUS_RADII, by marching cubes so fine that they are no part of the distances measured."""
    large, small = TORUS_RADII
    reach = large + small + 4 * TORUS_VOXEL
    n = torch.arange(math.ceil(2 * reach / TORUS_VOXEL / SIDE))
    blocks = torch.cartesian_prod(n, n, n).int()

    def distance(points: torch.Tensor) -> torch.Tensor:
        ring = points[:, :2].norm(dim=1) - large
        return (ring.square() + points[:, 2].square()).sqrt() - small

    corner = torch.full((3,), -reach, dtype=torch.float64)
    return extract_surface(evaluate_blocks(blocks, corner, TORUS_VOXEL, distance))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
