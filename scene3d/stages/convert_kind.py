"""The part of `scene3d convert` that turns scenes and meshes into another kind: --to splats or a field."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path

from scene3d import __version__
from scene3d.compress.field_pack import pack_field
from scene3d.compress.goal import Goal
from scene3d.core.cameras import Cameras
from scene3d.core.errors import FormatError
from scene3d.core.fields import NETWORK_KINDS
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.camera_path import find_cameras, read_cameras
from scene3d.io.mesh_files import read_mesh
from scene3d.io.mesh_up import mesh_up
from scene3d.io.registry import is_scene_file, read_scene, scene_size, write_scene
from scene3d.io.s3d_container import write_container
from scene3d.recon.students import STEPS, Converted, StudentKind, StudentSettings, convert_scene
from scene3d.recon.teacher import Teacher, teacher_of_mesh, teacher_of_scene
from scene3d.render.free_views import smaller, views_among, views_around
from scene3d.render.surround import from_points, is_object
from scene3d.render.types import RasterSettings
from scene3d.render.viewpoints import synthesize_views
from scene3d.report.facts import size_text

logger = logging.getLogger(__name__)

N_JUDGES = 6
# Where nothing is said. Directions are learned by a field for each place of its own: it wants more of them.
SPLAT_VIEWS, FIELD_VIEWS = 80, 120
# Steps are for renders of so many pixels a side; of larger ones they grow with this power of it, at most so many times.
SMALL_SIDE, STEP_GROWTH, MOST_STEPS = 200, 1.3, 6.0


@dataclass(frozen=True)
class KindOptions:
    """How a scene becomes another kind."""

    steps: int | None = None
    """Steps of fitting to renders of the scene. More are closer and slower; the default depends on the kind and, of
    fields, on the size of the renders."""
    views: int | None = None
    """Renders to learn from. Default: 80 for splats, 120 for fields."""
    view_size: int = 400
    """Longer side of those renders at most, pixels. Fine detail needs larger ones."""
    cameras: Path | None = None
    """A cameras.json or camera_path.json: renders are taken between its views. Default: the cameras.json that a fit
    left with the scene; else views from all around, or near the splats of a scene that surrounds its cameras."""
    splats: int = 100_000
    """Splats to begin with, and most ever."""
    voxels: int | None = None
    """Nodes of the last grid of a field, as a cube of this side. Default: as far apart as the pixels of the renders
    are at the surfaces they show, 64 to 160."""
    target_mb: float | None = None
    """Of a field: megabytes (1e6 bytes) of the file to stay below, at the best quality that allows."""
    up: tuple[float, float, float] | None = None
    """World direction that is up: views from all around are level by it, and the new scene remembers it. Default: what
    the scene or mesh file says; of meshes that say nothing +y of .obj, +z of .ply, .stl and .off."""
    seed: int = 0
    """Of every random number."""


def read_source(path: Path) -> Scene | None:
    """The scene of a file; None where it holds a mesh.

    Raises:
        FormatError: it holds neither.
    """
    if not is_scene_file(path):
        read_mesh(path)
        return None
    try:
        return read_scene(path)
    except FormatError as error:
        if path.suffix.lower() not in (".ply", ".glb", ".gltf"):
            raise
        try:
            read_mesh(path)
        except FormatError:
            # As a scene it is nearer to what was meant.
            raise error from None
        return None


def run(source: Path, scene: Scene | None, out: Path, kind: StudentKind, options: KindOptions) -> None:
    """Convert, write, and print what it took and how near the student came.

    Args:
        source: The file that is converted.
        scene: What is in it, edited; None = a mesh.
        out: To write.
        kind: To make.
        options: How.
    """
    _check(scene, kind, options)
    n = options.views or (SPLAT_VIEWS if kind == "splats" else FIELD_VIEWS)
    options = replace(options, up=_up(source, scene, options))
    teacher = teacher_of_mesh(read_mesh(source)) if scene is None else teacher_of_scene(scene)
    cameras = _views(source, scene, teacher, options, n + N_JUDGES)
    learned, held_out = cameras.select(range(n)), cameras.select(range(n, len(cameras)))
    steps = usual_steps(kind, learned) if options.steps is None else options.steps
    voxels = None if options.voxels is None else options.voxels**3
    settings = StudentSettings(kind, steps, options.splats, voxels, seed=options.seed)
    made = convert_scene(teacher, learned, held_out, settings)
    info = SceneInfo(source=str(source), made_by=f"scene3d {__version__}", up=options.up)
    remarks = _write(replace(made.scene, info=info), out, options, held_out)
    print("\n".join([*_report(teacher, made), *remarks, f"{size_text(scene_size(out))} -> {out}"]))


def usual_steps(kind: StudentKind, views: Cameras) -> int:
    """More for fields of larger renders: what they learn, they learn ray by ray. Networks would take too long."""
    if kind == "splats" or kind in NETWORK_KINDS:
        return STEPS[kind]
    side = float(views.sizes.amax(dim=1).float().median())
    return round(STEPS[kind] * min(max(side / SMALL_SIDE, 1.0) ** STEP_GROWTH, MOST_STEPS))


def _check(scene: Scene | None, kind: StudentKind, options: KindOptions) -> None:
    if scene is not None and kind == "splats" and "splats" in scene.capabilities:
        raise ValueError('to: the scene holds splats already. For fewer of them use --do "decimate 50%"')
    if options.target_mb is not None and kind == "splats":
        raise ValueError("target_mb: splats are made small by scene3d compress, afterwards")
    limits = {"views": (1, 2000), "view_size": (16, 4096), "splats": (1, 10_000_000), "voxels": (8, 640)}
    for name, (least, most) in limits.items():
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            raise ValueError(f"{name}: expected {least} to {most}, got {value}")
    if options.up is not None and not 0 < math.hypot(*options.up) < math.inf:
        raise ValueError(f"up: expected a direction, got {options.up}")
    if options.steps is not None and options.steps < 1:
        raise ValueError(f"steps: expected at least 1, got {options.steps}")


def _up(source: Path, scene: Scene | None, options: KindOptions) -> tuple[float, float, float] | None:
    """What is asked for, or said by the file, or usual."""
    if options.up is not None or scene is not None:
        return options.up or (None if scene is None else scene.info.up)
    found = mesh_up(source)
    if not found.is_said:
        axis = " ".join(f"{value:g}" for value in found.direction)
        logger.warning("%s", f"{source} does not say which way is up: {axis} is usual. Else give --learn.up X Y Z")
    return found.direction


def _views(source: Path, scene: Scene | None, teacher: Teacher, options: KindOptions, n: int) -> Cameras:
    """n views to learn from and to judge by."""
    side = options.view_size
    file = options.cameras or find_cameras(source)
    if file is not None:
        logger.info("%s", f"{n} views between those of {file}")
        return views_among(read_cameras(file), n, side, options.seed)
    if scene is not None and "splats" in scene.capabilities and not is_object(teacher.points):
        logger.warning("no cameras given: views are made up near the splats, real ones may differ: give --cameras")
        settings = RasterSettings(antialiased=scene.info.antialiased)
        splats = scene.splats()
        return smaller(synthesize_views(splats.select(splats.is_finite()), n, settings, options.seed), side)
    logger.info("%s", f"no cameras given: {n} views from all around")
    return views_around(from_points(teacher.points, options.up), n, side, options.seed)


def _write(student: Scene, out: Path, options: KindOptions, views: Cameras) -> list[str]:
    """Write the student; what the size cost, where one was asked for."""
    if options.target_mb is None:
        write_scene(student, out)
        return []
    goal = Goal(target_bytes=round(options.target_mb * 1e6))
    packed = pack_field(student, goal, views, has_codes=student.kind == "vm")
    write_container(packed.container, out)
    remarks = [f"{packed.fidelity_db:.1f} dB against renders of the student before it was made small"]
    return [*remarks, packed.remark] if packed.remark else remarks


def _report(teacher: Teacher, made: Converted) -> list[str]:
    blocks = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in made.seconds.items())
    return [
        f"{teacher.name} -> {made.scene.size_text()}: {blocks}",
        f"{made.fidelity_db:.2f} dB against renders of the teacher, {made.n_views} views that were not learned from",
    ]
