"""Write a scene in another format, chosen by suffix. What that format has no place for is said on stderr."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from scene3d.io.registry import check_scene_suffix, read_scene, scene_size, write_scene
from scene3d.report.facts import size_text


@dataclass(frozen=True)
class Config:
    """What to write where."""

    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE")]
    """A scene file of any format that can be read."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """File to write: .ply keeps every bit, .sog is small, .compressed.ply and .splat are read by most viewers;
    FOLDER/meta.json writes loose SOG files."""


def run(config: Config) -> None:
    """Convert and print what was written."""
    check_scene_suffix(config.out)
    scene = read_scene(config.scene)
    write_scene(scene, config.out)
    size, n = scene_size(config.out), len(scene.payload)
    each = f", {size / n:.1f} bytes each" if n else ""
    print(f"{n:,} Gaussians, spherical harmonics of degree {scene.payload.sh_degree} -> {config.out}")
    print(f"{size_text(scene_size(config.scene))} -> {size_text(size)}{each}")
