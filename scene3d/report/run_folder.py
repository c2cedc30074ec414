"""The folder of a run as its report sees it: what is there of fit/, eval/ and renders/; any may be missing."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scene3d.core.errors import CaptureError, FormatError
from scene3d.io.registry import scene_file
from scene3d.io.s3d_container import read_container
from scene3d.report.file_parts import file_parts

# Beside a mesh NAME.glb: NAME + these.
MESH_FACTS, MESH_PREVIEW, MESH_BESIDE = "_facts.json", "_turntable.jpg", "_beside.jpg"
# Formats in which the folder of a run may hold the scene once more.
SMALL_SUFFIXES = (".s3d", ".sog", ".spz", ".compressed.ply", ".splat")
VIDEO_SUFFIXES = (".mp4", ".webm", ".gif")


@dataclass(frozen=True)
class LogPoint:
    """One line of fit/log.jsonl.

    Attributes:
        step: Steps done.
        seconds: Of fitting.
        loss: Running mean, NaN where unknown.
        n_gaussians: Count.
        psnr: Of the test views, dB; None between evaluations.
    """

    step: int
    seconds: float
    loss: float
    n_gaussians: int
    psnr: float | None = None


@dataclass(frozen=True)
class MeshProduct:
    """A mesh that was made of the scene.

    Attributes:
        name: File name.
        facts: What scene3d mesh wrote down of it.
        preview: Its turntable, None where there is none.
        beside: The mesh beside the scene, None where there is no such picture.
    """

    name: str
    facts: dict[str, Any]
    preview: Path | None
    beside: Path | None = None

    def pictures(self) -> tuple[Path, ...]:
        """Those that there are."""
        return tuple(path for path in (self.preview, self.beside) if path is not None)


@dataclass(frozen=True)
class SceneFile:
    """The scene in another format.

    Attributes:
        name: File name.
        size_bytes: Of the file.
        n_items: Gaussians in it where its head tells, else 0.
        parts: What the bytes go to; empty where that is not known.
    """

    name: str
    size_bytes: int
    n_items: int
    parts: dict[str, int]


@dataclass(frozen=True)
class RunFolder:
    """What a run left behind.

    Attributes:
        path: The folder.
        metrics: eval/metrics.json; empty where it is missing.
        log: Points of the curves, steps rising.
        settings: fit/config.json; empty where it is missing.
        scene_bytes: Size of the scene file, None where it is missing.
        videos: Rendered videos.
        has_page: Whether page.html, the scene in 3D, lies beside the report.
        meshes: Made of the scene.
        files: The scene in other formats.
    """

    path: Path
    metrics: dict[str, Any] = field(default_factory=dict)
    log: tuple[LogPoint, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    scene_bytes: int | None = None
    videos: tuple[Path, ...] = ()
    has_page: bool = False
    meshes: tuple[MeshProduct, ...] = ()
    files: tuple[SceneFile, ...] = ()

    @property
    def labels(self) -> tuple[str, str]:
        """What the left and the right picture of a view are: a photo and its render, or what metrics.json says."""
        given = self.metrics.get("labels")
        is_pair = isinstance(given, list) and len(given) == 2 and all(isinstance(label, str) for label in given)
        return (given[0], given[1]) if isinstance(given, list) and is_pair else ("photo", "render")

    def heading(self, joint: str) -> str:
        """The labels of pictures as the beginning of a sentence; names of files stay as they are."""
        left, right = self.labels
        return f"{left.capitalize() if self.is_fit else left}{joint}{right}"

    @property
    def is_fit(self) -> bool:
        """Whether it is a run that fitted something, rather than a comparison of two scenes."""
        return "labels" not in self.metrics

    @property
    def views(self) -> list[dict[str, Any]]:
        """The measured views of metrics.json."""
        return [view for view in self.metrics.get("views", []) if isinstance(view, dict)]

    def picture(self, view: dict[str, Any], kind: str) -> Path | None:
        """File of a picture of a view, None where there is none."""
        name = (view.get("pictures") or {}).get(kind)
        path = self.path / "eval" / str(name)
        return path if name and path.is_file() else None


def read_run(folder: Path) -> RunFolder:
    """Read the folder of a run.

    Raises:
        CaptureError: it does not exist or holds neither a fit nor an evaluation.
        FormatError: a file in it is damaged.
    """
    if not folder.is_dir():
        raise CaptureError(folder, "no such folder", "Give the --out folder of scene3d run.")
    metrics = _read_object(folder / "eval" / "metrics.json")
    log = _read_log(folder / "fit" / "log.jsonl")
    scene = scene_file(folder / "fit")
    if not metrics and not log and not scene.is_file():
        remedy = "Give the --out folder of scene3d run."
        raise CaptureError(folder, "holds no run: neither fit/log.jsonl nor eval/metrics.json", remedy)
    renders = folder / "renders"
    videos = sorted(p for p in renders.iterdir() if p.suffix in VIDEO_SUFFIXES) if renders.is_dir() else []
    return RunFolder(
        path=folder,
        metrics=metrics,
        log=log,
        settings=_read_object(folder / "fit" / "config.json"),
        scene_bytes=scene.stat().st_size if scene.is_file() else metrics.get("scene_bytes"),
        videos=tuple(videos),
        has_page=(folder / "page.html").is_file(),
        meshes=tuple(_mesh_product(path) for path in sorted(folder.glob(f"*{MESH_FACTS}"))),
        files=tuple(
            _scene_file(path) for path in sorted(folder.iterdir()) if path.name.lower().endswith(SMALL_SUFFIXES)
        ),
    )


def _mesh_product(facts_file: Path) -> MeshProduct:
    facts = _read_object(facts_file)
    stem = facts_file.name.removesuffix(MESH_FACTS)
    preview, beside = (facts_file.with_name(stem + ending) for ending in (MESH_PREVIEW, MESH_BESIDE))
    name = str(facts.get("file") or stem)
    return MeshProduct(name, facts, preview if preview.is_file() else None, beside if beside.is_file() else None)


def _scene_file(path: Path) -> SceneFile:
    n_items = read_container(path).n_items if path.suffix.lower() == ".s3d" else 0
    return SceneFile(path.name, path.stat().st_size, n_items, file_parts(path))


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: {"strategy": {"cap_max": 1}} becomes {"strategy.cap_max": 1}."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(path, f"is not JSON: {error}", remedy="Run the stage that writes it again.") from error
    if not isinstance(data, dict):
        raise FormatError(path, f"expected an object, got {type(data).__name__}", remedy="Run that stage again.")
    return data


def _read_log(path: Path) -> tuple[LogPoint, ...]:
    if not path.is_file():
        return ()
    points: dict[int, LogPoint] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        point = _log_point(line)
        if point is not None:
            # A resumed run writes some steps twice: the later line is the one that counts.
            points[point.step] = point
    return tuple(points[step] for step in sorted(points))


def _log_point(line: str) -> LogPoint | None:
    """A point, None for a line cut off by a crash or without numbers."""
    try:
        data = json.loads(line)
        psnr = data.get("psnr")
        loss = data.get("loss")
        return LogPoint(
            step=int(data["step"]),
            seconds=float(data.get("seconds", 0.0)),
            loss=math.nan if loss is None else float(loss),
            n_gaussians=int(data.get("n_gaussians", 0)),
            psnr=None if psnr is None else float(psnr),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
