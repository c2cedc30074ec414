"""Say what is in a scene file, in a mesh or in a capture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from scene3d.core.errors import CaptureError, FormatError
from scene3d.io.capture_files import CaptureOptions, has_poses, read_capture
from scene3d.io.mesh_files import MESH_SUFFIXES, has_triangles, read_mesh
from scene3d.io.registry import is_scene_file, read_scene, scene_file, scene_size
from scene3d.report.facts import capture_facts, capture_text, scene_facts, scene_text
from scene3d.report.field_facts import field_facts, field_text
from scene3d.report.file_parts import file_parts, parts_text
from scene3d.report.mesh_facts import mesh_facts, mesh_text


@dataclass(frozen=True)
class Config:
    """What to look at."""

    path: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE_OR_CAPTURE")]
    """A scene file, a mesh, a folder with photos and poses, or the folder of a run."""
    json: bool = False
    """Print JSON instead of text."""
    data_factor: int | None = None
    """Reduce the photos of a capture by this whole number."""
    test_every: int = 8
    """Every n-th photo of a capture by name is a test view."""


def run(config: Config) -> None:
    """Print the facts."""
    path = _scene_of_run(config.path)
    if not path.exists():
        raise CaptureError(path, "no such file or folder", "Check the path.")
    if path.is_dir() or (path.suffix.lower() == ".json" and not is_scene_file(path)):
        options = CaptureOptions(data_factor=config.data_factor, test_every=config.test_every)
        of_capture = capture_facts(read_capture(path, options))
        kind, data, text = "capture", of_capture.as_json(), capture_text(of_capture)
    else:
        kind, data, text = _file_facts(path)
    print(json.dumps({"kind": kind, "path": str(path), **data}, indent=2) if config.json else f"{path}\n{text}")


def _file_facts(path: Path) -> tuple[str, dict[str, Any], str]:
    """Kind, data and text of a scene or of a mesh."""
    try:
        scene = read_scene(path)
    except FormatError:
        # Some suffixes are those of scenes and of meshes.
        if path.suffix.lower() not in MESH_SUFFIXES or not has_triangles(path):
            raise
        of_mesh = mesh_facts(read_mesh(path), path.stat().st_size)
        return "mesh", of_mesh.as_json(), mesh_text(of_mesh)
    size, parts = scene_size(path), file_parts(path)
    if "splats" in scene.capabilities:
        of_scene = scene_facts(scene, size)
        data, text = of_scene.as_json(), scene_text(of_scene)
    else:
        of_field = field_facts(scene, size)
        data, text = of_field.as_json(), field_text(of_field)
    data |= {"bytes_in_file": parts} if parts else {}
    return "scene", data, text + (parts_text(parts) if parts else "")


def _scene_of_run(path: Path) -> Path:
    scene = scene_file(path / "fit")
    return scene if path.is_dir() and scene.is_file() and not has_poses(path) else path
