"""What radial bases gain over grids alone at the same number of parameters: for a picture, or for the signed distances
of a closed mesh; how they are placed, and what sines gain.

python tools/bench_radial.py PICTURE_OR_MESH prints a table for docs/benchmarks.md; --out also writes what came of the
last row: the picture, or the mesh by marching cubes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from torch import Tensor

from scene3d.core.mesh import Mesh
from scene3d.io.atomic import atomic_write
from scene3d.io.images import decode_image
from scene3d.io.mesh_files import MESH_SUFFIXES, read_mesh, write_mesh
from scene3d.meshing.radial_sdf import NEAR, RadialSdf, fit_radial_sdf, mesh_of_radial_sdf
from scene3d.ops.image import psnr
from scene3d.ops.radial_grid import RadialGrid, RadialGridSettings
from scene3d.ops.triangles import sample_surface, signed_distance
from scene3d.recon.radial_image import fit_image, image_of

N_JUDGES = 50_000


@dataclass(frozen=True)
class Config:
    """What to fit."""

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PICTURE_OR_MESH")]
    """A .jpg or .png, or a closed mesh."""
    numbers: int = 40_000
    """Parameters of every row, all in all."""
    steps: int = 400
    """Of every fit."""
    max_size: int = 400
    """Longer side of a picture at most, pixels."""
    only: tuple[str, ...] = ()
    """Names of rows; all by default."""
    out: Path | None = None
    """To write what the last row gives."""


def main(config: Config) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    base = RadialGridSettings(n_numbers=config.numbers, n_steps=config.steps)
    rows = {
        "grids alone": replace(base, share=0.0),
        "even bases": replace(base, placing="even", waves=0.0),
        "even bases, sines": replace(base, placing="even"),
        "bases by k-means": replace(base, waves=0.0),
        "bases by k-means, sines, places kept": replace(base, learns_places=False),
        "bases by k-means, sines": base,
    }
    rows = {name: settings for name, settings in rows.items() if not config.only or name in config.only}
    is_mesh = config.source.suffix.lower() in MESH_SUFFIXES
    (print_sdf if is_mesh else print_image)(config, rows)


def print_image(config: Config, rows: dict[str, RadialGridSettings]) -> None:
    """PSNR of each row."""
    picture = decode_image(config.source).convert("RGB")
    picture.thumbnail((config.max_size, config.max_size))
    image = torch.from_numpy(np.array(picture)).float() / 255
    height, width = image.shape[:2]
    print(f"| {width}x{height} pixels | numbers | bases | PSNR | seconds |\n| --- | --- | --- | --- | --- |")
    for name, settings in rows.items():
        model, seconds = timed(lambda: fit_image(image, settings))  # noqa: B023
        found = image_of(model, height, width)
        score = float(psnr(found.clamp(0, 1), image))
        print(f"| {name} | {words(model)} | {score:.2f} dB | {seconds:.0f} |", flush=True)
    if config.out is not None:
        from PIL import Image

        with atomic_write(config.out) as temporary:
            pixels = (found.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
            Image.fromarray(pixels).save(temporary, format=config.out.suffix[1:].upper())


def print_sdf(config: Config, rows: dict[str, RadialGridSettings]) -> None:
    """Errors of each row near the surface, at places that were not learned from."""
    mesh = read_mesh(config.source)
    places, longest = judges(mesh)
    truth = signed_distance(mesh, places)
    print("| signed distances | numbers | bases | mean error, share of the size | wrong side | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, settings in rows.items():
        sdf, seconds = timed(lambda: fit_radial_sdf(mesh, settings))  # noqa: B023
        found: Tensor = sdf.distance(places)
        error = float((found - truth).abs().mean()) / longest
        wrong = float(((found < 0) != (truth < 0)).float().mean())
        row = f"{error:.2e} | {100 * wrong:.2f} % | {seconds:.0f}"
        print(f"| {name} | {words(sdf.model)} | {row} |", flush=True)
    if config.out is not None:
        write_mesh(mesh_of_radial_sdf(sdf, sdf.size / 160), config.out)


def judges(mesh: Mesh) -> tuple[Tensor, float]:
    """Places near the surface [P, 3], and the longest side of the mesh."""
    longest = float((mesh.vertices.amax(dim=0) - mesh.vertices.amin(dim=0)).max())
    points, _ = sample_surface(mesh, N_JUDGES, 99)
    generator = torch.Generator().manual_seed(99)
    return points + NEAR[0] * longest * torch.randn(points.shape, generator=generator), longest


def timed(action: Callable[[], RadialGrid | RadialSdf]) -> tuple[RadialGrid | RadialSdf, float]:
    """What it gives, and its seconds."""
    began = time.perf_counter()
    return action(), time.perf_counter() - began


def words(model: RadialGrid) -> str:
    """Numbers and bases."""
    return f"{model.n_numbers:,} | {0 if model.bases is None else len(model.bases):,}"


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
