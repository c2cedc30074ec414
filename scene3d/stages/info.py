"""Say what is in a scene file or in a capture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from scene3d.core.errors import CaptureError
from scene3d.io.capture_files import CaptureOptions, has_poses, read_capture
from scene3d.io.registry import is_scene_file, read_scene, scene_file, scene_size
from scene3d.report.facts import capture_facts, capture_text, scene_facts, scene_text
from scene3d.report.field_facts import field_facts, field_text
from scene3d.report.file_parts import file_parts, parts_text


@dataclass(frozen=True)
class Config:
    """What to look at."""

    path: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE_OR_CAPTURE")]
    """A scene file, a folder with photos and poses, or the folder of a run."""
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
        kind, scene, size = "scene", read_scene(path), scene_size(path)
        if "splats" in scene.capabilities:
            of_scene = scene_facts(scene, size)
            data, text = of_scene.as_json(), scene_text(of_scene)
        else:
            of_field = field_facts(scene, size)
            data, text = of_field.as_json(), field_text(of_field)
        parts = file_parts(path)
        data |= {"bytes_in_file": parts} if parts else {}
        text += parts_text(parts) if parts else ""
    print(json.dumps({"kind": kind, "path": str(path), **data}, indent=2) if config.json else f"{path}\n{text}")


def _scene_of_run(path: Path) -> Path:
    scene = scene_file(path / "fit")
    return scene if path.is_dir() and scene.is_file() and not has_poses(path) else path
