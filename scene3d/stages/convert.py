"""Edit a scene and write it in any format: move, crop, filter, simplify, in the order given.

Each --do is one edit, a name and its numbers in quotes:
  translate X Y Z | rotate X Y Z (degrees about x, then y, then z) | scale FACTOR
  crop-box X Y Z X2 Y2 Z2 | crop-sphere X Y Z RADIUS
  filter-nan | filter-opacity MIN | filter-floaters [FACTOR] | decimate COUNT_OR_% | sh-degree DEGREE | sort
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from scene3d.io.registry import check_scene_suffix, read_scene, scene_size, write_scene
from scene3d.ops.edits import parse_edit
from scene3d.report.facts import size_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What to edit, how, and where to write it."""

    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE")]
    """A scene file of any format that can be read."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """File to write; its suffix chooses the format."""
    do: tyro.conf.UseAppendAction[tuple[Annotated[str, tyro.conf.arg(metavar='"EDIT"')], ...]] = ()
    """An edit; give it several times, for instance: --do "rotate 180 0 0" --do "crop-sphere 0 0 0 3"."""


def run(config: Config) -> None:
    """Apply the edits one after the other and print what each did."""
    check_scene_suffix(config.out)
    edits = [parse_edit(text) for text in config.do]
    scene = read_scene(config.scene)
    lines = []
    for text, edit in zip(config.do, edits, strict=True):
        before, scene = scene.n_gaussians, edit(scene)
        after = scene.n_gaussians
        lines.append(f"  {text:<32} {f'{before:,} -> {after:,} Gaussians' if after != before else 'done'}")
    if scene.n_gaussians == 0:
        log.warning("%s: no Gaussians are left", config.out)
    write_scene(scene, config.out)
    print("\n".join([*lines, f"{scene.n_gaussians:,} Gaussians, {size_text(scene_size(config.out))} -> {config.out}"]))
