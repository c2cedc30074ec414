"""Files that a fit leaves beside its scene: the log of its curves, measurements of test views, what it was made of."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scene3d.core.errors import OutputError
from scene3d.io.atomic import make_folder, output_error, write_json, write_text
from scene3d.recon.fit import LogLine
from scene3d.recon.validate import Validation


class RunLog:
    """log.jsonl: one JSON object per line with step, seconds (of fitting), loss, n_gaussians, scale, psnr, cc_psnr.

    Args:
        path: Of the file.
        from_step: Lines of later steps are cut off: a resumed run writes them again. 0 begins a new log.
    """

    def __init__(self, path: Path, from_step: int) -> None:
        self._path = path
        make_folder(path.parent)
        kept = [line for line in _lines(path) if 0 < line.get("step", 0) <= from_step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, line: LogLine) -> None:
        """Append a line.

        Raises:
            OutputError: the disk is full or the file is gone read-only.
        """
        values = asdict(line)
        row: dict[str, Any] = {
            "step": line.step,
            "seconds": round(line.seconds, 4),
            "loss": line.loss,
            "n_gaussians": line.n_gaussians,
        }
        self.write_row(row | {name: values[name] for name in ("scale", "psnr", "cc_psnr")})

    def write_row(self, row: dict[str, Any]) -> None:
        """Append a line of any names; NaN becomes null.

        Raises:
            OutputError: the disk is full or the file is gone read-only.
        """
        # NaN is no JSON.
        row = {name: None if value != value else value for name, value in row.items()}
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        except OSError as error:
            raise output_error(self._path, error) from error


def write_validation(folder: Path, validation: Validation) -> None:
    """Write stats/val_stepNNNNN.json below `folder`."""
    write_json(folder / "stats" / f"val_step{validation.step:05d}.json", validation.as_json())


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write config.json: settings, version and inputs of the run."""
    try:
        write_json(path, record)
    except ValueError as error:
        raise OutputError(path, f"cannot be written: {error}") from error


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # The last line of a killed run may be cut.
        if isinstance(line, dict):
            lines.append(line)
    return lines
