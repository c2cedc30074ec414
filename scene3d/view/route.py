"""A camera path in the making: views that were set by hand, and the smooth flight through them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from scene3d.core.cameras import Cameras
from scene3d.render.paths import Shot, through
from scene3d.view.look import Eye

MAX_KEYS = 500


@dataclass(frozen=True)
class Route:
    """Views in the order in which they are passed.

    Attributes:
        keys: What was set, at most MAX_KEYS.
        seconds: Length of the flight.
        fps: Frames a second.
        is_closed: End where it begins.
    """

    keys: tuple[Eye, ...] = ()
    seconds: float = 8.0
    fps: float = 30.0
    is_closed: bool = False

    def views(self, width: int, height: int) -> Cameras:
        """Every frame of the flight.

        Raises:
            ValueError: no view is set.
        """
        if not self.keys:
            raise ValueError("camera path: expected at least one view, got none. Move to a place and add it")
        cameras = [eye.camera(width, height) for eye in self.keys]
        keys = Cameras(
            torch.cat([camera.viewmats for camera in cameras]),
            torch.cat([camera.Ks for camera in cameras]),
            torch.cat([camera.sizes for camera in cameras]),
        )
        shot = Shot(width, height, max(1, round(self.seconds * self.fps)))
        return through(keys, shot, max_keys=MAX_KEYS, is_closed=self.is_closed, keep_order=True)

    def eyes(self) -> list[Eye]:
        """The same frames as a viewer takes them, whatever the size of its window."""
        flight = self.views(100, 100)
        fov_deg = math.degrees(2 * math.atan(50 / float(flight.Ks[0, 1, 1])))
        return [Eye(viewmat, fov_deg) for viewmat in flight.viewmats]
