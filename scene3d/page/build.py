"""From a scene to its page: encode the scene, render the poster, compose."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from scene3d.core.cameras import Cameras
from scene3d.core.scene import Scene
from scene3d.io.registry import write_scene
from scene3d.page.compose import EMBEDDED_SUFFIXES, PageContent, compose
from scene3d.render.first_view import choose
from scene3d.render.frames import FrameSettings, frames

POSTER_SIDE = 1024
POSTER_QUALITY = 82


@dataclass(frozen=True)
class PageSettings:
    """How a page is made.

    Attributes:
        title: In the browser's tab.
        suffix: Format of the scene inside: .sog is smallest, .compressed.ply is quicker to write, .ply exact.
        background: sRGB behind the scene.
        up: World direction that is up; None follows the scene, else the capture, else -y.
        backend: Rasterizer of the poster.
    """

    title: str
    suffix: str = EMBEDDED_SUFFIXES[0]
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    up: tuple[float, float, float] | None = None
    backend: str = "auto"


def build_page(scene: Scene, views: Cameras | None, settings: PageSettings) -> str:
    """Build the page.

    Args:
        scene: What to show.
        views: Where its photos were taken, for the first view; None stands in front of the scene.
        settings: How.

    Raises:
        ValueError: the viewer cannot read the format.
    """
    if settings.suffix not in EMBEDDED_SUFFIXES:
        raise ValueError(f"suffix: expected one of {', '.join(EMBEDDED_SUFFIXES)}, got {settings.suffix!r}")
    view = choose(scene, views, settings.up)
    shown = FrameSettings(background=settings.background, backend=settings.backend)
    return compose(
        PageContent(
            title=settings.title,
            scene=_encode(scene, settings.suffix),
            suffix=settings.suffix,
            poster=_jpeg(frames(scene, view.square(POSTER_SIDE), shown)),
            view=view,
            antialiased=scene.info.antialiased,
            background=settings.background,
        )
    )


def _encode(scene: Scene, suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"scene{suffix}"
        write_scene(scene, path)
        return path.read_bytes()


def _jpeg(pictures: Iterable[np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(next(iter(pictures))).save(buffer, "JPEG", quality=POSTER_QUALITY, progressive=True)
    return buffer.getvalue()
