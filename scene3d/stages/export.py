"""Write a scene in another format, chosen by suffix. What that format has no place for is said on stderr.

A name that ends in .html makes a web page: one file with viewer and scene that opens from disk, without a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from scene3d.core.scene import Scene
from scene3d.io.atomic import write_text
from scene3d.io.camera_path import views_of
from scene3d.io.capabilities import kept_degree
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.registry import check_scene_suffix, read_scene, scene_size, write_scene
from scene3d.page.build import PageSettings, build_page
from scene3d.report.facts import size_text


@dataclass(frozen=True)
class Config:
    """What to write where."""

    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE")]
    """A scene file of any format that can be read."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """File to write: .ply keeps every bit, .sog is small, .compressed.ply and .splat are read by most viewers;
    FOLDER/meta.json writes loose SOG files; .html is a web page that holds viewer and scene."""
    capture: Path | None = None
    """Of a page: folder with the photos of the scene; the page opens where one of them was taken. Default: by the
    cameras.json that a fit left with the scene, else in front of it."""
    embed: Literal["sog", "compressed.ply", "ply"] = "sog"
    """Of a page: format of the scene inside. sog is smallest, ply exact."""
    title: str | None = None
    """Of a page: shown in the browser's tab. Default: the name of the scene file."""
    background: Literal["auto", "black", "white"] = "auto"
    """Of a page: behind the scene. auto = white where the photos have alpha, else black."""
    up: tuple[float, float, float] | None = None
    """Of a page: world direction that is up. Default: from the scene or the photos, else -y."""


def run(config: Config) -> None:
    """Convert and print what was written."""
    is_page = config.out.suffix.lower() == ".html"
    if not is_page:
        check_scene_suffix(config.out)
    scene = read_scene(config.scene)
    if is_page:
        _write_page(scene, config)
    else:
        write_scene(scene, config.out)
    size, n = scene_size(config.out), scene.n_gaussians
    each = f", {size / n:.1f} bytes each" if n and not is_page else ""
    degree = scene.splats().sh_degree if is_page else kept_degree(scene, config.out)
    print(f"{n:,} Gaussians, spherical harmonics of degree {degree} -> {config.out}")
    print(f"{size_text(scene_size(config.scene))} -> {size_text(size)}{each}")


def _write_page(scene: Scene, config: Config) -> None:
    capture = None if config.capture is None else read_capture(config.capture, CaptureOptions())
    is_white = config.background == "white" or (
        config.background == "auto" and capture is not None and capture.has_alpha
    )
    settings = PageSettings(
        title=config.title if config.title is not None else config.scene.stem,
        suffix=f".{config.embed}",
        background=(1.0, 1.0, 1.0) if is_white else (0.0, 0.0, 0.0),
        up=config.up,
    )
    write_text(config.out, build_page(scene, views_of(config.scene, capture), settings))
