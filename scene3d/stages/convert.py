"""Edit a scene and write it in any format: move, crop, filter, simplify, in the order given; --to makes another kind
of scene of it, without photos: splats of a field, a field of splats, either of a mesh.

Each --do is one edit, a name and its numbers in quotes:
  translate X Y Z | rotate X Y Z (degrees about x, then y, then z) | scale FACTOR
  crop-box X Y Z X2 Y2 Z2 | crop-sphere X Y Z RADIUS
  filter-nan | filter-opacity MIN | filter-floaters [FACTOR] | decimate COUNT_OR_% | sh-degree DEGREE | sort
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from scene3d.core.errors import OutputError
from scene3d.io.registry import check_scene_suffix, read_scene, scene_size, write_scene
from scene3d.ops.edits import parse_edit
from scene3d.recon.students import StudentKind
from scene3d.report.facts import size_text
from scene3d.stages import convert_kind
from scene3d.stages.convert_kind import KindOptions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What to edit, how, and where to write it."""

    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE")]
    """A scene file of any format that can be read; with --to also a mesh: .ply, .glb, .obj, .stl."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """File to write; its suffix chooses the format."""
    do: tyro.conf.UseAppendAction[tuple[Annotated[str, tyro.conf.arg(metavar='"EDIT"')], ...]] = ()
    """An edit; give it several times, for instance: --do "rotate 180 0 0" --do "crop-sphere 0 0 0 3"."""

    to: StudentKind | None = None
    """Kind of scene to make, learned from renders of this one: splats, or a field of planes and lines (vm), of lines
    only (cp), of leaves (trivec), of planes, lines and radial bases (rbf), of a hash grid (hash) or a network (mlp)."""
    learn: KindOptions = dataclasses.field(default_factory=KindOptions)
    """Options of --to."""


def run(config: Config) -> None:
    """Apply the edits one after the other and print what each did."""
    check_scene_suffix(config.out)
    edits = [parse_edit(text) for text in config.do]
    if config.to is not None and config.to != "splats" and config.out.suffix.lower() != ".s3d":
        raise OutputError(config.out, f"a {config.to} field is held by .s3d only", "Choose a name that ends in .s3d.")
    scene = read_scene(config.scene) if config.to is None else convert_kind.read_source(config.scene)
    if scene is None and edits:
        raise ValueError("do: edits are for scenes, a mesh is taken as it is. Edit what comes of it")
    lines = []
    for text, edit in zip(config.do, edits, strict=True):
        assert scene is not None
        before, scene = scene.n_gaussians, edit(scene)
        after = scene.n_gaussians
        lines.append(f"  {text:<32} {f'{before:,} -> {after:,} Gaussians' if after != before else 'done'}")
    if config.to is not None:
        print("\n".join(lines), end="\n" if lines else "")
        convert_kind.run(config.scene, scene, config.out, config.to, config.learn)
        return
    assert scene is not None
    if "splats" in scene.capabilities and scene.n_gaussians == 0:
        log.warning("%s: no Gaussians are left", config.out)
    write_scene(scene, config.out)
    print("\n".join([*lines, f"{scene.n_gaussians:,} Gaussians, {size_text(scene_size(config.out))} -> {config.out}"]))
