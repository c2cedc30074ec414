"""Meshes of scenes against the true mesh of a capture that has one: distances, triangles, time, pictures.

Prints one row per method. The first one fuses exact depth: the floor of the voxel size, and the test of the bench
itself. Distances are those of scene3d.meshing.compare: exact, not aligned, only what training views see counts.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from PIL import Image

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture
from scene3d.core.mesh import Mesh
from scene3d.core.scene import Scene
from scene3d.io.atomic import atomic_write, write_json
from scene3d.io.capture_files import read_capture
from scene3d.io.mesh_files import read_mesh, write_mesh
from scene3d.io.registry import read_scene
from scene3d.meshing.background import without_background
from scene3d.meshing.block_grid import extract_surface
from scene3d.meshing.compare import CompareSettings, MeshComparison, compare_meshes, compare_parts, pixel_footprint
from scene3d.meshing.consistency import ConsistencySettings
from scene3d.meshing.depth_views import DepthKind, ViewSettings, choose_views, resolve_depth
from scene3d.meshing.finish import FinishSettings
from scene3d.meshing.fusion import DepthImage, FusionSettings, fuse
from scene3d.meshing.level_set import LEVEL
from scene3d.meshing.picture import mesh_picture
from scene3d.meshing.scene_mesh import MeshSettings, mesh_scene
from scene3d.meshing.surfaces import Method, SurfaceSettings
from scene3d.ops.image import psnr
from scene3d.ops.threads import set_threads, single_threaded_torch
from scene3d.ops.triangles import view_mesh
from scene3d.render.scene_view import render_scene
from scene3d.render.types import RasterSettings
from scene3d.stages.mesh import PICTURE_LEVEL, PICTURE_SPECK

# Of pictures of all methods, pixels.
SHEET_SIDE = 200
COLUMNS = ("method", "Chamfer", "accuracy", "completeness", "F ½ px", "F 1 px", "F 2 px", "normals", "triangles")
COLUMNS += ("s", "cpu s", "mesh dB", "scene dB", "share", "covered dB", "scene dB", "whole dB", "scene dB")


@dataclass(frozen=True)
class Config:
    capture: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CAPTURE")]
    """Capture whose folder holds the true mesh."""
    truth: Path | None = None
    """The true mesh. Default: mesh.ply in the capture."""
    scenes: tuple[Path, ...] = ()
    """Scenes fitted to the capture."""
    depths: tuple[DepthKind, ...] = ("auto",)
    """Kinds of depth, each with every scene."""
    methods: tuple[Method | Literal["pictures"], ...] = ("tsdf",)
    """Methods; all but tsdf take the first kind of depth only. pictures = as `scene3d mesh --preset pictures`."""
    voxel_size: float | None = None
    """Default: 1.6 pixels."""
    tolerance: float = 0.01
    """Depths agree to within this share of the depth."""
    min_agree: int = 2
    """Views that must agree; 0 = believe all depths."""
    far: float = 4.6
    """Surfaces farther from the cameras are left out."""
    max_faces: int = 50_000
    """Triangles at most; 0 = all."""
    level: float = LEVEL
    """levelset, tetrahedra: share of the light that is lost at the surface."""
    background: bool = False
    """Put a shell behind the mesh for the pictures; distances are of the mesh alone."""
    colors_from: Literal["renders", "photos"] = "renders"
    """Pictures that colours are taken from."""
    photo_depth: Literal["auto", "on", "off"] = "off"
    """Better the depth by comparing the photos; auto = of surface fits, as `scene3d mesh` does."""
    texture_size: int = 2048
    """Side of textures, texels; 0 = none, and no pictures are compared: much faster."""
    apart: tuple[str, ...] = ()
    """Names in objects.json of the capture: every method gets a row more for these objects together, and one for all
    others."""
    n_samples: int = 100_000
    """Points on each surface."""
    min_views: int = 1
    """Training views that must see a point for it to count; depth by comparing takes three that agree."""
    exact: bool = True
    """Also fuse exact depth."""
    view: int = 0
    """Test view that is shown, by number."""
    out: Path | None = None
    """Folder for meshes, pictures and rows.json."""


@dataclass(frozen=True)
class Way:
    """One way from a scene to a mesh."""

    name: str
    depth: DepthKind
    method: Method | Literal["pictures"]


@dataclass(frozen=True)
class Row:
    """One method."""

    name: str
    chamfer: float
    accuracy: float
    completeness: float
    f_half: float
    f_one: float
    f_two: float
    normals: float
    n_faces: int
    seconds: float
    cpu_seconds: float
    mesh_psnr: float | None = None
    splat_psnr: float | None = None
    covered: float | None = None
    covered_psnrs: tuple[float, float] | None = None
    whole_psnrs: tuple[float, float] | None = None


def main(config: Config) -> None:
    """Measure every method, print the table."""
    set_threads(None)
    capture = read_capture(config.capture)
    truth = read_mesh(config.truth or config.capture / "mesh.ply")
    train = capture.cameras.select(capture.train)
    footprint = pixel_footprint(truth, train)
    settings = CompareSettings((footprint / 2, footprint, 2 * footprint), config.n_samples, config.min_views)
    print(f"pixel footprint {footprint:.5f}")
    print(f"| {' | '.join(COLUMNS)} |")
    rows = []
    with single_threaded_torch():
        if config.exact:
            mesh, seconds = timed(lambda: exact_fusion(truth, train, config.voxel_size or 1.6 * footprint))
            rows.append(row("exact depth", compare_meshes(mesh, truth, settings, train), seconds))
            print(text(rows[-1]), flush=True)
        sheet = []
        for path in config.scenes:
            scene = read_scene(path)
            shown: list[torch.Tensor] = []
            for method, kind in itertools.product(config.methods, config.depths):
                if method == "tsdf" or kind == config.depths[0]:
                    way = Way(f"{path.parent.name} {kind} {method}", kind, method)
                    rows.append(measure(scene, way, capture, truth, settings, config, shown))
            sheet.append(shown)
    if config.out is not None:
        if sheet:
            save_sheet(capture, capture.test[config.view], sheet, config.out / "methods.jpg")
        write_json(config.out / "rows.json", [asdict(r) for r in rows])


def exact_fusion(truth: Mesh, cameras: Cameras, voxel_size: float) -> Mesh:
    """Fusion of the true mesh's own depth."""
    depths = [view_mesh(truth, cameras, i).depth for i in range(len(cameras))]
    images = [DepthImage(depth, torch.ones_like(depth)) for depth in depths]
    return extract_surface(fuse(images, cameras, FusionSettings(voxel_size)))


