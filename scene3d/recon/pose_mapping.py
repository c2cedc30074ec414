"""Structure from motion with pycolmap: features, matches, mapping, and the ladder of retries.

This module runs in a process of its own (see pose_worker), because loading pycolmap before Pillow's codecs breaks
these (both bring their own zlib), and because COLMAP ends its process on some inputs. Nothing here may use Pillow.

Photos are called 00000.jpg, 00001.jpg, ... in the work folder (COLMAP's lists of pairs know no spaces); the model
that is written has their own names again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scene3d.recon.pose_database import coarse_descriptors, count_verified_pairs, match_facts
from scene3d.recon.pose_frame import upright_frame
from scene3d.recon.pose_known import near_pairs, read_cameras, triangulate
from scene3d.recon.pose_pairs import Pairs, all_pairs, neighbour_pairs, similar_pairs
from scene3d.recon.pose_recipe import EXHAUSTIVE_LIMIT, Recipe

# Step, done, total, and the database table whose rows count what is done ("" where calls of emit do).
# The parent process counts them: two copies of SQLite in one process undo each other's file locks.
Emit = Callable[[str, int, int, str], None]

OVERLAP = 10
INIT_TRIALS = 40
MAX_MODELS = 10
N_PARTNERS = 20


@dataclass(frozen=True)
class CameraGroup:
    """Photos that share intrinsics: names in the work folder and COLMAP's model."""

    names: tuple[str, ...]
    model: str


@dataclass(frozen=True)
class MappingJob:
    """All the child process needs to know. Folders are strings, for JSON.

    Attributes:
        work_dir: Holds photos/ and masks/ (where has_masks); databases and the model are written here.
        names: The photos' own names, in order; photo i is called work_names[i] in the work folder.
        work_names: Names in the work folder.
        groups: Photos that share intrinsics.
        recipes: The ladder.
        matcher: auto, exhaustive or sequential.
        has_masks: masks/ is to be used.
        enough: Share of photos that ends the ladder.
        threads: 0 = all cores.
        seed: Of every random choice.
        orient: up or none.
        is_verbose: Keep COLMAP's log on.
        has_cameras: The cameras are known, in work_dir/known.json: only points are wanted, in work_dir/points.npz.
    """

    work_dir: str
    names: tuple[str, ...]
    work_names: tuple[str, ...]
    groups: tuple[CameraGroup, ...]
    recipes: tuple[Recipe, ...]
    matcher: str
    has_masks: bool
    enough: float
    threads: int
    seed: int
    orient: str
    is_verbose: bool
    has_cameras: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> MappingJob:
        data = json.loads(text)
        data["groups"] = tuple(CameraGroup(tuple(g["names"]), g["model"]) for g in data["groups"])
        data["recipes"] = tuple(Recipe(**r) for r in data["recipes"])
        data["names"], data["work_names"] = tuple(data["names"]), tuple(data["work_names"])
        return MappingJob(**data)


@dataclass
class _Best:
    """The best model so far. Mutable: the ladder's state."""

    model: Any = None
    database: Path | None = None
    n_images: int = 0


def run_ladder(job: MappingJob, emit: Emit) -> dict[str, Any]:
    """Try recipes until enough photos register; write the best model to work_dir/model.

    Returns:
        JSON-ready facts: rungs, cameras, statistics, features and inliers of every photo, the world transform.
    """
    import pycolmap

    pycolmap.logging.minloglevel = 0 if job.is_verbose else 2
    pycolmap.logging.alsologtostderr = job.is_verbose
    pycolmap.set_random_seed(job.seed)
    best, rungs = _Best(), []
    previous: tuple[Recipe, Path] | None = None
    for k, recipe in enumerate(job.recipes):
        database = Path(job.work_dir) / f"database_{k}.db"
        outcome = _climb(job, recipe, database, previous, best, emit if k == 0 else _labelled(emit, recipe.label))
        rungs.append({"label": recipe.label, **outcome})
        previous = (recipe, database) if outcome["n_verified_pairs"] > 0 else None
        if best.n_images >= job.enough * len(job.names):
            break
    facts: dict[str, Any] = {"rungs": rungs, "pycolmap": pycolmap.__version__}
    facts["photos"] = match_facts(
        best.database or Path(job.work_dir) / f"database_{len(rungs) - 1}.db",
        dict(zip(job.work_names, job.names, strict=True)),
    )
    if best.model is not None:
        facts |= _write_model(job, best.model)
        facts["database"] = best.database.name if best.database is not None else ""
    return facts


