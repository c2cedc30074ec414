"""The part of `scene3d compress` that makes radiance fields small."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from scene3d.compress.field_pack import pack_field
from scene3d.compress.goal import Goal
from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture
from scene3d.core.scene import Scene
from scene3d.io.registry import write_scene
from scene3d.io.s3d_container import write_container
from scene3d.recon.validate import validate_scene

METHODS = ("context", "codebook")
# More held-out photos change no decision, and each is rendered for every step tried.
MAX_PHOTOS = 24


@dataclass(frozen=True)
class Sight:
    """From where a field is looked at.

    Attributes:
        views: That matter; None where they are to be made up.
        psnr_of: Mean PSNR of a scene against held-out photos; None where there are none.
    """

    views: Cameras | None = None
    psnr_of: Callable[[Scene], float] | None = None


def sight_of(capture: Capture) -> Sight:
    """The training views, and the held-out photos."""
    views = capture.cameras.select(capture.train or range(len(capture)))
    n = min(len(capture.test), MAX_PHOTOS)
    if n == 0:
        return Sight(views)
    held_out = replace(capture, test=tuple(capture.test[i * len(capture.test) // n] for i in range(n)))
    background = (1.0, 1.0, 1.0) if capture.has_alpha else (0.0, 0.0, 0.0)

    def psnr_of(scene: Scene) -> float:
        score = validate_scene(scene, held_out, background, 0, 0.0)
        assert score is not None
        return score.psnr

    return Sight(views, psnr_of)


def run(scene: Scene, source: Path, out: Path, goal: Goal, sight: Sight, method: str) -> None:
    """Compress, write, and print what each chunk takes and what was lost."""
    began = time.perf_counter()
    before = source.stat().st_size
    if goal.is_lossless:
        write_scene(scene, out)
        print(f"{before:,} -> {out.stat().st_size:,} bytes, every bit kept -> {out}")
        return
    if method not in METHODS:
        raise ValueError(f"method: fields take {' or '.join(METHODS)}, got {method!r}")
    packed = pack_field(scene, goal, sight.views, method == "codebook", sight.psnr_of)
    write_container(packed.container, out)
    for name, data in packed.container.chunks.items():
        print(f"{name:16}{len(data):12,}")
    where = "views made up around the scene: give --cameras or --capture for real ones"
    if sight.views is not None:
        where = f"{len(sight.views)} views given, some of them, at up to 320 pixels"
    print(f"{packed.fidelity_db:.1f} dB against renders of the field as it was ({where})")
    if packed.drop_db is not None:
        change = "less" if packed.drop_db >= 0 else "more"
        print(f"{abs(packed.drop_db):.3f} dB {change} against held-out photos")
    elif goal.target_bytes is None:
        print(f"{goal.fidelity_db:.1f} dB keep a scene of {goal.scene_psnr:.1f} dB within {goal.max_drop_db:g} dB")
    if packed.remark:
        print(packed.remark)
    seconds = time.perf_counter() - began
    print(f"{before:,} -> {packed.size_bytes:,} bytes ({before / packed.size_bytes:.1f}x), {seconds:.1f} s -> {out}")