def measure(
    scene: Scene,
    way: Way,
    capture: Capture,
    truth: Mesh,
    settings: CompareSettings,
    config: Config,
    shown: list[torch.Tensor],
) -> Row:
    """Mesh a scene, compare, render both at the test views; with a folder for pictures, `shown` gets one more."""
    cameras = choose_views(capture.cameras.select(capture.train), 120, 800)
    how = mesh_settings(scene, way, config)
    wants_photos = how.photo_depth or how.photo_colors
    photos = [capture.load(i) for i in capture.train] if wants_photos else None
    mesh, seconds = timed(lambda: mesh_scene(scene, cameras, how, photos))
    surface = without_background(mesh) if config.background else mesh
    result = row(way.name, compare_meshes(surface, truth, settings, capture.cameras.select(capture.train)), seconds)
    if config.texture_size:
        scores = [scores_of(mesh, scene, truth, capture, i) for i in capture.test]
        mean = torch.tensor(scores, dtype=torch.float64).mean(dim=0).tolist()
        result = replace(
            result,
            mesh_psnr=mean[0],
            splat_psnr=mean[1],
            covered=mean[2],
            covered_psnrs=(mean[3], mean[4]),
            whole_psnrs=(mean[5], mean[6]),
        )
    if config.apart:
        for name, part in objects_apart(surface, truth, settings, capture, config).items():
            print(text(row(f"{way.name}, {name}", part, seconds)), flush=True)
    if config.out is not None:
        write_mesh(mesh, config.out / f"{way.name.replace(' ', '_')}.glb")
        show(mesh, capture, capture.test[config.view], config.out / f"{way.name.replace(' ', '_')}.jpg")
        shown.append(torch.cat(both_pictures(mesh, capture, capture.test[config.view])))
    print(text(result), flush=True)
    return result


def mesh_settings(scene: Scene, way: Way, config: Config) -> MeshSettings:
    """What `scene3d mesh` would do."""
    is_pictures = way.method == "pictures"
    method: Method = "tetrahedra" if way.method == "pictures" else way.method
    level = PICTURE_LEVEL if is_pictures else config.level
    is_flat = resolve_depth(scene, way.depth) == "disc"
    speck = PICTURE_SPECK if is_pictures else FinishSettings().min_component
    photo_depth = config.photo_depth == "on" or (config.photo_depth == "auto" and is_flat and not is_pictures)
    return MeshSettings(
        views=ViewSettings(way.depth, far=config.far),
        consistency=ConsistencySettings(tolerance=config.tolerance, min_agree=config.min_agree),
        surface=SurfaceSettings(method, config.voxel_size, level=level, as_drawn=is_pictures),
        finish=FinishSettings(speck, max_faces=config.max_faces, keep_borders=not is_pictures),
        texture_size=config.texture_size,
        background=config.background,
        photo_depth=photo_depth,
        photo_colors=config.colors_from == "photos",
        silhouettes=is_pictures,
    )


