"""From photos, a video or a posed capture to a scene, its scores, pictures, a web page and a report.

The chain is pose, fit, evaluate, render, page (the scene in one file that opens in a browser), mesh (where it is asked
for), report. A stage that is done already is skipped; it is done again when its settings or its input have changed.
Without a capture the bundled sample is used.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Suppress

from scene3d.core.capture import Capture
from scene3d.core.errors import CaptureError
from scene3d.core.progress import duration_text
from scene3d.io.atomic import make_folder
from scene3d.io.capture_files import CaptureOptions, has_poses, read_capture
from scene3d.io.registry import FIELD_FILE, SPLATS_FILE
from scene3d.io.sample import sample_capture
from scene3d.io.stamp import Stamp, digest
from scene3d.recon.presets import MAX_SIZES, PresetName
from scene3d.report.run_folder import MESH_FACTS, flatten
from scene3d.stages import evaluate, export, fit, mesh, pose, render, report
from scene3d.stages.fit import SceneKind

logger = logging.getLogger(__name__)


# The options of a stage, less those that the chain sets itself. Subclasses, because each option with its help is to be
# written once, in its stage.
@dataclass(frozen=True)
class PoseOptions(pose.Config):
    photos: Suppress[Path] = Path()
    out: Suppress[Path] = Path()


@dataclass(frozen=True)
class FitOptions(fit.Config):
    capture: Suppress[Path] = Path()
    out: Suppress[Path] = Path()
    kind: Suppress[SceneKind] = "gaussians"
    preset: Suppress[PresetName] = "fast"
    data_factor: Suppress[int | None] = None
    max_size: Suppress[int | None] = None
    test_every: Suppress[int] = 8
    resume: Suppress[bool] = True
    backend: Suppress[str] = "auto"
    memory_limit: Suppress[float | None] = None
    compact: Suppress[bool] = False
    surface: Suppress[bool] = False
    view: Suppress[bool] = False
    view_port: Suppress[int] = 8080


@dataclass(frozen=True)
class EvaluateOptions(evaluate.Config):
    scene: Suppress[Path] = Path()
    capture: Suppress[Path] = Path()
    out: Suppress[Path | None] = None
    data_factor: Suppress[int | None] = None
    max_size: Suppress[int | None] = None
    test_every: Suppress[int] = 8
    backend: Suppress[str] = "auto"


@dataclass(frozen=True)
class RenderOptions(render.Config):
    scene: Suppress[Path] = Path()
    out: Suppress[Path | None] = None
    capture: Suppress[Path | None] = None
    data_factor: Suppress[int | None] = None
    test_every: Suppress[int] = 8
    backend: Suppress[str] = "auto"
    memory_limit: Suppress[float | None] = None
    seconds: float = 5.0
    """Length of the video."""


@dataclass(frozen=True)
class MeshOptions(mesh.Config):
    scene: Suppress[Path] = Path()
    out: Suppress[Path | None] = None
    capture: Suppress[Path | None] = None
    cameras: Suppress[Path | None] = None
    backend: Suppress[str] = "auto"


@dataclass(frozen=True)
class Config:
    """What to reconstruct, and options of the stages."""

    capture: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="CAPTURE_OR_PHOTOS")] = None
    """Folder of photos, a video, or a posed capture (COLMAP, transforms.json, Blender). Default: the bundled sample."""
    out: Path | None = None
    """Folder of the run. Default: runs/ and the name of the capture."""
    kind: SceneKind = "gaussians"
    """gaussians = splats; all others = a radiance field. What only splats can do is left out then, and that
    is said."""
    preset: PresetName = "fast"
    """fast = a minute or less, balanced = minutes, best = as good as it gets; for small photos on a CPU."""
    data_factor: int | None = None
    """Reduce photos by this whole number."""
    max_size: int | None = None
    """Longer side of photos at most, pixels. Default without data-factor: by the preset."""
    test_every: int = 8
    """Every n-th photo by name is held out for testing; 0 = none."""
    backend: str = "auto"
    """Rasterizer: auto, cpu, cuda, gsplat or reference."""
    memory_limit: float | None = None
    """GB of the GPU's memory to take at most, of the host's where there is no GPU. Splats are listed in parts that fit;
    what cannot fit is refused at once. Default: all that is free."""
    compact: bool = False
    """Fit for the smallest file: see --fit.small.*."""
    surface: bool = False
    """Pull splats onto surfaces while fitting, for meshes; takes longer. See --fit.surface-method."""
    mesh: bool = False
    """Make a textured mesh of the scene too: see --meshing.*."""
    view: bool = False
    """Show the fit in the browser while it goes on; only this machine can look."""
    pose: PoseOptions = field(default_factory=PoseOptions)
    fit: FitOptions = field(default_factory=FitOptions)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    render: RenderOptions = field(default_factory=RenderOptions)
    meshing: MeshOptions = field(default_factory=MeshOptions)


@dataclass(frozen=True)
class _Job:
    """One stage of this run.

    Attributes:
        name: Also the folder of its stamp.
        options: What the user chose: decides, with the inputs, whether the stage is done.
        action: Does it. True as argument: go on from what an interrupted run of the same job left.
        inputs: Files and folders it reads, by what they are called in messages.
        outputs: What must be there afterwards.
        folder: Where its stamp stands.
    """

    name: str
    options: Any
    action: Callable[[bool], None]
    inputs: dict[str, Path]
    outputs: tuple[Path, ...]
    folder: Path


def run(config: Config) -> None:
    """Do what is not done yet, print a summary."""
    began = time.monotonic()
    source = sample_capture() if config.capture is None else config.capture
    out = config.out or Path("runs") / ("demo" if config.capture is None else source.resolve().stem)
    if not source.exists():
        raise CaptureError(source, "no such file or folder", "Check the path.")
    config = _shared(config)
    make_folder(out)
    if not has_poses(source):
        _do(_pose_job(config, source, out), out)
        source = out / "pose"
    capture = read_capture(source, CaptureOptions(config.data_factor, config.max_size, config.test_every))
    _do(_fit_job(config, source, out), out)
    if capture.test or config.evaluate.split != "test":
        _do(_evaluate_job(config, source, out), out)
    for job in _render_jobs(config, source, capture, out):
        _do(job, out)
    if config.kind == "gaussians":
        _do(_page_job(config, source, out), out)
    else:
        logger.info("page: web pages show Gaussians only, none is made of a %s field", config.kind)
    if config.mesh:
        _do(_mesh_job(config, source, out), out)
    _do(_report_job(out), out)
    print(_summary(config, capture, out, time.monotonic() - began))


def _shared(config: Config) -> Config:
    """Give every stage the options that all must agree on."""
    max_size = config.max_size
    if max_size is None and config.data_factor is None:
        max_size = MAX_SIZES[config.preset]
    data_factor, test_every, backend = config.data_factor, config.test_every, config.backend
    return replace(
        config,
        max_size=max_size,
        fit=replace(
            config.fit,
            kind=config.kind,
            preset=config.preset,
            data_factor=data_factor,
            max_size=max_size,
            test_every=test_every,
            backend=backend,
            compact=config.compact,
            surface=config.surface,
        ),
        evaluate=replace(
            config.evaluate, data_factor=data_factor, max_size=max_size, test_every=test_every, backend=backend
        ),
        render=replace(config.render, data_factor=data_factor, test_every=test_every, backend=backend),
        meshing=replace(config.meshing, backend=backend),
    )


def _do(job: _Job, out: Path) -> None:
    """Do a job unless its stamp says that it is done. `begun.json` becomes `done.json` at the end."""
    stamp = _stamp(job, out)
    begun, done = job.folder / "begun.json", job.folder / "done.json"
    reason = stamp.why_stale(done, job.outputs)
    if reason is None:
        logger.info("%s: done already", job.name)
        return
    logger.info("%s: %s", job.name, reason)
    resumes = stamp.why_stale(done if done.exists() else begun, outputs=()) is None
    done.unlink(missing_ok=True)
    stamp.write(begun)
    job.action(resumes)
    begun.replace(done)


def _stamp(job: _Job, out: Path) -> Stamp:
    chosen = flatten(asdict(job.options))
    # A file that an option names is an input too, if it is not one of the hidden paths that are empty here.
    named = {name: path for name, path in chosen.items() if isinstance(path, Path) and path.is_file()}
    digests = {name: digest(path, exclude=out) for name, path in {**job.inputs, **named}.items()}
    # Through JSON, as the stamp on disk went: tuples become lists.
    settings = json.loads(json.dumps(chosen, default=str))
    return Stamp(settings, digests)


def _pose_job(config: Config, photos: Path, out: Path) -> _Job:
    folder = out / "pose"
    whole = replace(config.pose, photos=photos, out=folder)
    return _Job("pose", config.pose, lambda resumes: pose.run(whole), {"photos": photos}, (folder / "sparse",), folder)


def _fit_job(config: Config, source: Path, out: Path) -> _Job:
    folder = out / "fit"
    # Whether somebody looks, and how much memory there is, changes nothing of the result: they are no part of what
    # decides whether the fit is done.
    whole = replace(config.fit, capture=source, out=folder, view=config.view, memory_limit=config.memory_limit)
    outputs = (_scene(config, out), folder / "log.jsonl")
    return _Job(
        "fit", config.fit, lambda resumes: fit.run(replace(whole, resume=resumes)), {"capture": source}, outputs, folder
    )


def _scene(config: Config, out: Path) -> Path:
    is_small = config.kind != "gaussians" or config.fit.compact
    return out / "fit" / (FIELD_FILE if is_small else SPLATS_FILE)


def _evaluate_job(config: Config, source: Path, out: Path) -> _Job:
    scene, folder = _scene(config, out), out / "eval"
    whole = replace(config.evaluate, scene=scene, capture=source, out=folder)
    inputs = {"scene": scene, "capture": source}
    outputs = (folder / "metrics.json",)
    return _Job("evaluate", config.evaluate, lambda resumes: evaluate.run(whole), inputs, outputs, folder)


def _render_jobs(config: Config, source: Path, capture: Capture, out: Path) -> list[_Job]:
    """A video, and the depth of the test views as stills."""
    scene, folder = _scene(config, out), out / "renders"
    inputs = {"scene": scene, "capture": source}
    sized = config.render
    if sized.width is None and sized.height is None:
        # The size that was fitted: photos may be far larger than that.
        width, height = capture.cameras.sizes[capture.train[0]].tolist()
        sized = replace(sized, width=width, height=height)
    options = {folder / "video.mp4": sized}
    if capture.test:
        options[folder / "depth"] = replace(sized, path="test", mode="depth", cameras=None)

    def job(target: Path, chosen: RenderOptions) -> _Job:
        whole = replace(chosen, scene=scene, capture=source, out=target, memory_limit=config.memory_limit)
        stamps = folder / f".{target.stem}"
        return _Job(f"render {target.name}", chosen, lambda resumes: render.run(whole), inputs, (target,), stamps)

    return [job(target, chosen) for target, chosen in options.items()]


def _mesh_job(config: Config, source: Path, out: Path) -> _Job:
    scene, target = _scene(config, out), out / "mesh.glb"
    inputs = {"scene": scene, "capture": source}
    whole = replace(config.meshing, scene=scene, out=target, capture=source)
    return _Job("mesh", config.meshing, lambda resumes: mesh.run(whole), inputs, (target,), out / ".mesh")


def _page_job(config: Config, source: Path, out: Path) -> _Job:
    scene, page = _scene(config, out), out / "page.html"
    inputs = {"scene": scene, "capture": source}
    options = export.Config(scene=Path(), out=Path(), title=out.resolve().name)
    whole = replace(options, scene=scene, out=page, capture=source)
    return _Job("page", options, lambda resumes: export.run(whole), inputs, (page,), out / ".page")


def _report_job(out: Path) -> _Job:
    page = out / "report.html"
    parts = {"fit": out / "fit", "eval": out / "eval", "renders": out / "renders"}
    parts["mesh"] = out / f"mesh{MESH_FACTS}"
    # The report shows what the folders hold, so that their stamps stand for all of it.
    inputs = {name: path for name, path in parts.items() if path.exists()}
    options = report.Config(run=Path())
    return _Job("report", options, lambda resumes: report.run(report.Config(out)), inputs, (page,), out / ".report")


def _summary(config: Config, capture: Capture, out: Path, seconds: float) -> str:
    scene, metrics = _scene(config, out), out / "eval" / "metrics.json"
    rows = [("scene", f"{scene} ({scene.stat().st_size / 1e6:.1f} MB)")]
    if metrics.is_file():
        scores = json.loads(metrics.read_text(encoding="utf-8"))
        quality = f"PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}, FLIP {scores['flip']:.4f}"
        rows.append(("quality", f"{quality} on {len(scores['views'])} photos"))
        rows.append(("size", scores["scene_size"]))
    rows += [
        ("photos", f"{len(capture.train)} fitted, {len(capture.test)} held out"),
        ("video", str(out / "renders" / "video.mp4")),
        *(("page", f"{page} ({page.stat().st_size / 1e6:.1f} MB)") for page in [out / "page.html"] if page.is_file()),
        *(("mesh", f"{made} ({made.stat().st_size / 1e6:.1f} MB)") for made in [out / "mesh.glb"] if made.is_file()),
        ("report", str(out / "report.html")),
        ("time", duration_text(seconds)),
    ]
    return "\n".join(f"{name:<10} {text}" for name, text in rows)
