"""The part of `scene3d fit` that fits radiance fields: all kinds but gaussians."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from scene3d import __version__
from scene3d.core.capture import Capture
from scene3d.core.fields import HARMONIC_FEATURES, NETWORK_KINDS, Coloring, FieldKind, Shading
from scene3d.core.interrupt import stop_requests
from scene3d.core.progress import duration_text
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.atomic import write_text
from scene3d.io.camera_path import CAMERAS_NAME, cameras_json
from scene3d.io.registry import FIELD_FILE, write_scene
from scene3d.recon import field_checkpoint, fit_files
from scene3d.recon.field_fit import FieldFitResult, FieldHooks, fit_field
from scene3d.recon.field_settings import (
    HARMONIC_RATE,
    FieldFitSettings,
    LeavesName,
    PlacingName,
    SpaceName,
    field_preset,
    without_bounds,
)
from scene3d.recon.presets import PresetName
from scene3d.render.surround import up_axis

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FieldConfig:
    """How a radiance field is made. What is not given comes from the preset."""

    box: tuple[float, float, float, float, float, float] | None = None
    """Of the field, world: x0 y0 z0 x1 y1 z1. Default: around the silhouettes, or around most of the points."""
    space: SpaceName | None = None
    """Where the field lives. box = around an object; contracted = all of space, what is far with less detail; ndc = in
    front of cameras that look one way. Default: box where photos have alpha, else ndc or contracted, by the cameras."""
    near_radius: float | None = None
    """contracted: what is nearer than this to where the cameras look keeps its size, scene units. Default: half of the
    points are."""
    last_voxels: int | None = None
    """Nodes of the last grid in all. More are sharper, slower and larger."""
    step_in_voxels: float | None = None
    """Distance of samples along rays, in voxels. Larger values are faster and blur what is thin."""
    leaves: LeavesName | None = None
    """trivec: one = cubes of one size, two = of two sizes, added, cover = two shifted lattices, blended: no seams."""
    leaf_nodes: int | None = None
    """trivec: nodes of each vector of a leaf. More make fewer, larger leaves."""
    bases: int | None = None
    """rbf: radial bases. More are sharper, slower and larger: each is 73 numbers with the ranks of the presets."""
    placing: PlacingName | None = None
    """rbf: kmeans = bases where the colours of opaque places change fastest, shaped like what is there; even = round
    ones anywhere around matter."""
    waves: float | None = None
    """rbf: greatest frequency of the sines that give a basis its channels, 1 to 1000; 0 = no sines."""
    hash_levels: int | None = None
    """hash: grids from 16 cells a side to those of last-voxels."""
    row_bits: int | None = None
    """hash: no level has more than 2^row_bits rows of four numbers. Each more doubles the file, and is sharper."""
    density_rank: int | None = None
    """Ranks of each mode of density, a multiple of 16; of hash and mlp the units of a layer."""
    color_rank: int | None = None
    """The same of colour."""
    hidden: int | None = None
    """Width of the decoder's layers, a multiple of 16. Wider ones tell more about reflections and are slower."""
    decoder: Shading | None = None
    """deferred = one evaluation a pixel, from the mean features of its ray; sample = one for each sample, as TensoRF:
    slower in fits and several times slower in images."""
    coloring: Coloring | None = None
    """network = colours from features and direction by a network; harmonics = features are spherical harmonics of each
    channel, as those of Gaussians."""
    batch_rays: int | None = None
    """Rays of one step."""
    l1: float | None = None
    """Weight of the mean absolute factor of density; larger values clear more haze away."""
    distortion: float | None = None
    """Weight of how far density spreads along rays. Clears haze in front of cameras; 0.01 is usual."""
    depth: float | None = None
    """Weight of depth maps, where transforms.json names them (depth_file_path, depth_unit_scale_factor); 0 = none."""
    tv: float | None = None
    """Weight of differences between neighbouring nodes of density. Smooths what few photos see; 0.001 is much."""
    lr_factors: float | None = None
    """First step size of planes and lines."""


# Options of `scene3d fit` that only Gaussians know; a field must not seem to follow them.
SPLAT_OPTIONS = (
    *("strategy", "sh_degree", "antialiased", "exposure", "pose_opt", "opacity_reg", "scale_reg", "init"),
    *("memory_limit", "compact", "small", "mask_weight", "depth_weight"),
)

OWN_OPTIONS = {
    "trivec": ("leaves", "leaf_nodes"),
    "rbf": ("bases", "placing", "waves"),
    "hash": ("hash_levels", "row_bits"),
}


