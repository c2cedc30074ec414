"""Fit splats or a radiance field to a posed capture. Ctrl-C stops cleanly; the same command goes on to the same end."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from scene3d import __version__
from scene3d.compress.aware_settings import AwareSettings
from scene3d.core.capture import Capture
from scene3d.core.gaussians import Gaussians
from scene3d.core.interrupt import stop_requests
from scene3d.core.progress import Progress, duration_text
from scene3d.core.push import Influence, one_after_another
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.atomic import write_text
from scene3d.io.camera_path import CAMERAS_NAME, cameras_json
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.registry import FIELD_FILE, SPLATS_FILE, read_scene, write_scene
from scene3d.io.stamp import digest
from scene3d.io.transforms_json import write_transforms_json
from scene3d.ops import cuda_call
from scene3d.ops.memory_limit import memory_limit, set_memory_limit
from scene3d.ops.threads import set_threads
from scene3d.recon import checkpoint, fit_files, triangulate
from scene3d.recon.descent import Objective
from scene3d.recon.field_settings import FieldFitSettings
from scene3d.recon.fit import FitResult, Hooks, fit
from scene3d.recon.forecast import check_memory, forecast, measure_cost
from scene3d.recon.initialize import initialize
from scene3d.recon.mask_prune import MaskPruning, MaskSettings
from scene3d.recon.pose_progress import StepProgress
from scene3d.recon.presets import MAX_SIZES, PresetName, for_codec, preset_settings
from scene3d.recon.settings import BackgroundName, ExposureName, FitSettings, SurfaceName
from scene3d.recon.surface import begin_on_surfaces
from scene3d.recon.validate import Validation
from scene3d.render import backends
from scene3d.render.surround import up_axis
from scene3d.stages import fit_compact, fit_field
from scene3d.stages.fit_compact import Aware, CompactConfig
from scene3d.stages.fit_field import FieldConfig
from scene3d.view.live import Live, start_live

logger = logging.getLogger(__name__)

# Part of the run in which masks are learnt before a codec takes over.
MASKED_BEFORE_CODEC = 0.15
SceneKind = Literal["gaussians", "vm", "cp", "trivec", "rbf", "hash", "mlp"]


@dataclass(frozen=True)
class StrategyConfig:
    """How the number and the places of Gaussians change. What is not given comes from the preset."""

    name: Annotated[Literal["default", "mcmc"] | None, tyro.conf.arg(name="")] = None
    """default = adaptive density control, mcmc = relocation and noise."""
    cap_max: int | None = None
    """Most Gaussians ever. More are sharper, slower and larger."""
    refine_every: int | None = None
    """Steps from one refinement to the next."""
    refine_start: float | None = None
    """First refinement, fraction of the run."""
    refine_stop: float | None = None
    """Last refinement, fraction of the run."""
    absgrad: bool | None = None
    """default: use absolute screen gradients, which split blurry Gaussians better (then raise grow-grad2d)."""
    grow_grad2d: float | None = None
    """default: screen gradient above which a Gaussian grows; smaller values give more Gaussians."""
    prune_opacity: float | None = None
    """More transparent Gaussians are removed (default) or moved (mcmc)."""
    reset_every: float | None = None
    """default: fraction of the run between resets of all opacities; 0 = never."""
    noise: float | None = None
    """mcmc: strength of the exploration noise."""


@dataclass(frozen=True)
class Config:
    """What to fit and how. What is not given comes from the preset."""

    capture: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CAPTURE")]
    """Folder with photos and poses: COLMAP, transforms.json or Blender."""
    out: Path = Path("fit")
    """Folder for scene.ply (scene.s3d of a field), checkpoint.pt, config.json, log.jsonl and stats/."""
    kind: SceneKind = "gaussians"
    """gaussians = splats, fast to render; vm = field of planes and lines (TensoRF), cp = of lines only, small, trivec =
    of small leaves around the surfaces, rbf = of planes, lines and radial bases where colours change (NeuRBF), hash =
    a hash grid and a small network (Instant-NGP), mlp = a network alone, tiny and slow (NeRF)."""
    field: FieldConfig = dataclasses.field(default_factory=FieldConfig)
    """Options of all kinds but gaussians."""
    preset: PresetName = "balanced"
    """fast = a minute or less, balanced = minutes, best = as good as it gets; for small photos on a CPU."""
    max_steps: int | None = None
    """Steps of the run; all schedules follow."""
    time_limit: float | None = None
    """Seconds of fitting at most; schedules follow the clock, so results then depend on the machine."""
    data_factor: int | None = None
    """Reduce photos by this whole number."""
    max_size: int | None = None
    """Longer side of photos at most, pixels. Default without data-factor: by the preset."""
    test_every: int = 8
    """Every n-th photo by name is held out for testing; 0 = none."""
    strategy: StrategyConfig = dataclasses.field(default_factory=StrategyConfig)
    """Density control."""
    sh_degree: int | None = None
    """Spherical-harmonics degree of view-dependent colour, 0 to 3."""
    antialiased: bool = False
    """Opacity compensation of Mip-Splatting: no halos when zoomed out."""
    exposure: ExposureName = "none"
    """Learn a colour correction per photo: gain = one factor per channel, affine = all of it."""
    pose_opt: bool = False
    """Refine the poses of training cameras too; they are written to refined_transforms.json."""
    background: BackgroundName = "auto"
    """Behind the scene. auto = random colours where photos have alpha, else black."""
    surface: bool = False
    """Pull splats onto surfaces, for meshes. Takes longer."""
    surface_method: SurfaceName = "stereo"
    """surface: stereo = flat splats that begin and stay on what stereo of the photos sees, most exact. pgsr = flat
    splats whose normals, depths and photos agree between views, several times slower. 2dgs = discs met by rays, drawn
    together along them. rade = plain splats with a plane of depth each."""
    mask_weight: float | None = None
    """Prune by masks that are learnt (MaskGaussian) in the second half of the run: weight of the squared share of
    splats kept. 0.02 removes what photos hardly show, larger values more."""
    compact: bool = False
    """Fit for the smallest file: fewer splats, which learn to live with what the .s3d codec does to them. Writes
    scene.s3d instead of scene.ply."""
    small: CompactConfig = dataclasses.field(default_factory=CompactConfig)
    """How small the file of --compact is to be."""
    s3im: float | None = None
    """Weight of S3IM, the similarity in structure of random pixels, in the loss. For captures that fit badly."""
    depth_weight: float | None = None
    """Weight of depth maps, where transforms.json names them (depth_file_path, depth_unit_scale_factor): 1 where
    little else tells how far things are, 0.2 beside many photos. Steps take longer. Of fields see --field.depth."""
    opacity_reg: float | None = None
    """Weight of the mean opacity in the loss."""
    scale_reg: float | None = None
    """Weight of the mean size in the loss."""
    eval_steps: tuple[int, ...] | None = None
    """Also measure test views after these steps. By default after 5, 10, 20, 40 and 70 % of the run."""
    checkpoint_every: int = 2000
    """Steps between checkpoints; 0 = only at the end or when stopped."""
    init: Path | None = None
    """Scene file to begin with, instead of the points of the capture."""
    triangulate: bool = True
    """Where the capture has cameras but no points, find points in its photos first; else begin with random ones."""
    seed: int = 0
    """Of every random number."""
    resume: bool = True
    """Go on from the checkpoint in the output folder, if there is one."""
    backend: str = "auto"
    """Rasterizer: auto, cpu, cuda, gsplat or reference."""
    memory_limit: float | None = None
    """GB of the GPU's memory to take at most, of the host's where there is no GPU. Splats are listed in parts that fit;
    what cannot fit is refused at once. Default: all that is free."""
    deterministic: bool = False
    """With CUDA: add up in a fixed order, so that the same inputs give the same bytes; somewhat slower. Fits on the CPU
    always do."""
    view: bool = False
    """Show the fit of Gaussians in the browser while it goes on; only this machine can look."""
    view_port: int = 8080
    """Port of the view; where it is taken, the next that is free."""
    threads: int | None = None
    """Of the native code; all cores by default. Results do not depend on it."""


def run(config: Config) -> None:
    """Read, fit, write, print the score."""
    set_threads(config.threads)
    set_memory_limit(config.memory_limit)
    if config.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
    capture = read_capture(config.capture, _capture_options(config))
    for notice in capture.notices:
        logger.info("%s", notice)
    if config.kind != "gaussians":
        if config.surface:
            raise ValueError(f"surface: fits of Gaussians can lie on surfaces, a {config.kind} field cannot")
        if config.view:
            logger.warning("--view shows fits of Gaussians only; look at the field afterwards with scene3d view")
        fit_field.run(_field_order(config, capture), _with_points(config, capture))
        return
    fit_field.refuse_field_options(config.field)
    _refuse_other_backends(config)
    settings = fit_settings(config, capture)
    info = SceneInfo(
        antialiased=settings.antialiased,
        up=up_axis(capture.cameras),
        source=str(capture.source),
        made_by=f"scene3d {__version__}",
    )
    aware = _aware(config, capture, settings, info)
    first = _first_gaussians(config, capture)
    _check_memory(capture, len(first), settings)
    objective = None
    if settings.surface:
        first, objective = _begin_on_surfaces(capture, first, settings)
    path = config.out / "checkpoint.pt"
    resumes = config.resume and path.exists()
    done = checkpoint.load(path, capture, settings).step if resumes else 0
    logger.info("%s", f"resuming after step {done}" if done else _forecast_text(capture, first, settings))
    log = fit_files.RunLog(config.out / "log.jsonl", done)
    fit_files.write_record(config.out / "config.json", _record(config, capture, settings, len(first)))
    with stop_requests() as should_stop:
        hooks = Hooks(
            log.write,
            lambda scores: fit_files.write_validation(config.out, scores),
            should_stop,
            path,
            config.resume,
            objective=objective,
            influence=_influence(config, aware),
            show=_view(config, capture, first).show if config.view else Hooks.show,
        )
        result = fit(capture, first, settings, hooks)
    if not result.is_finished:
        logger.warning("stopped after step %d; the same command goes on from %s", result.n_steps, path)
        raise SystemExit(should_stop.exit_code)
    # Whoever compresses or shows the scene looks for its cameras here, as other trainers leave them.
    write_text(config.out / CAMERAS_NAME, cameras_json(result.capture.cameras))
    if config.pose_opt:
        write_transforms_json(result.capture.cameras, config.out / "refined_transforms.json")
    if aware is not None:
        scores, size = fit_compact.write(config.out, aware, result, capture, settings)
        print(_summary(result, scores, size, config.out / FIELD_FILE))
        return
    write_scene(Scene(result.gaussians, info), config.out / SPLATS_FILE)
    print(_summary(result, result.validation, f"{len(result.gaussians):,} Gaussians", config.out / SPLATS_FILE))


def _begin_on_surfaces(capture: Capture, first: Gaussians, settings: FitSettings) -> tuple[Gaussians, Objective]:
    if settings.surface_method != "stereo":
        return begin_on_surfaces(capture, first, settings)
    with Progress(2 * len(capture.train), "stereo") as progress:
        return begin_on_surfaces(capture, first, settings, progress.advance)


def _refuse_other_backends(config: Config) -> None:
    if config.compact and config.backend not in ("auto", "cpu", "reference"):
        raise ValueError(f"backend: fits with --compact run on the CPU, expected auto or cpu, got {config.backend!r}")
    if config.mask_weight is not None and config.backend not in ("auto", *backends.MASKING):
        raise ValueError(
            f"backend: --mask-weight needs one that takes masks, expected auto, cpu or cuda, got {config.backend!r}"
        )


def _influence(config: Config, aware: Aware | None) -> Influence | None:
    if config.mask_weight is None:
        return None if aware is None else aware.influence
    masks = MaskPruning(_mask_settings(config), config.seed)
    return masks.influence if aware is None else one_after_another(masks.influence, aware.influence)


def _mask_settings(config: Config) -> MaskSettings:
    """Masks end before the codec takes over."""
    if config.mask_weight is None or not config.mask_weight > 0:
        raise ValueError(f"mask_weight: expected more than 0, got {config.mask_weight}")
    if not config.compact:
        return MaskSettings(config.mask_weight)
    stop = AwareSettings.noise_from
    return MaskSettings(config.mask_weight, stop - MASKED_BEFORE_CODEC, stop)


def _aware(config: Config, capture: Capture, settings: FitSettings, info: SceneInfo) -> Aware | None:
    if not config.compact:
        return None
    return fit_compact.aware_fit(capture, settings, fit_compact.order(config.small), info)


def _check_memory(capture: Capture, n_first: int, settings: FitSettings) -> None:
    limit, device = memory_limit(), backends.device_for(settings.backend)
    if limit is not None:
        check_memory(capture, n_first, settings, device.type, limit)
    elif device.type == "cuda":
        try:
            check_memory(capture, n_first, settings, device.type, cuda_call.available_bytes(device))
        except ValueError as error:  # The count may stay below its cap.
            logger.warning("%s", str(error).replace("memory-limit: ", "", 1).replace("got", "the GPU has"))


def _view(config: Config, capture: Capture, first: Gaussians) -> Live:
    live, lines = start_live(Scene(first, SceneInfo(antialiased=config.antialiased)), capture, config.view_port)
    for line in lines:
        logger.info("%s", line)
    return live


def fit_settings(config: Config, capture: Capture) -> FitSettings:
    """The preset with what the user gave in its place."""
    preset = preset_settings(config.preset, capture, config.max_steps)
    if config.compact:
        wanted = fit_compact.order(config.small)
        preset = replace(for_codec(preset, wanted.noise_from), influence=str(wanted))
        preset = preset if config.max_steps is None else replace(preset, max_steps=config.max_steps)
    names = ("time_limit", "sh_degree", "antialiased", "exposure", "pose_opt", "background", "opacity_reg", "scale_reg")
    more = ("surface", "surface_method", "s3im", "depth_weight", "eval_steps", "checkpoint_every", "seed", "backend")
    if config.mask_weight is not None:
        if config.surface and config.surface_method == "2dgs":
            raise ValueError("mask_weight: the discs of --surface-method 2dgs take no masks. Use stereo, pgsr or rade")
        # Once masks are there, the number of Gaussians may only fall.
        begin = _mask_settings(config).start
        preset = replace(preset, influence=f"{_mask_settings(config)} {preset.influence}")
        preset = replace(preset, strategy=replace(preset.strategy, refine_stop=min(preset.strategy.refine_stop, begin)))
    strategy = replace(preset.strategy, **_given(config.strategy, tuple(asdict(config.strategy))))
    return replace(preset, strategy=strategy, **_given(config, names + more))


def _field_order(config: Config, capture: Capture) -> fit_field.Order:
    assert config.kind != "gaussians"
    names = ("max_steps", "time_limit", "background", "s3im", "eval_steps", "checkpoint_every", "seed", "backend")
    fit_field.refuse_splat_options(config)
    return fit_field.Order(
        config.kind,
        config.preset,
        _given(config, names),
        config.field,
        config.out,
        config.resume,
        lambda settings: _record(config, capture, settings, 0),
    )


def _given(config: Config | StrategyConfig, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names if getattr(config, name) is not None}


def _capture_options(config: Config) -> CaptureOptions:
    max_size = config.max_size
    if max_size is None and config.data_factor is None:
        max_size = MAX_SIZES[config.preset]
    return CaptureOptions(data_factor=config.data_factor, max_size=max_size, test_every=config.test_every)


def _first_gaussians(config: Config, capture: Capture) -> Gaussians:
    if config.init is not None:
        return read_scene(config.init).splats()
    return initialize(_with_points(config, capture), config.seed)


def _with_points(config: Config, capture: Capture) -> Capture:
    """The capture, with points of its photos where it has too few."""
    if not (config.triangulate and triangulate.needs_points(capture)):
        return capture
    larger = CaptureOptions(max_size=triangulate.PHOTO_SIZE, test_every=config.test_every)
    with StepProgress() as progress:
        return triangulate.with_points(
            capture,
            lambda: read_capture(config.capture, larger),
            config.out / "points.npz",
            config.threads or 0,
            config.seed,
            progress,
        )


def _forecast_text(capture: Capture, first: Gaussians, settings: FitSettings) -> str:
    expected = forecast(capture, len(first), settings, measure_cost(capture, first, settings))
    size = "x".join(str(n) for n in capture.cameras.sizes[capture.train[0]].tolist())
    return (
        f"{len(capture.train)} photos of {size}, {len(first):,} Gaussians to begin with, {settings.max_steps:,} steps: "
        f"about {duration_text(expected.seconds)} and {expected.memory_bytes / 2**30:.1f} GB "
        f"with at most {expected.n_gaussians:,} Gaussians"
    )


def _record(config: Config, capture: Capture, settings: FitSettings | FieldFitSettings, n_first: int) -> dict[str, Any]:
    options = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(config).items()}
    views = {"n_train": len(capture.train), "n_test": len(capture.test), "protocol": capture.protocol}
    return {
        "version": __version__,
        "config": options,
        "settings": asdict(settings),
        "inputs": {**views, "digest": digest(config.capture, exclude=config.out), "n_first_gaussians": n_first},
    }


def _summary(result: FitResult, scores: Validation | None, size: str, path: Path) -> str:
    psnr = "" if scores is None else f"PSNR {scores.psnr:.2f} dB ({len(scores.views)} test views)  "
    dropped = f", {result.n_dropped} dropped (not finite)" if result.n_dropped else ""
    steps = f"{result.n_steps:,} steps in {duration_text(result.seconds)}"
    return f"{psnr}{size}{dropped}  {steps} -> {path}"
