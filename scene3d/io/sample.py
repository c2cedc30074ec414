"""The bundled sample capture: beside the package in a clone, inside it in an installation."""

from __future__ import annotations

from pathlib import Path

from scene3d.core.errors import CaptureError

PACKAGE = Path(__file__).resolve().parents[1]
PLACES = (PACKAGE / "sample", PACKAGE.parent / "data" / "sample")


def sample_capture() -> Path:
    """Folder of the sample capture.

    Raises:
        CaptureError: this installation came without it.
    """
    for place in PLACES:
        if (place / "transforms.json").is_file():
            return place
    raise CaptureError(
        "sample capture",
        f"not part of this installation (looked in {' and '.join(map(str, PLACES))})",
        "Install from the source tree (pip install .), or name a capture of your own",
    )
