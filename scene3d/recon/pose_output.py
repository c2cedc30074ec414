"""Where poses go: an output folder that never loses what it did not write and changes only when all is ready."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from types import TracebackType

from scene3d.core.errors import OutputError, Scene3dError
from scene3d.io.atomic import make_folder, output_error, write_json
from scene3d.recon.pose_report import PoseReport

REPORT_NAME = "pose_report.json"
WORK_NAME = ".pose"


def check_output(image_dir: Path, out_dir: Path, has_copies: bool) -> None:
    """Refuse to overwrite what another program, or the user, put into `out_dir`."""
    if out_dir.exists() and not out_dir.is_dir():
        raise OutputError(out_dir, "expected a folder or a new name, got a file", "Choose another output folder.")
    images, model, report = out_dir / "images", out_dir / "sparse" / "0", out_dir / REPORT_NAME
    if model.exists() and not report.exists():
        raise OutputError(model, "holds a model that scene3d did not write", "Choose another output folder.")
    if images.is_symlink() or not images.exists():
        return
    if _is_same(images, image_dir):
        if has_copies:
            raise OutputError(
                images,
                "holds photos that need upright copies, which would replace them",
                "Choose another output folder.",
            )
    elif not _holds_copies(report):
        raise OutputError(images, "holds other photos, which would be replaced", "Choose another output folder.")


def make_work_folder(out_dir: Path) -> Path:
    """Make an empty work folder inside of `out_dir`, so that results are renamed, not copied, into place."""
    make_folder(out_dir)
    work = out_dir / WORK_NAME
    try:
        if work.exists():
            shutil.rmtree(work)
        work.mkdir()
    except OSError as error:
        raise output_error(work, error) from error
    return work


def publish(image_dir: Path, out_dir: Path, work: Path, report: PoseReport) -> None:
    """Move the results to their places; the model last but for the report, so that it never lacks its images."""
    images = out_dir / "images"
    if report.photo_copies:
        _replace_folder(work / "images", images)
    elif not _is_same(images, image_dir):
        link = work / "link"
        try:
            os.symlink(image_dir.resolve(), link, target_is_directory=True)
        except OSError:
            shutil.copytree(image_dir, link)
            report = dataclasses.replace(
                report,
                photo_copies=True,
                notices=(*report.notices, "links are not possible here; images/ holds copies"),
            )
        _replace_folder(link, images)
    make_folder(out_dir / "sparse")
    _replace_folder(work / "model", out_dir / "sparse" / "0")
    write_json(out_dir / REPORT_NAME, report.to_json())


def clean_up(out_dir: Path, work: Path, keep_database: bool, is_new: bool) -> None:
    """Remove the work folder but for databases to keep, and `out_dir` where it is new and still empty."""
    if keep_database and work.exists():
        for path in work.iterdir():
            if path.suffix == ".db":
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return
    shutil.rmtree(work, ignore_errors=True)
    if is_new and out_dir.exists() and not any(out_dir.iterdir()):
        out_dir.rmdir()


class OutputGuard:
    """Turns an OSError on the output into an OutputError that says what to do."""

    def __init__(self, out_dir: Path) -> None:
        self._out_dir = out_dir

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and not isinstance(error, Scene3dError):
            raise output_error(self._out_dir, error) from error


def _replace_folder(source: Path, target: Path) -> None:
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        old = source.with_name(f"old_{target.name}")
        os.replace(target, old)
    os.replace(source, target)


def _holds_copies(report: Path) -> bool:
    """Whether an earlier run wrote the images beside `report` itself, so that they can go."""
    try:
        data = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("photo_copies") is True


def _is_same(a: Path, b: Path) -> bool:
    return a.exists() and b.exists() and os.path.samefile(a, b)
