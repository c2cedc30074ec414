"""Say how two scenes differ: sizes, and pictures from the same places. The first is taken as the truth.

Of two meshes: how far their surfaces are from each other, exactly, in scene units; nothing is aligned.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from PIL import Image

from scene3d.core.cameras import Cameras
from scene3d.core.errors import FormatError
from scene3d.core.scene import Scene
from scene3d.io.atomic import atomic_write, write_json, write_text
from scene3d.io.camera_path import find_cameras, read_cameras
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.mesh_files import MESH_SUFFIXES, has_triangles, read_mesh
from scene3d.io.registry import read_scene, scene_size
from scene3d.meshing.compare import CompareSettings, compare_meshes
from scene3d.render.itinerary import Wish, plan
from scene3d.render.scene_points import scene_points
from scene3d.report.comparison import Comparison, KeepPictures, compare, comparison_text
from scene3d.report.facts import size_text
from scene3d.report.html import build_page
from scene3d.report.run_folder import read_run

# Rings around a scene without cameras, degrees above the horizon, and views on each.
ELEVATIONS_DEG = (0.0, 20.0, 45.0)
RING_VIEWS = 6
SIDE = 512
THIN = 8
QUALITY = 92
# Distances that count as near, of the diagonal of the first mesh.
MESH_THRESHOLDS = (0.001, 0.002, 0.005)


@dataclass(frozen=True)
class Config:
    """What to compare, and from where."""

    first: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="A")]
    """Scene file or mesh, taken as the truth."""
    second: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="B")]
    """Scene file, or mesh where A is one."""
    capture: Path | None = None
    """Folder with photos and poses: looks from its test views (from all where it has none). Of meshes only what its
    training views see counts."""
    cameras: Path | None = None
    """A camera_path.json or a cameras.json instead. Default: every eighth view of the cameras.json that a fit left with
    the first scene, else rings around it."""
    thresholds: tuple[float, ...] = ()
    """Of meshes: distances that count as near for precision, recall and F, scene units. Default: 0.1, 0.2 and 0.5 % of
    the diagonal of A's box."""
    max_size: int | None = 640
    """Longer side of views of a capture at most, pixels."""
    out: Path | None = None
    """Folder for report.html, with A and B under one slider, their difference, and a table of all views."""
    json: bool = False
    """Print JSON instead of text."""
    backend: str = "auto"
    """Rasterizer: auto, cpu, cuda, gsplat or reference."""


def run(config: Config) -> None:
    """Compare and print."""
    if _are_meshes(config):
        _compare_meshes(config)
        return
    paths = config.first, config.second
    scenes = read_scene(config.first), read_scene(config.second)
    sizes = [scene_size(path) for path in paths]
    result = compare(*scenes, _views(config, scenes[0]), config.backend, _keeper(config.out))
    if config.out is not None:
        _write_report(config, result, sizes, scenes[1].n_gaussians)
    if config.json:
        files = [str(path) for path in paths]
        print(json.dumps({"files": files, "size_bytes": sizes, **result.as_json()}, indent=2))
        return
    for letter, path, scene, size in zip("AB", paths, scenes, sizes, strict=True):
        print(f"{letter}             {path}: {scene.size_text()}, {size_text(size)}")
    print(f"B / A         {100 * sizes[1] / max(sizes[0], 1):.1f} % of the bytes")
    print(comparison_text(result))
    if config.out is not None:
        print(f"report        {config.out / 'report.html'}")


def _are_meshes(config: Config) -> bool:
    """Whether both files hold triangles and no scene.

    Raises:
        FormatError: one does, the other does not.
    """
    paths = config.first, config.second
    first, second = (_is_mesh(path) for path in paths)
    if first != second:
        remedy = "Make a mesh of the scene first: scene3d mesh."
        raise FormatError(paths[0] if first else paths[1], "is a mesh, the other one a scene", remedy=remedy)
    return first


def _is_mesh(path: Path) -> bool:
    if not (path.suffix.lower() in MESH_SUFFIXES and path.is_file() and has_triangles(path)):
        return False
    try:
        read_scene(path)
    except FormatError:
        return True
    return False


