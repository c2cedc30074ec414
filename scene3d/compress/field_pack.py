"""Round a radiance field as coarsely as a goal allows, judged by renders against those of the field as it is.

With codebooks, planes are pruned and coded first (see field_codes), and what is left to move is tuned in the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from scene3d.compress.field_codes import code_field, tune
from scene3d.compress.field_order import order_ranks
from scene3d.compress.goal import Goal
from scene3d.core.cameras import Cameras
from scene3d.core.fields import Field
from scene3d.core.scene import Scene
from scene3d.io.field_codes import CODED_KINDS, decode_codes, encode_codes
from scene3d.io.field_heads import Head
from scene3d.io.field_steps import Steps, decode_steps, encode_steps
from scene3d.io.s3d_container import Container, container_bytes
from scene3d.render import paths, surround
from scene3d.render.scene_points import scene_points
from scene3d.render.scene_view import render_scene
from scene3d.render.types import RasterSettings

# Relative coarseness of density and colour, near the best for the chair of NeRF-synthetic: of planes, density half as
# coarse loses 0.2 dB at 525,000 bytes; of leaves, density twice as coarse costs a tenth more bytes.
COARSENESS = Steps(density=0.08, color=0.12)
PLANE_COARSENESS = Steps(density=0.16, color=0.12)
N_VIEWS, SIDE = 6, 320
# Views whose rendering weights say what is seen, and which tuning looks at.
N_WEIGHED = 24
TUNED_COARSER = (1.6, 1.25, 1.0)
SEARCH_STEPS, SIZE_STEPS = 6, 9
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
        drop_db: By how much the mean PSNR against photos falls; None without photos.
        remark: Where the goal was out of reach; empty where it was met.
    """

    container: Container
    size_bytes: int
    fidelity_db: float
    steps: Steps
    drop_db: float | None = None
    remark: str = ""


def pack_field(
    scene: Scene,
    goal: Goal,
    cameras: Cameras | None = None,
    has_codes: bool = False,
    psnr_of: Callable[[Scene], float] | None = None,
) -> PackedField:
    """Find the coarsest steps that meet the goal.

    Args:
        scene: That holds a field.
        goal: A drop that is allowed, or a size.
        cameras: Views that matter; None makes some up around the scene.
        has_codes: Use codebooks; the field must be of the kind vm or rbf.
        psnr_of: Mean PSNR of a scene against held-out photos; None where there are none: a drop is then one that the
            fidelity to the field's own renders makes likely.

    Raises:
        ValueError: codebooks were asked of another kind of field.
    """
    if has_codes and scene.kind not in CODED_KINDS:
        kinds = " and ".join(CODED_KINDS)
        raise ValueError(f"method: codebooks are for {kinds} fields, this is {scene.size_text()}. Use --method context")
    around = _around(scene) if cameras is None else cameras
    views = _small(_some(around, N_VIEWS))
    weighed = _small(_some(around, N_WEIGHED))
    psnr = None if psnr_of is None else psnr_of(scene)
    ordered = order_ranks(scene.field().detach().to("cpu", torch.float32), weighed)
    own = Scene(ordered.field, scene.info)
    coded = weighed if has_codes else None
    judge = _Judge(own, ordered.heads, views, _images(scene, views), coded, psnr, psnr_of)
    found = _search(judge, goal)
    if not has_codes or goal.tune_steps == 0 or found.remark:
        return found
    return _tuned(judge, goal, found)


def coarseness_of(kind: str) -> Steps:
    """Where a search for steps begins; only multiples of it are tried."""
    return PLANE_COARSENESS if kind in CODED_KINDS else COARSENESS


def _search(judge: _Judge, goal: Goal) -> PackedField:
    if goal.target_bytes is not None:
        return _search_size(judge, goal.target_bytes)
    low, high = math.log2(FINEST), math.log2(COARSEST)
    best = judge.packed(FINEST)
    if not _meets(best, goal):
        return _with_remark(best)
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        found = judge.packed(2.0**middle)
        if _meets(found, goal):
            best, low = found, middle
        else:
            high = middle
    return best


def _search_size(judge: _Judge, target_bytes: int) -> PackedField:
    """The finest steps that stay below a size; only the last ones are looked at."""
    low, high = math.log2(FINEST), math.log2(COARSEST)
    if judge.size_bytes(COARSEST) > target_bytes:
        return _with_remark(judge.packed(COARSEST))
    for _ in range(SIZE_STEPS):
        middle = (low + high) / 2
        if judge.size_bytes(2.0**middle) <= target_bytes:
            high = middle
        else:
            low = middle
    return judge.packed(2.0**high)