def objects_apart(
    mesh: Mesh, truth: Mesh, settings: CompareSettings, capture: Capture, config: Config
) -> dict[str, MeshComparison]:
    """The comparison for objects named in the config and for all others."""
    objects = json.loads((config.capture / "objects.json").read_text())
    unknown = set(config.apart) - {item["name"] for item in objects}
    if unknown:
        raise ValueError(f"apart: no object {min(unknown)!r} in {config.capture / 'objects.json'}")
    part = torch.zeros(truth.n_faces, dtype=torch.int64)
    for item in objects:
        part[item["first_face"] : item["first_face"] + item["n_faces"]] = int(item["name"] in config.apart)
    parts = compare_parts(mesh, truth, part, settings, capture.cameras.select(capture.train))
    return {("others", "apart")[k]: result for k, result in parts.items()}


def scores_of(mesh: Mesh, scene: Scene, truth: Mesh, capture: Capture, i: int) -> tuple[float, ...]:
    """PSNR of mesh and scene against a photo: where the truth has a surface, where the mesh has it too, everywhere.

    Returns:
        Both where the truth is, the share of it that the mesh covers, both there, both in the whole picture.
    """
    photo = capture.load(i).rgb.float() / 255
    surface = view_mesh(truth, capture.cameras, i).hit.float()
    drawn, alpha = mesh_picture(mesh, capture.cameras, i)
    raster = RasterSettings(antialiased=scene.info.antialiased)
    rendered = render_scene(scene, capture.cameras.select([i]), raster).rgb[0].clamp(0, 1)
    covered = surface * (alpha == 1)

    def both(where: torch.Tensor) -> tuple[float, float]:
        return float(psnr(drawn, photo, where)), float(psnr(rendered, photo, where))

    return *both(surface), float(covered.sum() / surface.sum()), *both(covered), *both(torch.ones_like(surface))


def show(mesh: Mesh, capture: Capture, i: int, path: Path) -> None:
    """Photo, mesh and its normals side by side."""
    parts = [capture.load(i).rgb.float() / 255, *both_pictures(mesh, capture, i)]
    save(torch.cat(parts, dim=1), path)


def both_pictures(mesh: Mesh, capture: Capture, i: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mesh and its normals from view i."""
    return mesh_picture(mesh, capture.cameras, i)[0], mesh_picture(mesh, capture.cameras, i, "normals")[0]


def save_sheet(capture: Capture, i: int, shown: list[list[torch.Tensor]], path: Path) -> None:
    """All methods of every scene side by side, mesh above normals, behind the photo; SHEET_SIDE pixels wide each."""
    photo = capture.load(i).rgb.float() / 255
    blank = torch.zeros_like(photo)
    rows = [torch.cat([torch.cat([photo, blank]), *pictures], dim=1) for pictures in shown]
    sheet = torch.cat(rows).permute(2, 0, 1)[None]
    scale = SHEET_SIDE / photo.shape[1]
    small = torch.nn.functional.interpolate(sheet, scale_factor=scale, mode="area")
    save(small[0].permute(1, 2, 0), path)


def save(picture: torch.Tensor, path: Path) -> None:
    with atomic_write(path) as temporary:
        Image.fromarray((picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()).save(temporary, quality=85)


def timed(make: Callable[[], Mesh]) -> tuple[Mesh, tuple[float, float]]:
    """What `make` gives, with wall-clock and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    mesh = make()
    return mesh, (time.perf_counter() - wall, time.process_time() - cpu)


def row(name: str, result: MeshComparison, seconds: tuple[float, float]) -> Row:
    scores = result.f_scores
    errors = (result.chamfer, result.accuracy, result.completeness)
    return Row(name, *errors, *scores, result.normal_consistency, result.n_faces, *seconds)


def text(r: Row) -> str:
    psnrs = "-" + 6 * " | -"
    if r.covered is not None:
        pairs = (*r.covered_psnrs, *r.whole_psnrs)
        psnrs = f"{r.mesh_psnr:.2f} | {r.splat_psnr:.2f} | {r.covered:.3f} | " + " | ".join(f"{v:.2f}" for v in pairs)
    lengths = " | ".join(f"{1e3 * v:.2f}e-3" for v in (r.chamfer, r.accuracy, r.completeness))
    shares = " | ".join(f"{v:.3f}" for v in (r.f_half, r.f_one, r.f_two, r.normals))
    return f"| {r.name} | {lengths} | {shares} | {r.n_faces:,} | {r.seconds:.0f} | {r.cpu_seconds:.0f} | {psnrs} |"


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
