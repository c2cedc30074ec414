"""Build the report of a run: one HTML page with numbers, curves and pictures that opens from disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from scene3d.io.atomic import write_text
from scene3d.report.html import PAGE_BYTES, build_page
from scene3d.report.run_folder import read_run


@dataclass(frozen=True)
class Config:
    """Which run, and where to."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of the run: what scene3d run was given as --out."""
    out: Path | None = None
    """The page. Default: report.html in the folder of the run."""
    max_mb: float = PAGE_BYTES / 1e6
    """Largest size of the page; pictures are made smaller to keep to it."""


def run(config: Config) -> None:
    """Build the page and print where it is."""
    page = build_page(read_run(config.run), round(config.max_mb * 1e6))
    out = config.out or config.run / "report.html"
    write_text(out, page)
    print(f"report of {len(page.encode()) / 1e6:.1f} MB -> {out}")