def find_points(job: MappingJob, emit: Emit) -> dict[str, Any]:
    """Match the photos of a job whose cameras are known and triangulate.

    Returns:
        JSON-ready facts; those of the points are missing where no two photos match.
    """
    import pycolmap

    pycolmap.logging.minloglevel = 0 if job.is_verbose else 2
    pycolmap.set_random_seed(job.seed)
    work = Path(job.work_dir)
    cameras = read_cameras(work / "known.json")
    database = work / "database_0.db"
    _extract(job, job.recipes[0], database, emit)
    _match(job, job.recipes[0], database, near_pairs([cameras[name] for name in job.work_names]), emit)
    n_pairs = count_verified_pairs(database)
    facts: dict[str, Any] = {"n_verified_pairs": n_pairs}
    if n_pairs:
        emit("triangulation", 0, 1, "")
        facts |= triangulate(work, database, cameras, job.threads, job.seed)
        emit("triangulation", 1, 1, "")
    return facts


def _climb(
    job: MappingJob, recipe: Recipe, database: Path, previous: tuple[Recipe, Path] | None, best: _Best, emit: Emit
) -> dict[str, Any]:
    """Run one recipe; `best` takes its model where that is better. Failures of COLMAP are an outcome, not an end."""
    outcome: dict[str, Any] = {"n_registered": 0, "n_points": 0, "n_verified_pairs": 0, "problem": ""}
    try:
        _prepare_matches(job, recipe, database, previous, emit)
        outcome["n_verified_pairs"] = count_verified_pairs(database)
        if outcome["n_verified_pairs"] == 0:
            outcome["problem"] = "no two photos share enough features"
            return outcome
        models = _map(job, recipe, database, emit)
    except (RuntimeError, ValueError, InterruptedError) as error:
        outcome["problem"] = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        return outcome
    if not models:
        outcome["problem"] = "no pair of photos to start from"
        return outcome
    model = max(models.values(), key=lambda m: (m.num_reg_images(), m.num_points3D()))
    outcome["n_registered"], outcome["n_points"] = model.num_reg_images(), model.num_points3D()
    outcome["n_models"] = len(models)
    # Looser rungs find more points of worse quality, so a retry must earn its place by photos.
    if outcome["n_registered"] > best.n_images:
        best.model, best.database, best.n_images = model, database, outcome["n_registered"]
    return outcome


def _labelled(emit: Emit, label: str) -> Emit:
    return lambda step, done, total, table: emit(f"retry ({label}): {step}", done, total, table)


def _prepare_matches(
    job: MappingJob, recipe: Recipe, database: Path, previous: tuple[Recipe, Path] | None, emit: Emit
) -> None:
    """Fill `database`, from the previous rung's where features or matches are the same."""
    import pycolmap

    if previous is not None and _same(previous[0], recipe, _FEATURE_FIELDS):
        shutil.copyfile(previous[1], database)
        if _same(previous[0], recipe, _MATCH_FIELDS):
            return
        with pycolmap.Database.open(database) as opened:
            opened.clear_matches()
            opened.clear_two_view_geometries()
    else:
        _extract(job, recipe, database, emit)
    _match(job, recipe, database, _choose_pairs(job, recipe, database), emit)


def _extract(job: MappingJob, recipe: Recipe, database: Path, emit: Emit) -> None:
    import pycolmap

    work = Path(job.work_dir)
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads = job.threads or -1
    options.max_image_size = recipe.max_image_size
    options.sift.max_num_features = recipe.max_features
    options.sift.first_octave = recipe.first_octave
    options.sift.peak_threshold = recipe.peak_threshold
    emit("features", 0, len(job.names), f"{database.name}:keypoints")
    pycolmap.Database.open(database).close()  # import_images wants the file to be there.
    for group in job.groups:
        reader = pycolmap.ImageReaderOptions()
        reader.camera_model = group.model
        if job.has_masks:
            reader.mask_path = work / "masks"
        names, single = list(group.names), pycolmap.CameraMode.SINGLE
        # Extraction numbers photos in the order its threads finish; numbered before, the model is reproducible.
        pycolmap.import_images(database, work / "photos", camera_mode=single, image_names=names, options=reader)
        pycolmap.extract_features(
            database,
            work / "photos",
            image_names=names,
            camera_mode=single,
            reader_options=reader,
            extraction_options=options,
            device=pycolmap.Device.cpu,
        )


