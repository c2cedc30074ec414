"""Round a radiance field as coarsely as a goal allows, judged by renders against those of the field as it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from scene3d.compress.goal import Goal
from scene3d.core.cameras import Cameras
from scene3d.core.scene import Scene
from scene3d.io.field_steps import Steps, decode_steps, encode_steps
from scene3d.io.s3d_container import Container, container_bytes
from scene3d.render import paths, surround
from scene3d.render.scene_points import scene_points
from scene3d.render.scene_view import render_scene
from scene3d.render.types import RasterSettings

# Relative coarseness of density and colour: near the best for the chair of NeRF-synthetic, where finer density and
# coarser colour gave the same quality at more bytes, and the other way round less quality.
COARSENESS = Steps(density=0.08, color=0.12)
N_VIEWS, SIDE = 6, 320
SEARCH_STEPS = 6
FINEST, COARSEST = 2.0**-5, 2.0**4
WHITE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class PackedField:
    """What came of it.

    Attributes:
        container: To write.
        size_bytes: Of the file.
        fidelity_db: PSNR against the renders of the field as it was.
        steps: How coarsely it is rounded.
        remark: Where the goal was out of reach; empty where it was met.
    """

    container: Container
    size_bytes: int
    fidelity_db: float
    steps: Steps
    remark: str = ""


def pack_field(scene: Scene, goal: Goal, cameras: Cameras | None = None) -> PackedField:
    """Find the coarsest steps that meet the goal.

    Args:
        scene: That holds a field.
        goal: A drop that is allowed, or a size.
        cameras: Views that matter; None makes some up around the scene.
    """
    views = _small(_around(scene) if cameras is None else _some(cameras))
    truth = _images(scene, views)
    low, high = math.log2(FINEST), math.log2(COARSEST)
    # With a size to stay below, begin at the coarse end and refine; with a drop, at the fine end and coarsen.
    has_size = goal.target_bytes is not None
    best = _packed(scene, COARSEST if has_size else FINEST, views, truth)
    if not _meets(best, goal):
        return _with_remark(best)
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        found = _packed(scene, 2.0**middle, views, truth)
        is_met = _meets(found, goal)
        best = found if is_met else best
        if is_met == has_size:
            high = middle
        else:
            low = middle
    return best


def _meets(packed: PackedField, goal: Goal) -> bool:
    if goal.target_bytes is not None:
        return packed.size_bytes <= goal.target_bytes
    return packed.fidelity_db >= goal.fidelity_db


def _with_remark(packed: PackedField) -> PackedField:
    words = "the goal is out of reach for a field of this size: fit one with fewer --field.last-voxels or ranks"
    return replace(packed, remark=words)


def _packed(scene: Scene, scale: float, views: Cameras, truth: list[Tensor]) -> PackedField:
    steps = Steps(scale * COARSENESS.density, scale * COARSENESS.color)
    container = encode_steps(scene, steps)
    back = Scene(decode_steps(container, Path()), scene.info)
    errors = [(a - b).square().mean() for a, b in zip(_images(back, views), truth, strict=True)]
    error = float(torch.stack(errors).double().mean())
    fidelity = -10 * math.log10(error) if error > 0 else math.inf
    return PackedField(container, len(container_bytes(container)), fidelity, steps)


def _images(scene: Scene, views: Cameras) -> list[Tensor]:
    settings = RasterSettings(background=WHITE)
    images = [render_scene(scene, views.select([i]), settings).rgb[0].clamp(0, 1) for i in range(len(views))]
    return [image.cpu() for image in images]


def _some(cameras: Cameras) -> Cameras:
    picked = torch.linspace(0, len(cameras) - 1, min(N_VIEWS, len(cameras))).long().tolist()
    return cameras.select(picked)


def _around(scene: Scene) -> Cameras:
    around = surround.from_points(scene_points(scene), scene.info.up)
    return paths.orbit(around, paths.Shot(SIDE, SIDE, N_VIEWS))


def _small(cameras: Cameras) -> Cameras:
    shrink = (SIDE / cameras.sizes.amax(dim=1, keepdim=True).double()).clamp_max(1.0)
    return cameras.resized((cameras.sizes * shrink).round().long().clamp_min(1))
