"""The view with which a page or a viewer opens: where a good photo was taken, or in front of a bare scene."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.scene import Scene
from scene3d.render import surround
from scene3d.render.paths import Shot, orbit
from scene3d.render.scene_points import scene_points
from scene3d.render.surround import Surround

# Angles that browsers show without trouble.
FOV_RANGE_DEG = (10.0, 120.0)


@dataclass(frozen=True)
class FirstView:
    """A camera without roll.

    Attributes:
        position: World. [3] float64
        target: Point to turn around, in the middle of the picture, world. [3] float64
        up: Unit vector, upwards in the picture. [3] float64
        fov_deg: Across the longer side of the window.
    """

    position: Tensor
    target: Tensor
    up: Tensor
    fov_deg: float

    def square(self, side: int) -> Cameras:
        """One view of side x side pixels; a window of any shape shows its middle."""
        focal = side / 2 / math.tan(math.radians(self.fov_deg) / 2)
        K = torch.tensor([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1]])
        viewmat = look_at(self.position, self.target, self.up).float()
        return Cameras(viewmat[None], K[None], torch.tensor([[side, side]]))


def choose(scene: Scene, views: Cameras | None, up: tuple[float, float, float] | None = None) -> FirstView:
    """Choose the view.

    Args:
        scene: What is to be seen.
        views: Where its photos were taken; one of these is chosen that looks at the focus from a usual distance, held
            level. None stands in front of the scene.
        up: World direction that is up; None follows the scene, the views, or is -y.
    """
    up = up or scene.info.up
    if views is None or len(views) == 0:
        around = surround.from_points(scene_points(scene), up)
        bare = orbit(around, Shot(16, 9, 1))
        focal = float(bare.Ks[0, 0, 0])
        return _view(bare, 0, around, math.degrees(2 * math.atan(8 / focal)))
    views = views.to(dtype=torch.float64)
    around = surround.from_cameras(views, up)
    best = int(_faults(views, around).argmin())
    side = views.sizes[best].double().max()
    focal = float((views.Ks[best, 0, 0] * views.Ks[best, 1, 1]).sqrt())
    return _view(views, best, around, math.degrees(2 * math.atan(float(side) / 2 / focal)))


def _faults(views: Cameras, around: Surround) -> Tensor:
    """How much is wrong with each view, in radians or as small numbers: off the focus, near or far, rolled. [C]"""
    offsets = around.focus - views.centers()
    distances = offsets.norm(dim=1).clamp_min(1e-12)
    forwards, rights = views.viewmats[:, 2, :3], views.viewmats[:, 0, :3]
    off_focus = torch.acos(((offsets / distances[:, None]) * forwards).sum(dim=1).clamp(-1, 1))
    unusual = (distances / distances.median()).log().abs()
    rolled = torch.asin((rights @ around.up).abs().clamp(max=1.0))
    return off_focus + 0.5 * unusual + rolled


def _view(views: Cameras, i: int, around: Surround, fov_deg: float) -> FirstView:
    position, forward = views.centers()[i].double(), views.viewmats[i, 2, :3].double()
    offset = around.focus - position
    # As deep as the focus, but straight ahead: the picture is that of the photo.
    depth = max(float(offset @ forward), 0.1 * float(offset.norm()), 1e-6)
    low, high = FOV_RANGE_DEG
    return FirstView(position, position + depth * forward, around.up, min(max(fov_deg, low), high))
