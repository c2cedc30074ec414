"""Files of an evaluation: metrics.json, stats/val_step*.json and pictures, in one folder.

metrics.json names every picture relative to its folder, so that the folder can be moved.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from scene3d.io.atomic import atomic_write, write_json
from scene3d.report.environment import environment
from scene3d.report.evaluate import BackgroundChoice, Comparison, Evaluation
from scene3d.report.pictures import draw_pictures

ImageFormat = Literal["jpg", "png"]
JPEG_QUALITY = 92


@dataclass
class PictureWriter:
    """Writes the pictures of views as they come and remembers their names.

    Attributes:
        folder: Of the evaluation.
        suffix: jpg or png.
        names: For each view by index: its files, relative to the folder.
    """

    folder: Path
    suffix: ImageFormat = "jpg"
    names: dict[int, dict[str, str]] = field(default_factory=dict)

    def write(self, comparison: Comparison) -> None:
        """Draw and write the pictures of one view."""
        stem = self._stem(comparison.score.name, comparison.score.index)
        pictures = draw_pictures(comparison)
        files = {"side_by_side": f"images/{stem}.{self.suffix}"}
        files.update({kind: f"views/{stem}_{kind}.{self.suffix}" for kind in ("truth", "render", "error")})
        for kind, name in files.items():
            self._save(getattr(pictures, kind), self.folder / name)
        self.names[comparison.score.index] = files

    def _stem(self, name: str, index: int) -> str:
        stem = re.sub(r"[^\w.-]+", "_", str(Path(name).with_suffix(""))).strip("._") or "view"
        taken = {Path(files["side_by_side"]).stem for i, files in self.names.items() if i != index}
        return f"{stem}_{index}" if stem in taken else stem

    def _save(self, image: Image.Image, path: Path) -> None:
        with atomic_write(path) as temporary:
            # Without chroma subsampling: red edges would differ more by the file than by the render.
            if self.suffix == "jpg":
                image.save(temporary, quality=JPEG_QUALITY, subsampling=0)
            else:
                image.save(temporary)


@dataclass(frozen=True)
class Subject:
    """What was measured.

    Attributes:
        scene: File of the scene.
        scene_bytes: Its size.
        capture: Folder of the capture.
        step: Steps of the fit.
    """

    scene: str
    scene_bytes: int
    capture: str
    step: int


def write_evaluation(
    evaluation: Evaluation, subject: Subject, folder: Path, pictures: dict[int, dict[str, str]]
) -> None:
    """Write metrics.json (everything) and stats/val_step*.json (means, named as other trainers name them)."""
    stats = {
        "psnr": evaluation.mean.psnr,
        "ssim": evaluation.mean.ssim,
        "lpips": evaluation.mean.lpips,
        "flip": evaluation.mean.flip,
        "ellipse_time": evaluation.mean.seconds,
        "num_GS": evaluation.n_gaussians,
        "protocol": evaluation.protocol,
    }
    write_json(folder / "stats" / f"val_step{subject.step:05d}.json", stats)
    write_json(folder / "metrics.json", _metrics(evaluation, subject, pictures))


def last_step(log: Path) -> int:
    """Steps done according to a log.jsonl, whose last line may be torn; 0 where there is none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    return next((step for step in map(_step_of, reversed(lines)) if step is not None), 0)


def _step_of(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


def fitted_background(config: Path) -> BackgroundChoice:
    """What a fit had behind the scene according to its config.json; auto where that says nothing else."""
    try:
        name = json.loads(config.read_text(encoding="utf-8"))["settings"]["background"]
    except (OSError, ValueError, KeyError, TypeError):
        return "auto"
    # Test views of random backgrounds are white, as during the fit.
    chosen: dict[str, BackgroundChoice] = {"black": "black", "white": "white", "random": "white"}
    return chosen.get(name, "auto") if isinstance(name, str) else "auto"


def _metrics(evaluation: Evaluation, subject: Subject, pictures: dict[int, dict[str, str]]) -> dict[str, Any]:
    mean = asdict(evaluation.mean)
    views = [{**asdict(view), "pictures": pictures.get(view.index, {})} for view in evaluation.views]
    return {
        **{name: mean[name] for name in ("psnr", "ssim", "flip", "lpips")},
        "lpips_note": evaluation.lpips_note,
        "seconds_per_frame": mean["seconds"],
        "n_gaussians": evaluation.n_gaussians,
        "scene_size": evaluation.scene_size,
        **asdict(subject),
        "protocol": evaluation.protocol,
        "backend": evaluation.backend,
        "skipped": list(evaluation.skipped),
        "environment": environment(),
        "views": views,
    }