def _compare_meshes(config: Config) -> None:
    """Distances between surfaces, nothing aligned; with --capture only of what its views see."""
    truth, mesh = read_mesh(config.first), read_mesh(config.second)
    diagonal = float((truth.vertices.amax(dim=0) - truth.vertices.amin(dim=0)).norm())
    thresholds = config.thresholds or tuple(share * diagonal for share in MESH_THRESHOLDS)
    cameras = None if config.capture is None else _views_of_capture(config.capture, config.max_size, "train")
    found = compare_meshes(mesh, truth, CompareSettings(thresholds), cameras)
    sizes = [path.stat().st_size for path in (config.first, config.second)]
    if config.json:
        facts = {**asdict(found), "chamfer": found.chamfer, "f_scores": found.f_scores}
        print(json.dumps({"files": [str(config.first), str(config.second)], "size_bytes": sizes, **facts}, indent=2))
        return
    for letter, path, size, one in zip("AB", (config.first, config.second), sizes, (truth, mesh), strict=True):
        print(f"{letter}             {path}: {one.n_faces:,} triangles, {size_text(size)}")
    print(f"B to A        {found.accuracy:.4g} scene units in the mean (accuracy), {found.max_error:.4g} at most")
    print(f"A to B        {found.completeness:.4g} in the mean (completeness)")
    print(f"Chamfer       {found.chamfer:.4g}, the mean of both; {found.chamfer / diagonal:.3%} of the diagonal of A")
    for t, f, p, r in zip(thresholds, found.f_scores, found.precision, found.recall, strict=True):
        print(f"F             {f:.3f} within {t:.4g} ({t / diagonal:.2%}): {p:.1%} of B near A, {r:.1%} of A near B")
    print(f"normals       {found.normal_consistency:.3f} (mean cosine)")


def _keeper(out: Path | None) -> KeepPictures:
    def keep(i: int, pictures: dict[str, np.ndarray]) -> None:
        if out is None:
            return
        for kind, picture in pictures.items():
            with atomic_write(out / "eval" / _picture_name(i, kind)) as temporary:
                Image.fromarray(picture).save(temporary, quality=QUALITY, subsampling=0)

    return keep


def _picture_name(i: int, kind: str) -> str:
    return f"views/{i:05d}_{kind}.jpg"


def _write_report(config: Config, result: Comparison, sizes: list[int], n_gaussians: int) -> None:
    """metrics.json in the words of an evaluation, A being the photos, and the report of it."""
    assert config.out is not None
    views = []
    for i, view in enumerate(result.views):
        pictures = {kind: _picture_name(i, kind) for kind in ("truth", "render", "error")}
        views.append({"index": i, **asdict(view), "pictures": pictures})
    ssims, flips = [view.ssim for view in result.views], [view.flip for view in result.views]
    metrics = {
        "labels": [config.first.name, config.second.name],
        "capture": f"{config.second.name} against {config.first.name}",
        "psnr": result.psnr,
        "ssim": sum(ssims) / len(ssims),
        "flip": sum(flips) / len(flips),
        "n_gaussians": n_gaussians,
        "scene_bytes": sizes[1],
        "protocol": f"{config.first.name} is the truth, {size_text(sizes[0])}; both rendered over black, clamped to "
        f"0..1; PSNR of all pixels together; SSIM with an 11x11 Gaussian window; FLIP at 67 pixels per degree",
        "views": views,
    }
    write_json(config.out / "eval" / "metrics.json", metrics)
    write_text(config.out / "report.html", build_page(read_run(config.out)))


def _views(config: Config, scene: Scene) -> Cameras:
    if config.capture is not None:
        return _views_of_capture(config.capture, config.max_size, "test")
    file = config.cameras or find_cameras(config.first)
    if file is not None:
        cameras = read_cameras(file)
        return cameras if config.cameras is not None else cameras.select(range(0, len(cameras), THIN))
    points = scene_points(scene)
    wishes = [Wish("orbit", SIDE, SIDE, RING_VIEWS, 1.0, elevation) for elevation in ELEVATIONS_DEG]
    rings = [plan(wish, points, None, scene.info.up).cameras for wish in wishes]
    viewmats, Ks, sizes = (torch.cat([getattr(ring, name) for ring in rings]) for name in ("viewmats", "Ks", "sizes"))
    return Cameras(viewmats, Ks, sizes)


def _views_of_capture(folder: Path, max_size: int | None, split: Literal["train", "test"]) -> Cameras:
    """Views of a split, all where it is empty."""
    capture = read_capture(folder, CaptureOptions(max_size=max_size))
    picked = capture.train if split == "train" else capture.test
    return capture.cameras.select(picked or tuple(range(len(capture)))).to(dtype=torch.float32)