def _meets(packed: PackedField, goal: Goal) -> bool:
    if goal.target_bytes is not None:
        return packed.size_bytes <= goal.target_bytes
    if packed.drop_db is not None:
        return packed.drop_db <= goal.max_drop_db
    return packed.fidelity_db >= goal.fidelity_db


def _with_remark(packed: PackedField) -> PackedField:
    words = "the goal is out of reach for a field of this size: fit one with fewer --field.last-voxels or ranks"
    return replace(packed, remark=words)


def _tuned(judge: _Judge, goal: Goal, found: PackedField) -> PackedField:
    """Tuning makes room for coarser steps: the coarsest tried that meet the goal once tuned."""
    if goal.target_bytes is not None:
        tuned = judge.tuned(found.steps, goal.tune_steps)
        return tuned if tuned.fidelity_db > found.fidelity_db and _meets(tuned, goal) else found
    for coarser in TUNED_COARSER:
        steps = Steps(coarser * found.steps.density, coarser * found.steps.color)
        tuned = judge.tuned(steps, goal.tune_steps)
        if _meets(tuned, goal):
            return tuned
    return found


@dataclass(frozen=True)
class _Judge:
    scene: Scene  # Its ranks in order.
    heads: tuple[Head, ...]
    views: Cameras
    truth: list[Tensor]
    weighed: Cameras | None  # Views whose rendering weights count; None = no codebooks.
    psnr: float | None  # Of the field as it is.
    psnr_of: Callable[[Scene], float] | None

    def packed(self, scale: float) -> PackedField:
        """With steps of this scale, looked at."""
        container, steps = self._container(scale)
        decode = decode_steps if self.weighed is None else decode_codes
        return self._judged(container, decode(container, Path()), steps)

    def size_bytes(self, scale: float) -> int:
        return len(container_bytes(self._container(scale)[0]))

    def _container(self, scale: float) -> tuple[Container, Steps]:
        base = coarseness_of(self.scene.kind)
        steps = Steps(scale * base.density, scale * base.color)
        if self.weighed is None:
            return encode_steps(self.scene, steps, self.heads), steps
        coded = code_field(self.scene.field(), self.weighed, steps)
        return encode_codes(Scene(coded.field, self.scene.info), coded.planes, steps, self.heads), steps

    def tuned(self, steps: Steps, n_steps: int) -> PackedField:
        assert self.weighed is not None
        coded = code_field(self.scene.field(), self.weighed, steps)
        rounded = decode_codes(encode_codes(Scene(coded.field), coded.planes, steps), Path())
        coded = tune(coded, rounded, self.scene.field(), self.weighed, n_steps)
        container = encode_codes(Scene(coded.field, self.scene.info), coded.planes, steps, self.heads)
        return self._judged(container, decode_codes(container, Path()), steps)

    def _judged(self, container: Container, field: Field, steps: Steps) -> PackedField:
        back = Scene(field, self.scene.info)
        errors = [(a - b).square().mean() for a, b in zip(_images(back, self.views), self.truth, strict=True)]
        error = float(torch.stack(errors).double().mean())
        fidelity = -10 * math.log10(error) if error > 0 else math.inf
        drop = None if self.psnr is None or self.psnr_of is None else self.psnr - self.psnr_of(back)
        return PackedField(container, len(container_bytes(container)), fidelity, steps, drop)


def _images(scene: Scene, views: Cameras) -> list[Tensor]:
    settings = RasterSettings(background=WHITE)
    images = [render_scene(scene, views.select([i]), settings).rgb[0].clamp(0, 1) for i in range(len(views))]
    return [image.cpu() for image in images]


def _some(cameras: Cameras, n: int) -> Cameras:
    picked = torch.linspace(0, len(cameras) - 1, min(n, len(cameras))).long().tolist()
    return cameras.select(picked)


def _around(scene: Scene) -> Cameras:
    around = surround.from_points(scene_points(scene), scene.info.up)
    return paths.orbit(around, paths.Shot(SIDE, SIDE, N_WEIGHED))


def _small(cameras: Cameras) -> Cameras:
    shrink = (SIDE / cameras.sizes.amax(dim=1, keepdim=True).double()).clamp_max(1.0)
    return cameras.resized((cameras.sizes * shrink).round().long().clamp_min(1))
