"""Edits of a scene by name, in the order given: move, crop, filter, simplify. What `scene3d convert` can do.

An edit is text, a name and its numbers: "rotate 0 90 0", "crop-sphere 0 0 0 2.5", "decimate 50%".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.core.gaussians import SH_COUNTS, Gaussians
from scene3d.core.scene import Scene
from scene3d.ops import morton
from scene3d.ops.decimate import decimate
from scene3d.ops.floaters import is_floater
from scene3d.ops.rigid import Sim3, transform_gaussians


@dataclass(frozen=True)
class EditKind:
    """An edit as the user calls it.

    Attributes:
        parameters: Names of its numbers, for messages; those in brackets may be left out.
        summary: What it does.
        apply: Scene and numbers to scene.
    """

    parameters: tuple[str, ...]
    summary: str
    apply: Callable[[Scene, list[float]], Scene]

    @property
    def n_required(self) -> int:
        return sum(not name.startswith("[") for name in self.parameters)


@dataclass(frozen=True)
class Edit:
    """An edit with its numbers."""

    name: str
    numbers: tuple[float, ...]

    def __call__(self, scene: Scene) -> Scene:
        return EDITS[self.name].apply(scene, list(self.numbers))


def parse_edit(text: str) -> Edit:
    """Read an edit; commas separate as well as blanks do.

    Raises:
        ValueError: the name is unknown, or the numbers are not those it takes.
    """
    words = text.replace(",", " ").split()
    name = words[0].lower() if words else ""
    if name not in EDITS:
        raise ValueError(f"edit {text!r}: expected one of {', '.join(EDITS)}, got {name or 'nothing'!r}")
    kind, usage = EDITS[name], f"{name} {' '.join(EDITS[name].parameters)}".strip()
    if not kind.n_required <= len(words) - 1 <= len(kind.parameters):
        raise ValueError(f"edit {text!r}: expected {usage!r}, got {len(words) - 1} numbers")
    try:
        numbers = tuple(_number(word, name == "decimate") for word in words[1:])
    except ValueError as error:
        raise ValueError(f"edit {text!r}: expected {usage!r}, {error}") from error
    return Edit(name, numbers)


def _number(word: str, may_be_share: bool) -> float:
    # A share is told from a count by its sign: -0.5 is 50%.
    is_share = word.endswith("%") and may_be_share
    try:
        value = float(word[:-1]) / -100 if is_share else float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"got {word!r}, which is no number")
    return value


def _moved(scene: Scene, world_from_scene: Sim3) -> Scene:
    up = scene.info.up
    if up is not None:
        x, y, z = (world_from_scene.rotation @ torch.tensor(up, dtype=torch.float64)).tolist()
        up = (x, y, z)
    payload = transform_gaussians(scene.splats(), world_from_scene)
    return Scene(payload, replace(scene.info, up=up))


def _translate(scene: Scene, numbers: list[float]) -> Scene:
    return _moved(scene, Sim3(torch.eye(3, dtype=torch.float64), torch.tensor(numbers, dtype=torch.float64)))


def _rotate(scene: Scene, numbers: list[float]) -> Scene:
    turn = torch.eye(3, dtype=torch.float64)
    for axis, degrees in enumerate(numbers):
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        i, j = (axis + 1) % 3, (axis + 2) % 3
        step = torch.eye(3, dtype=torch.float64)
        step[i, i], step[i, j], step[j, i], step[j, j] = c, -s, s, c
        turn = step @ turn
    return _moved(scene, Sim3(turn, torch.zeros(3, dtype=torch.float64)))


def _scale(scene: Scene, numbers: list[float]) -> Scene:
    if not numbers[0] > 0:
        raise ValueError(f"scale: expected a positive factor, got {numbers[0]:g}")
    return _moved(scene, Sim3(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), numbers[0]))


def _kept(scene: Scene, keep: Tensor) -> Scene:
    return replace(scene, payload=scene.splats().select(keep))


def _crop_box(scene: Scene, numbers: list[float]) -> Scene:
    low, high = torch.tensor(numbers[:3]), torch.tensor(numbers[3:])
    if bool((low > high).any()):
        raise ValueError(f"crop-box: expected the lower corner first, got {numbers[:3]} and {numbers[3:]}")
    means = scene.splats().means
    return _kept(scene, ((means >= low) & (means <= high)).all(dim=1))


def _crop_sphere(scene: Scene, numbers: list[float]) -> Scene:
    distances = (scene.splats().means - torch.tensor(numbers[:3])).norm(dim=1)
    return _kept(scene, distances <= numbers[3])


def _filter_nan(scene: Scene, numbers: list[float]) -> Scene:
    return _kept(scene, scene.splats().is_finite() & (scene.splats().quats != 0).any(dim=1))


def _filter_opacity(scene: Scene, numbers: list[float]) -> Scene:
    return _kept(scene, scene.splats().opacities >= numbers[0])


def _filter_floaters(scene: Scene, numbers: list[float]) -> Scene:
    factor = numbers[0] if numbers else 5.0
    return _kept(scene, ~is_floater(scene.splats(), factor))


def _decimate(scene: Scene, numbers: list[float]) -> Scene:
    wish, n = numbers[0], len(scene.splats())
    count = math.ceil(-wish * n) if wish < 0 else round(wish)
    return replace(scene, payload=decimate(scene.splats(), count))


def _sh_degree(scene: Scene, numbers: list[float]) -> Scene:
    gaussians, degree = scene.splats(), int(numbers[0])
    if numbers[0] not in (0, 1, 2, 3):
        raise ValueError(f"sh-degree: expected 0, 1, 2 or 3, got {numbers[0]:g}")
    shN = gaussians.shN[:, : SH_COUNTS[min(degree, gaussians.sh_degree)] - 1].contiguous()
    return replace(scene, payload=Gaussians(**{**gaussians.params(), "shN": shN}))


def _sort(scene: Scene, numbers: list[float]) -> Scene:
    return _kept(scene, morton.order(scene.splats().means))


EDITS = {
    "translate": EditKind(("X", "Y", "Z"), "move, scene units", _translate),
    "rotate": EditKind(("X", "Y", "Z"), "turn about the world's x, then y, then z axis, degrees", _rotate),
    "scale": EditKind(("FACTOR",), "enlarge about the origin", _scale),
    "crop-box": EditKind(("X", "Y", "Z", "X2", "Y2", "Z2"), "keep centres between two corners", _crop_box),
    "crop-sphere": EditKind(("X", "Y", "Z", "RADIUS"), "keep centres within a sphere", _crop_sphere),
    "filter-nan": EditKind((), "drop what holds NaN or infinity or has no rotation", _filter_nan),
    "filter-opacity": EditKind(("MIN",), "drop what is fainter, 0 to 1", _filter_opacity),
    "filter-floaters": EditKind(
        ("[FACTOR]",), "drop what is far from all others; less drops more (5)", _filter_floaters
    ),
    "decimate": EditKind(("COUNT_OR_%",), "merge neighbours until so many are left", _decimate),
    "sh-degree": EditKind(("DEGREE",), "drop spherical harmonics above this degree", _sh_degree),
    "sort": EditKind((), "order along the Z-curve", _sort),
}
