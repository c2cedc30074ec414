"""Structure from motion: a folder of photos in, camera poses and sparse points out, in COLMAP's layout.

    out/sparse/0/{cameras,images,points3D,rigs,frames}.bin    the largest model
    out/images                                                link to the photos, or upright copies of them
    out/pose_report.json                                      what happened, photo by photo

pycolmap works on stored pixels. Photos with an EXIF orientation other than 1 (and formats COLMAP cannot read) are
therefore copied upright first, so that poses and pixels agree for every later reader.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scene3d import __version__
from scene3d.core.errors import CaptureError
from scene3d.recon.pose_diagnosis import diagnose
from scene3d.recon.pose_mapping import CameraGroup, MappingJob
from scene3d.recon.pose_output import OutputGuard, check_output, clean_up, make_work_folder, publish
from scene3d.recon.pose_photos import (
    COPIED_SUFFIXES,
    LeftOut,
    Photo,
    check_photos,
    find_mask,
    find_mask_folder,
    group_by_camera,
    link_or_copy,
    list_photos,
    write_mask,
    write_upright_copy,
)
from scene3d.recon.pose_recipe import CameraModel, Matcher, Orient, Quality, colmap_camera_model, ladder
from scene3d.recon.pose_report import Attempt, PosedCamera, PoseReport, Unregistered
from scene3d.recon.pose_worker import run_mapping

# Share of photos with a pose below which the next rung of the ladder is tried.
ENOUGH = 0.8

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PoseSettings:
    """How poses are estimated.

    The result is reproducible bit by bit for one version of pycolmap and one machine: features and matches depend on
    the seed only, and mapping runs on one thread. The global mapper, the last resort, is not reproducible with several.

    Attributes:
        quality: Resolution and number of features.
        matcher: auto = all pairs up to 150 photos, above that neighbours by name and photos that look alike;
            exhaustive = all pairs; sequential = neighbours and loops, for video frames.
        camera_model: Lens model; auto = opencv from 15 photos of one camera on, simple_radial below.
        orient: up = z up, focus in the origin, median camera distance 1; none = COLMAP's own frame.
        retry: Try more features, relaxed thresholds and the global mapper when under 80 % of the photos register.
        use_masks: Use the folder `masks` beside the photos, where there is one.
        threads: For features and matches; 0 = all cores.
        seed: Of every random choice.
        keep_database: Keep COLMAP's database in out/.pose.
        is_verbose: COLMAP's log on stderr.
    """

    quality: Quality = "balanced"
    matcher: Matcher = "auto"
    camera_model: CameraModel = "auto"
    orient: Orient = "up"
    retry: bool = True
    use_masks: bool = True
    threads: int = 0
    seed: int = 0
    keep_database: bool = False
    is_verbose: bool = False


def estimate_poses(
    image_dir: Path, out_dir: Path, settings: PoseSettings | None = None, progress: Progress | None = None
) -> PoseReport:
    """Estimate camera poses and write them to `out_dir`; a failed run leaves what was there before.

    Args:
        image_dir: Folder of photos, subfolders included.
        out_dir: Gets sparse/0, images and pose_report.json.
        settings: Defaults where None.
        progress: Told (step, done, total).

    Returns:
        What happened, also in pose_report.json.

    Raises:
        CaptureError: No usable photos, or no two of them fit together.
        OutputError: out_dir cannot be written, or holds a model this function did not write.
        BackendUnavailable: pycolmap is not installed.
    """
    start = time.monotonic()
    settings = settings or PoseSettings()
    tell = progress or _silent
    names = list_photos(image_dir)
    photos, left_out = check_photos(image_dir, names, lambda done: tell("checking photos", done, len(names)))
    _require_two(image_dir, names, photos, left_out)
    check_output(image_dir, out_dir, any(photo.needs_copy for photo in photos))
    is_new = not out_dir.exists()
    work = make_work_folder(out_dir)
    try:
        with OutputGuard(out_dir):
            report = _estimate(image_dir, work, photos, left_out, settings, tell)
            report = dataclasses.replace(report, seconds=round(time.monotonic() - start, 2))
            publish(image_dir, out_dir, work, report)
    finally:
        clean_up(out_dir, work, settings.keep_database, is_new)
    return report


def _estimate(
    image_dir: Path, work: Path, photos: list[Photo], left_out: list[LeftOut], settings: PoseSettings, tell: Progress
) -> PoseReport:
    has_copies = any(photo.needs_copy for photo in photos)
    notices = [f"left out {item.name}: {item.reason}" for item in left_out]
    if has_copies:
        n_copied = sum(photo.needs_copy for photo in photos)
        notices.append(
            f"{n_copied} photos have an EXIF orientation or a format COLMAP cannot read; images/ holds copies"
        )
    photos = _stage_photos(image_dir, work, photos, has_copies, tell)
    n_masks = _stage_masks(image_dir, work, photos, notices) if settings.use_masks else 0
    job = _mapping_job(work, photos, n_masks > 0, settings)
    facts = run_mapping(job, tell)
    attempts = tuple(Attempt(**rung) for rung in facts["rungs"])
    registered = set(facts.get("registered", ()))
    unregistered = diagnose(photos, registered, facts["photos"])
    if len(registered) < 2:
        raise CaptureError(image_dir, *_failure(photos, unregistered, attempts, settings))
    notices += _model_notices(photos, unregistered, attempts)
    return PoseReport(
        photos=str(image_dir.resolve()),
        photo_copies=has_copies,
        n_photos=len(photos),
        registered=tuple(facts["registered"]),
        unregistered=unregistered,
        left_out=tuple(left_out),
        attempts=attempts,
        cameras=tuple(PosedCamera(**{**camera, "params": tuple(camera["params"])}) for camera in facts["cameras"]),
        n_points=facts["n_points"],
        mean_reprojection_error=facts["mean_reprojection_error"],
        mean_track_length=facts["mean_track_length"],
        world_from_colmap=tuple(tuple(row) for row in facts["world_from_colmap"]),
        n_masks=n_masks,
        notices=tuple(notices),
        photos_sha256=_hash(photos),
        seconds=0.0,
        versions={"scene3d": __version__, "pycolmap": facts["pycolmap"]},
        settings=dataclasses.asdict(settings),
    )


def _stage_photos(image_dir: Path, work: Path, photos: list[Photo], has_copies: bool, tell: Progress) -> list[Photo]:
    """Fill work/photos (links, names without spaces) and, where needed, work/images (upright copies).

    Returns:
        The photos under the names they have in out/images.
    """
    (work / "photos").mkdir()
    taken = {photo.name for photo in photos}
    staged = []
    for i, photo in enumerate(photos):
        source, name = image_dir / photo.name, photo.name
        if has_copies:
            if Path(name).suffix.lower() in COPIED_SUFFIXES:
                name = _free_name(name, taken)
            source = work / "images" / name
            source.parent.mkdir(parents=True, exist_ok=True)
            if photo.needs_copy:
                write_upright_copy(image_dir / photo.name, source)
            else:
                shutil.copyfile(image_dir / photo.name, source)
            tell("copying photos", i + 1, len(photos))
        staged.append(dataclasses.replace(photo, name=name))
        link_or_copy(source, work / "photos" / _work_name(i, name))
    return staged


def _stage_masks(image_dir: Path, work: Path, photos: list[Photo], notices: list[str]) -> int:
    folder = find_mask_folder(image_dir)
    if folder is None:
        return 0
    sources = [find_mask(folder, photo.name) for photo in photos]
    if not any(sources):
        notices.append(f"{folder}: no mask there has the name of a photo; masks are not used")
        return 0
    for i, (photo, source) in enumerate(zip(photos, sources, strict=True)):
        problem = write_mask(source, work / "masks" / f"{_work_name(i, photo.name)}.png", photo)
        if problem:
            notices.append(problem)
    return sum(source is not None for source in sources)


def _mapping_job(work: Path, photos: list[Photo], has_masks: bool, settings: PoseSettings) -> MappingJob:
    work_names = {photo.name: _work_name(i, photo.name) for i, photo in enumerate(photos)}
    groups = [
        CameraGroup(
            tuple(work_names[photo.name] for photo in group), colmap_camera_model(settings.camera_model, len(group))
        )
        for group in group_by_camera(photos)
    ]
    return MappingJob(
        work_dir=str(work.resolve()),
        names=tuple(photo.name for photo in photos),
        work_names=tuple(work_names.values()),
        groups=tuple(groups),
        recipes=ladder(settings.quality, settings.retry),
        matcher=settings.matcher,
        has_masks=has_masks,
        enough=ENOUGH,
        threads=settings.threads,
        seed=settings.seed,
        orient=settings.orient,
        is_verbose=settings.is_verbose,
    )


def _require_two(image_dir: Path, names: list[str], photos: list[Photo], left_out: list[LeftOut]) -> None:
    if len(photos) >= 2:
        return
    broken = "; ".join(f"{item.name} {item.reason}" for item in left_out[:5])
    more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
    found = f"{len(photos)} of {len(names)} usable ({broken}{more})" if left_out else f"{len(photos)}"
    raise CaptureError(
        image_dir,
        f"expected at least 2 usable photos, got {found}",
        "Take 20 or more overlapping photos from different places around the subject.",
    )


def _failure(
    photos: list[Photo], unregistered: tuple[Unregistered, ...], attempts: tuple[Attempt, ...], settings: PoseSettings
) -> tuple[str, str]:
    """Problem and remedy of a run without a model."""
    causes = "; ".join(f"{photo.name}: {photo.cause}" for photo in unregistered[:4])
    more = f"; and {len(unregistered) - 4} more" if len(unregistered) > 4 else ""
    tried = ", ".join(f"{attempt.label} ({attempt.problem or 'too few photos'})" for attempt in attempts)
    problem = f"no two of the {len(photos)} photos fit together. Tried {tried}. {causes}{more}"
    remedy = (
        "Photos must show the same, textured, still scene from different places with at least half of each picture in "
        "common with the next; turning on the spot is not enough."
    )
    if not settings.retry:
        remedy += " Retries were switched off: try with them."
    elif settings.quality != "best":
        remedy += " --quality best finds more in small detail."
    return problem, remedy


def _model_notices(
    photos: list[Photo], unregistered: tuple[Unregistered, ...], attempts: tuple[Attempt, ...]
) -> list[str]:
    notices = [f"no pose for {photo.name}: {photo.cause}" for photo in unregistered]
    best = max(attempts, key=lambda attempt: attempt.n_registered)
    if best is not attempts[0]:
        notices.append(f"the model comes from a retry: {best.label}")
    if best.n_models > 1 and unregistered:
        notices.append(f"the photos fall into {best.n_models} groups without enough overlap; the largest is kept")
    if len(unregistered) > (1 - ENOUGH) * len(photos):
        notices.append(
            f"only {len(photos) - len(unregistered)} of {len(photos)} photos have a pose: "
            "add photos that overlap with these and those without"
        )
    return notices


def _work_name(i: int, name: str) -> str:
    return f"{i:05d}{Path(name).suffix.lower()}"


def _free_name(name: str, taken: set[str]) -> str:
    candidate = Path(name).with_suffix(".jpg").as_posix()
    candidate = candidate if candidate not in taken else f"{name}.jpg"
    taken.add(candidate)
    return candidate


def _hash(photos: list[Photo]) -> str:
    digest = hashlib.sha256()
    for photo in photos:
        digest.update(f"{photo.name}\0{photo.sha256}\n".encode())
    return digest.hexdigest()


def _silent(step: str, done: int, total: int) -> None:
    return None
