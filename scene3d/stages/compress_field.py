"""The part of `scene3d compress` that makes radiance fields small."""

from __future__ import annotations

import time
from pathlib import Path

from scene3d.compress.field_pack import pack_field
from scene3d.compress.goal import Goal
from scene3d.core.cameras import Cameras
from scene3d.core.scene import Scene
from scene3d.io.registry import write_scene
from scene3d.io.s3d_container import write_container

METHODS = ("context", "codebook")


def run(scene: Scene, source: Path, out: Path, goal: Goal, views: Cameras | None, method: str) -> None:
    """Compress, write, and print what each chunk takes and what was lost."""
    began = time.perf_counter()
    before = source.stat().st_size
    if goal.is_lossless:
        write_scene(scene, out)
        print(f"{before:,} -> {out.stat().st_size:,} bytes, every bit kept -> {out}")
        return
    if method not in METHODS:
        raise ValueError(f"method: fields take {' or '.join(METHODS)}, got {method!r}")
    packed = pack_field(scene, goal, views, method == "codebook")
    write_container(packed.container, out)
    for name, data in packed.container.chunks.items():
        print(f"{name:16}{len(data):12,}")
    where = "views made up around the scene: give --cameras or --capture for real ones"
    where = where if views is None else f"{len(views)} views given, some of them, at up to 320 pixels"
    print(f"{packed.fidelity_db:.1f} dB against renders of the field as it was ({where})")
    if goal.target_bytes is None:
        print(f"{goal.fidelity_db:.1f} dB keep a scene of {goal.scene_psnr:.1f} dB within {goal.max_drop_db:g} dB")
    if packed.remark:
        print(packed.remark)
    seconds = time.perf_counter() - began
    print(f"{before:,} -> {packed.size_bytes:,} bytes ({before / packed.size_bytes:.1f}x), {seconds:.1f} s -> {out}")