def _match(job: MappingJob, recipe: Recipe, database: Path, chosen: Pairs, emit: Emit) -> None:
    import pycolmap

    pairs = sorted(chosen)
    if not pairs:
        return
    pair_list = database.with_suffix(".pairs.txt")
    pair_list.write_text("".join(f"{job.work_names[i]} {job.work_names[j]}\n" for i, j in pairs), encoding="utf-8")
    options = pycolmap.FeatureMatchingOptions()
    options.num_threads = job.threads or -1
    options.sift.max_ratio = recipe.max_ratio
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = pair_list
    # Results show in the database block by block: small blocks make a smooth progress line.
    pairing.block_size = max(20, min(1225, len(pairs) // 50))
    verification = pycolmap.TwoViewGeometryOptions()
    verification.min_num_inliers = recipe.min_pair_inliers
    verification.ransac.random_seed = job.seed

    emit("matches", 0, len(pairs), f"{database.name}:two_view_geometries")
    pycolmap.match_image_pairs(
        database,
        matching_options=options,
        pairing_options=pairing,
        verification_options=verification,
        device=pycolmap.Device.cpu,
    )


def _choose_pairs(job: MappingJob, recipe: Recipe, database: Path) -> Pairs:
    n = len(job.names)
    if job.matcher == "exhaustive" or (job.matcher == "auto" and n <= EXHAUSTIVE_LIMIT):
        return all_pairs(n)
    if recipe.is_dense and n <= 2 * EXHAUSTIVE_LIMIT:
        return all_pairs(n)
    partners = N_PARTNERS * (3 if recipe.is_dense else 1)
    return neighbour_pairs(n, OVERLAP) | similar_pairs(coarse_descriptors(database, job.work_names), partners)


def _map(job: MappingJob, recipe: Recipe, database: Path, emit: Emit) -> dict[int, Any]:
    import pycolmap

    work = Path(job.work_dir)
    models = work / f"models_{database.stem}"
    models.mkdir()
    total = len(job.names)
    if recipe.is_global:
        emit("global mapping", 0, total, "")
        pycolmap.calibrate_view_graph(database)
        return dict(pycolmap.global_mapping(database, work / "photos", models, options=_global_options(job)))
    # The first two photos come as a pair. Photos of models that are given up count too, so the count stops at total.
    registered = 2
    emit("mapping", 0, total, "")

    def on_image() -> None:
        nonlocal registered
        registered = min(registered + 1, total)
        emit("mapping", registered, total, "")

    options = _incremental_options(job, recipe)
    return dict(
        pycolmap.incremental_mapping(database, work / "photos", models, options=options, next_image_callback=on_image)
    )


def _global_options(job: MappingJob) -> Any:
    import pycolmap

    options = pycolmap.GlobalPipelineOptions()
    options.num_threads = job.threads or -1
    options.random_seed = job.seed
    options.mapper.global_positioning.use_gpu = False
    options.mapper.bundle_adjustment.ceres.use_gpu = False
    return options


def _incremental_options(job: MappingJob, recipe: Recipe) -> Any:
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions()
    # One thread is as fast as two here, and it makes the model reproducible bit by bit; sums of many threads are not.
    options.num_threads = 1
    options.random_seed = job.seed
    options.min_num_matches = recipe.min_pair_inliers
    options.min_model_size = 3
    # The default, 200, spends minutes on photos that belong to no model.
    options.init_num_trials = INIT_TRIALS
    options.max_num_models = MAX_MODELS
    options.structure_less_registration_fallback = recipe.has_fallback
    options.mapper.init_min_num_inliers = recipe.init_min_inliers
    options.mapper.init_min_tri_angle = recipe.init_min_angle_deg
    options.mapper.abs_pose_min_num_inliers = recipe.min_pose_inliers
    options.mapper.abs_pose_min_inlier_ratio = recipe.min_pose_ratio
    return options


def _write_model(job: MappingJob, model: Any) -> dict[str, Any]:
    import pycolmap

    registered = [image for image in model.images.values() if image.has_pose]
    world_from_colmap = np.eye(4)
    if job.orient == "up":
        poses = np.stack([image.cam_from_world().matrix() for image in registered])
        points = np.stack([point.xyz for point in model.points3D.values()]) if model.points3D else np.zeros((0, 3))
        frame = upright_frame(poses, points)
        model.transform(pycolmap.Sim3d(frame.scale, pycolmap.Rotation3d(frame.rotation), frame.translation))
        world_from_colmap = frame.matrix()
    own_names = dict(zip(job.work_names, job.names, strict=True))
    for image in model.images.values():
        image.name = own_names[image.name]
    target = Path(job.work_dir) / "model"
    target.mkdir()
    model.write(target)
    cameras = []
    for camera_id, camera in sorted(model.cameras.items()):
        n_images = sum(image.camera_id == camera_id for image in registered)
        cameras.append(
            {
                "model": camera.model.name,
                "width": camera.width,
                "height": camera.height,
                "params": [float(value) for value in camera.params],
                "has_prior_focal_length": bool(camera.has_prior_focal_length),
                "n_photos": n_images,
            }
        )
    return {
        "registered": sorted(image.name for image in registered),
        "cameras": [camera for camera in cameras if camera["n_photos"]],
        "n_points": model.num_points3D(),
        "mean_reprojection_error": float(model.compute_mean_reprojection_error()),
        "mean_track_length": float(model.compute_mean_track_length()),
        "world_from_colmap": world_from_colmap.tolist(),
    }


_FEATURE_FIELDS = ("max_image_size", "max_features", "first_octave", "peak_threshold")
_MATCH_FIELDS = ("max_ratio", "min_pair_inliers", "is_dense")


def _same(a: Recipe, b: Recipe, fields: tuple[str, ...]) -> bool:
    return all(getattr(a, name) == getattr(b, name) for name in fields)