@dataclass(frozen=True)
class Order:
    """What `scene3d fit` asks for, whatever the kind.

    Attributes:
        kind: Of the field.
        preset: Whose settings are the default.
        common: max_steps, time_limit, background, eval_steps, checkpoint_every and seed, as far as given.
        field: Options of fields.
        out: Folder.
        resume: Go on from the checkpoint.
        record: What config.json holds besides the settings.
    """

    kind: FieldKind
    preset: PresetName
    common: dict[str, Any]
    field: FieldConfig
    out: Path
    resume: bool
    record: Callable[[FieldFitSettings], dict[str, Any]]


def run(order: Order, capture: Capture) -> None:
    """Fit, write, print the score."""
    settings = field_settings(order, has_bounds=capture.has_alpha)
    path = order.out / "checkpoint.pt"
    resumes = order.resume and path.exists()
    done = field_checkpoint.load(path, capture, settings).step if resumes else 0
    begins = f"{len(capture.train)} photos, {settings.max_steps:,} steps of {settings.batch_rays:,} rays"
    logger.info("%s", f"resuming after step {done}" if done else begins)
    log = fit_files.RunLog(order.out / "log.jsonl", done)
    fit_files.write_record(order.out / "config.json", order.record(settings))
    with stop_requests() as should_stop:
        hooks = FieldHooks(
            lambda line: log.write_row(asdict(line)),
            lambda scores: fit_files.write_validation(order.out, scores),
            should_stop,
            path,
            order.resume,
        )
        result = fit_field(capture, settings, hooks)
    if not result.is_finished:
        logger.warning("stopped after step %d; the same command goes on from %s", result.n_steps, path)
        raise SystemExit(should_stop.exit_code)
    info = SceneInfo(up=up_axis(capture.cameras), source=str(capture.source), made_by=f"scene3d {__version__}")
    write_scene(Scene(result.field, info), order.out / FIELD_FILE)
    # Whoever compresses or shows the scene looks for its cameras here.
    write_text(order.out / CAMERAS_NAME, cameras_json(capture.cameras))
    print(_summary(result, order.out / FIELD_FILE))


def refuse_splat_options(config: Any) -> None:
    """Check that no option was given that only Gaussians know.

    Raises:
        ValueError: one was.
    """
    given = [f.name for f in fields(config) if f.name in SPLAT_OPTIONS and getattr(config, f.name) != _default(f)]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"{flags}: only --kind gaussians knows it. Leave it away, or see --field.*")


def refuse_field_options(options: FieldConfig) -> None:
    """Check that no option was given that only fields know.

    Raises:
        ValueError: one was.
    """
    given = [name for name, value in asdict(options).items() if value is not None]
    if given:
        flags = ", ".join(f"--field.{name.replace('_', '-')}" for name in given)
        raise ValueError(f"{flags}: Gaussians know no such thing. Leave it away, or fit a field: --kind vm")


def _default(option: Any) -> Any:
    return option.default if option.default is not MISSING else option.default_factory()


def field_settings(order: Order, has_bounds: bool = True) -> FieldFitSettings:
    """The preset with what the user gave in its place.

    Args:
        order: What was asked for.
        has_bounds: Photos show nothing but the subject, so that a field need not hold all that is around.
    """
    common = dict(order.common)
    preset = field_preset(order.preset, order.kind, common.pop("max_steps", None))
    given = {name: value for name, value in asdict(order.field).items() if value is not None}
    for kind, names in OWN_OPTIONS.items():
        strange = [name for name in names if name in given and order.kind != kind]
        if strange:
            flags = ", ".join(f"--field.{name.replace('_', '-')}" for name in strange)
            raise ValueError(f"{flags}: only --kind {kind} knows it, got {order.kind}")
    space = given.get("space", "auto")
    if "box" not in given and (space in ("contracted", "ndc") or (space == "auto" and not has_bounds)):
        preset = without_bounds(preset)
    if "last_voxels" in given:
        is_network = order.kind in NETWORK_KINDS
        given["first_voxels"] = given["last_voxels"] if is_network else min(preset.first_voxels, given["last_voxels"])
    if given.get("coloring") == "harmonics":
        given["n_features"] = HARMONIC_FEATURES
        given["lr_decoder"] = HARMONIC_RATE
    return replace(preset, **common, **given)


def _summary(result: FieldFitResult, path: Path) -> str:
    scores = result.validation
    psnr = "" if scores is None else f"PSNR {scores.psnr:.2f} dB ({len(scores.views)} test views)  "
    size = Scene(result.field).size_text()
    return f"{psnr}{size}  {result.n_steps:,} steps in {duration_text(result.seconds)} -> {path}"
