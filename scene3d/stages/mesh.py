"""Turn a scene into a mesh with texture that opens in Blender and in browsers: fuse depth, clean, decimate, bake."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from PIL import Image

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture, Photo
from scene3d.core.errors import OutputError
from scene3d.core.mesh import Mesh
from scene3d.core.scene import Scene
from scene3d.io.atomic import atomic_write, check_writable, write_json
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.mesh_files import check_mesh_suffix, write_mesh
from scene3d.io.registry import read_scene
from scene3d.meshing.background import has_outside, without_background
from scene3d.meshing.beside import beside
from scene3d.meshing.consistency import ConsistencySettings
from scene3d.meshing.depth_views import DepthKind, ViewSettings, choose_views, resolve_depth
from scene3d.meshing.finish import FinishSettings
from scene3d.meshing.held_out import HeldOutScore, held_out_score
from scene3d.meshing.level_set import LEVEL
from scene3d.meshing.preview import COLUMNS, N_VIEWS, turntable
from scene3d.meshing.scene_mesh import MeshSettings, mesh_scene
from scene3d.meshing.surfaces import Method, SurfaceSettings
from scene3d.ops.threads import set_threads, single_threaded_torch
from scene3d.report.mesh_facts import mesh_facts
from scene3d.report.run_folder import MESH_BESIDE, MESH_FACTS, MESH_PREVIEW
from scene3d.stages.mesh_views import choose

# Default of --far over the distance of the cameras from the middle of the scene.
FAR_SHARE = 1.6
PICTURE_QUALITY = 82
# Lower levels close what is half transparent: measured on held-out photos.
PICTURE_LEVEL = 0.4
PICTURE_SPECK = 1e-5
# Of held-out photos: so much needs no word about the rest.
ALL_COVERED = 0.99
# Less holds no surface at all.
MIN_MEMORY_GB = 1e-3


@dataclass(frozen=True)
class Config:
    """What to turn into a mesh, and how."""

    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE")]
    """Scene file: of fit, or any splat file."""
    out: Path | None = None
    """A .glb, .ply, .obj or .usdz. Default: mesh.glb beside the folder of the scene."""
    capture: Path | None = None
    """Folder with the photos and poses of the scene: depth is taken from the training views."""
    cameras: Path | None = None
    """A cameras.json or camera_path.json instead. Default: the cameras.json that a fit left with the scene, else views
    from all around where the scene stands free, else views made up near the splats, which show less."""
    preset: Literal["shape", "pictures"] = "shape"
    """shape = nearest to the true surface where splats lie on it: method tsdf. pictures = looks most like the scene:
    method tetrahedra, level 0.4, splats as wide as they are drawn, outlines fitted to those of the scene, a background
    where there is one; 2 to 4 times as long."""
    method: Method | None = None
    """tsdf = average depth images into signed distances, then marching cubes. levelset = where the rays of all views
    have lost half of their light, on a lattice. tetrahedra = the same between points of the splats, for thin parts.
    Both leave out what views see through, and with --photo-depth or discs go where views have the surface: the nearest
    to it. poisson = a smooth surface through that of tsdf. flexicubes = few triangles fitted to that of tsdf, edges
    kept.
    Default: of the preset; pictures of a radiance field take levelset."""
    depth: DepthKind = "auto"
    """median = where half of the light is stopped; expected = the mean, smoother, wrong at edges; disc = where rays
    meet flat splats, for scenes of fit --surface; plane = the mean of their planes; ray = the same through round ones.
    auto = what suits."""
    voxel_size: float | None = None
    """Scene units. Default: 1.6 pixels. Smaller keeps more detail and more noise."""
    resolution: int = 128
    """flexicubes: cubes along the longest side; triangles grow with its square, time and memory with its cube."""
    level: float | None = None
    """levelset, tetrahedra: share of the light that is lost at the surface; lower ones are thicker. Default: 0.5; 0.4
    for pictures."""
    far: float | None = None
    """Surfaces farther from the cameras are left out, scene units. Default: 1.6 times the distance to the middle."""
    min_agree: int = 2
    """Depths that fewer of the nearest views confirm are left out; 0 = believe all."""
    tolerance: float = 0.01
    """Depths agree to within this share of the depth."""
    min_weight: float = 0.5
    """Surfaces seen by fewer views (counted by how straight they look) are left out."""
    max_faces: int = 50_000
    """Triangles at most; 0 = all."""
    min_component: float | None = None
    """Loose pieces with less than this share of the area of the largest are removed. Default: 1e-3; 1e-5 for pictures,
    where leaves and wires count."""
    max_hole_edges: int = 60
    """Holes with at most that many edges are closed."""
    watertight: bool = False
    """Close the surface everywhere (Poisson): what no view shows is closed smoothly. For printing and simulation."""
    closed_resolution: int = 256
    """watertight: cells along each side, a multiple of 8; pieces thinner than two cells may be lost."""
    texture_size: int = 2048
    """Side of the texture, texels; 0 = colours at vertices instead. A .ply has colours at vertices always."""
    colors_from: Literal["auto", "renders", "photos"] = "auto"
    """Pictures that colours are taken from; photos are sharper where poses and exposure are good; what
    their masks hide is taken from renders. auto = photos where there is a --capture."""
    photo_depth: Literal["auto", "on", "off"] = "auto"
    """Better the depth by comparing the photos of --capture where they show enough, then move the mesh to where they
    show it. auto = for scenes of fit --surface, but not for pictures: those lie where the splats end."""
    background: Literal["auto", "on", "off"] = "auto"
    """Put a shell behind the mesh that shows what lies around it, 5,120 triangles, so that pictures of it show the room
    too. It faces inwards; viewers see through it from outside. auto = for pictures of scenes that have something opaque
    beyond --far all around, unless watertight."""
    max_views: int = 120
    """Views at most, evenly picked."""
    max_size: int = 800
    """Longer side of the views at most, pixels."""
    max_memory_gb: float = 2.0
    """For voxels; more is refused before it is taken."""
    turntable: bool = True
    """Leave pictures from all around and beside those of the scene, and the facts of the mesh: scene3d report shows
    them."""
    up: tuple[float, float, float] | None = None
    """World direction that is up. Default: from the photos or the scene, else -y."""
    backend: str = "auto"
    """Rasterizer: auto, cpu, cuda, gsplat or reference."""
    threads: int | None = None
    """Of the native code; all cores by default."""


def run(config: Config) -> None:
    """Read, mesh, write, print the size."""
    out = config.out or _default_out(config.scene)
    check_mesh_suffix(out)
    if config.capture is not None and config.cameras is not None:
        raise ValueError("cameras: expected --capture or --cameras, got both. The photos' own poses are in the capture")
    for name, wants in (("colors_from", config.colors_from == "photos"), ("photo_depth", config.photo_depth == "on")):
        if wants and config.capture is None:
            raise ValueError(f"{name}: photos need --capture")
    _check_not_input(out, config.scene)
    check_writable(out)
    _check_numbers(config)
    set_threads(config.threads)
    scene = read_scene(config.scene)
    capture = None if config.capture is None else read_capture(config.capture, CaptureOptions(max_size=config.max_size))
    up = config.up or scene.info.up
    cameras, surround = choose(scene, config.scene, capture, config.cameras, up)
    cameras = choose_views(cameras, config.max_views, config.max_size)
    config = _settled(config, scene)
    far = config.far if config.far is not None else FAR_SHARE * math.hypot(surround.distance, surround.height)
    settings = _settings(config, out, far)
    settings = replace(settings, photo_depth=_betters_depth(config, scene, settings.surface))
    settings = replace(settings, background=_wants_background(config, scene, cameras, settings.views))
    wants_photos = settings.photo_colors or settings.photo_depth
    photos = _photos(capture, cameras.names) if capture is not None and wants_photos else None
    with single_threaded_torch():
        mesh = mesh_scene(scene, cameras, settings, photos)
    write_mesh(mesh, out, tuple(surround.up.tolist()), double_sided=not settings.background)
    score = None if capture is None else held_out_score(mesh, scene, capture, config.backend)
    if config.turntable:
        subject = without_background(mesh) if settings.background else mesh
        _write_picture(beside(scene, mesh, cameras, config.backend), out.with_name(out.stem + MESH_BESIDE))
        _write_turntable(subject, out, tuple(surround.up.tolist()), score)
    colors = "colours at vertices" if mesh.texture is None else f"texture of {mesh.texture.shape[0]} texels"
    print(
        f"{mesh.n_faces:,} triangles, {len(mesh.vertices):,} vertices, {colors}, "
        f"{out.stat().st_size / 1e6:.1f} MB -> {out}"
    )
    if score is not None:
        print(_score_text(score, is_subject_alone=not (settings.background or config.watertight)))


def _score_text(score: HeldOutScore, is_subject_alone: bool) -> str:
    text = f"{score.n_photos} held-out photos: mesh {score.mesh_psnr:.2f} dB, scene {score.scene_psnr:.2f} dB"
    if score.mesh_psnr_covered is None or score.covered > ALL_COVERED:
        return text
    text += (
        f"\nwhere the mesh is, {100 * score.covered:.0f} % of their pixels: "
        f"mesh {score.mesh_psnr_covered:.2f} dB, scene {score.scene_psnr_covered:.2f} dB"
    )
    # Over the same paper as the photos, what surrounds the mesh costs nothing.
    if is_subject_alone and score.mesh_psnr < score.mesh_psnr_covered - 1:
        text += "\nwhat lies around is no part of the mesh; --background on puts it on a shell behind"
    return text


def _write_turntable(mesh: Mesh, out: Path, up: tuple[float, float, float], score: HeldOutScore | None) -> None:
    facts = mesh_facts(mesh, out.stat().st_size).as_json()
    if score is not None:
        facts["held_out"] = score.as_json()
    layout = {"preview_columns": COLUMNS, "preview_views": N_VIEWS}
    _write_picture(turntable(mesh, up), out.with_name(out.stem + MESH_PREVIEW))
    write_json(out.with_name(out.stem + MESH_FACTS), {"file": out.name, **facts, **layout})


def _write_picture(picture: torch.Tensor, path: Path) -> None:
    with atomic_write(path) as temporary:
        Image.fromarray(picture.numpy()).save(temporary, quality=PICTURE_QUALITY)


def _settings(config: Config, out: Path, far: float) -> MeshSettings:
    assert config.method is not None
    assert config.level is not None
    assert config.min_component is not None
    return MeshSettings(
        views=ViewSettings(config.depth, far=far, backend=config.backend),
        consistency=ConsistencySettings(tolerance=config.tolerance, min_agree=config.min_agree),
        surface=SurfaceSettings(
            config.method,
            config.voxel_size,
            min_weight=config.min_weight,
            level=config.level,
            max_bytes=int(config.max_memory_gb * 2**30),
            resolution=config.resolution,
            as_drawn=config.preset == "pictures",
        ),
        finish=FinishSettings(
            config.min_component, config.max_hole_edges, config.max_faces, keep_borders=config.preset != "pictures"
        ),
        closed_resolution=config.closed_resolution if config.watertight else 0,
        texture_size=0 if out.suffix.lower() == ".ply" else config.texture_size,
        photo_colors=config.colors_from != "renders",
        silhouettes=config.preset == "pictures",
    )


def _betters_depth(config: Config, scene: Scene, surface: SurfaceSettings) -> bool:
    if config.photo_depth == "auto" and config.capture is not None and surface.follows_depth:
        return config.depth in ("auto", "disc") and resolve_depth(scene, config.depth) == "disc"
    return config.photo_depth == "on"


def _wants_background(config: Config, scene: Scene, cameras: Cameras, views: ViewSettings) -> bool:
    if config.background == "auto":
        return config.preset == "pictures" and not config.watertight and has_outside(scene, cameras, views)
    return config.background == "on"


def _photos(capture: Capture, names: tuple[str, ...]) -> list[Photo]:
    place = {name: i for i, name in enumerate(capture.cameras.names)}
    return [capture.load(place[name]) for name in names]


def _default_out(scene: Path) -> Path:
    folder = scene.resolve().parent
    return (folder.parent if folder.name == "fit" else folder) / "mesh.glb"


def _settled(config: Config, scene: Scene) -> Config:
    """With what the preset decides for this scene."""
    is_pictures = config.preset == "pictures"
    method: Method = "tsdf"
    if is_pictures:
        method = "tetrahedra" if "splats" in scene.capabilities else "levelset"
    level = PICTURE_LEVEL if is_pictures else LEVEL
    speck = PICTURE_SPECK if is_pictures else FinishSettings().min_component
    return replace(
        config,
        method=config.method or method,
        level=level if config.level is None else config.level,
        min_component=speck if config.min_component is None else config.min_component,
    )


def _check_numbers(config: Config) -> None:
    for name in ("max_views", "max_size"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name}: expected at least 1, got {getattr(config, name)}")
    if not MIN_MEMORY_GB <= config.max_memory_gb < math.inf:
        raise ValueError(f"max_memory_gb: expected at least {MIN_MEMORY_GB}, got {config.max_memory_gb}")


def _check_not_input(out: Path, scene: Path) -> None:
    if out.resolve() == scene.resolve():
        raise OutputError(out, "this is the scene itself", "Choose another name.")
