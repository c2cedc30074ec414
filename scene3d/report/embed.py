"""Pictures and videos as data URIs within a budget of bytes, so that a page stays small and needs no other file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from scene3d.core.errors import FormatError
from scene3d.report.run_folder import RunFolder

KINDS = ("truth", "render", "error")
# Longer side in pixels and JPEG quality, best first.
LADDER = ((960, 88), (800, 85), (640, 82), (520, 80), (400, 76), (320, 70), (240, 62))
MAX_VIEWS = 24
VIDEO_TYPES = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif"}


@dataclass(frozen=True)
class EmbeddedVideo:
    """A video in the page.

    Attributes:
        name: File name without suffix.
        uri: Data URI.
        is_image: A GIF: shown by <img>.
    """

    name: str
    uri: str
    is_image: bool


def embed_pictures(run: RunFolder, budget_bytes: int) -> dict[int, dict[str, str]]:
    """Pictures of the views to show, by index of the view and kind, as data URIs of at most budget_bytes in all.

    All views are shown if there are few; else the worst, the best and some between, by PSNR.

    Raises:
        FormatError: a picture is damaged.
    """
    files = {place: _files(run, view) for place, view in enumerate(run.views)}
    shown = [place for place in pick_views(run.views) if files[place]]
    encoded: dict[int, dict[str, bytes]] = {}
    for side, quality in LADDER:
        encoded = {place: {k: _encode(p, side, quality) for k, p in files[place].items()} for place in shown}
        if _page_bytes(encoded) <= budget_bytes:
            break
    while encoded and _page_bytes(encoded) > budget_bytes:
        # Even the smallest pictures are too many: those in the middle tell least.
        del encoded[sorted(encoded, key=lambda place: float(run.views[place].get("psnr") or 0.0))[len(encoded) // 2]]
    return {place: {k: _uri("image/jpeg", data) for k, data in kinds.items()} for place, kinds in encoded.items()}


def pick_views(views: list[dict[str, Any]]) -> list[int]:
    """Places of at most MAX_VIEWS views: a third the worst, a third the best, a third evenly between. Rising."""
    if len(views) <= MAX_VIEWS:
        return list(range(len(views)))
    order = sorted(range(len(views)), key=lambda place: float(views[place].get("psnr") or 0.0))
    third = MAX_VIEWS // 3
    between = order[third : len(order) - third]
    evenly = [between[round(i * (len(between) - 1) / (third - 1))] for i in range(third)]
    return sorted({*order[:third], *evenly, *order[len(order) - third :]})


def embed_videos(run: RunFolder, budget_bytes: int) -> list[EmbeddedVideo]:
    """Videos of the run, as many as fit into the budget, smaller ones first; by name."""
    found, left = [], budget_bytes
    for path in sorted(run.videos, key=lambda path: (path.stat().st_size, path.name)):
        size = path.stat().st_size * 4 // 3
        if size > left:
            break
        left -= size
        kind = VIDEO_TYPES[path.suffix]
        found.append(EmbeddedVideo(path.stem, _uri(kind, path.read_bytes()), kind.startswith("image/")))
    return sorted(found, key=lambda video: video.name)


def _files(run: RunFolder, view: dict[str, Any]) -> dict[str, Path]:
    found = {kind: run.picture(view, kind) for kind in KINDS}
    return {kind: path for kind, path in found.items() if path is not None}


def _encode(path: Path, side: int, quality: int) -> bytes:
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise FormatError(path, f"is no picture: {error}", remedy="Run scene3d evaluate again.") from error
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality, optimize=True)
    return stream.getvalue()


def _page_bytes(encoded: dict[int, dict[str, bytes]]) -> int:
    """Size in base64."""
    return sum(len(data) for kinds in encoded.values() for data in kinds.values()) * 4 // 3


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
