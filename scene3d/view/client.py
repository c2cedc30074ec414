"""One browser that looks: draws what it asks for, coarse while it moves, sharp when it rests."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from scene3d.core.errors import Scene3dError
from scene3d.ops import quaternions
from scene3d.view.draw import Stale, Stock, draw
from scene3d.view.look import Eye, Look
from scene3d.view.pace import Pace

if TYPE_CHECKING:
    import viser

log = logging.getLogger(__name__)

# A view that has not moved for this long rests.
REST_SECONDS = 0.15
# Sharp pictures are no larger than this, whatever the window.
MAX_PIXELS = 1920 * 1080
MOVING_QUALITY, RESTING_QUALITY = 70, 92


class Client:
    """Draws for one browser in a thread of its own.

    Args:
        handle: The browser as viser knows it.
        stock: The scenes; shared.
        look: Tells what to show now; None where the browser draws itself.
        turn: Held while drawing: native code takes all cores, so that two pictures at once gain nothing.
    """

    def __init__(
        self, handle: viser.ClientHandle, stock: Stock, look: Callable[[], Look | None], turn: threading.Lock
    ) -> None:
        self.handle, self.stock, self.look, self.turn = handle, stock, look, turn
        self.pace = Pace()
        self.has_sent = threading.Event()
        self._changed = threading.Event()
        self._is_gone = False
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"view-{handle.client_id}")

    def start(self) -> None:
        """Draw from now on."""
        self.handle.camera.on_update(lambda _: self.refresh())
        self._changed.set()
        self._thread.start()

    def refresh(self) -> None:
        """Draw again: the view or what is shown has changed."""
        self._changed.set()

    def stop(self) -> None:
        """The browser has left."""
        self._is_gone = True
        self._changed.set()

    def eye(self) -> Eye:
        """From where the browser looks now."""
        return eye_of(self.handle.camera)

    def _run(self) -> None:
        while True:
            self._changed.wait()
            if self._is_gone:
                return
            self._changed.clear()
            if self.look() is None:
                continue
            width, height = self._window()
            coarse = self.pace.size(width, height)
            self.pace.took(self._send(*coarse, MOVING_QUALITY))
            if not self._changed.wait(REST_SECONDS):
                self._send(width, height, RESTING_QUALITY, self._changed.is_set)

    def _window(self) -> tuple[int, int]:
        width, height = self.handle.camera.image_width, self.handle.camera.image_height
        shrink = min(1.0, math.sqrt(MAX_PIXELS / max(width * height, 1)))
        return max(1, round(width * shrink)), max(1, round(height * shrink))

    def _send(self, width: int, height: int, quality: int, is_stale: Callable[[], bool] = lambda: False) -> float:
        """Draw and send one picture, unless it is stale before it is done; how long it took, seconds."""
        look = self.look()
        if look is None:
            return self.pace.seconds
        try:
            with self.turn:
                began = time.perf_counter()
                picture = draw(self.stock, self.eye(), look, width, height, is_stale)
                seconds = time.perf_counter() - began
            if self._is_gone or self.look() is None:
                return seconds
            self.handle.scene.set_background_image(picture, format="jpeg", jpeg_quality=quality)
            self.has_sent.set()
        except Stale:
            return self.pace.seconds
        except (Scene3dError, ValueError, OSError) as error:
            # A photo that cannot be read ends one picture, not the viewer.
            log.warning("%s", error)
            self.handle.add_notification("Cannot be shown", str(error), auto_close_seconds=8.0)
            return self.pace.seconds
        return seconds


def eye_of(camera: viser.CameraHandle) -> Eye:
    """The eye of a browser. viser's cameras have OpenCV axes, its angles are vertical."""
    viewmat = torch.eye(4, dtype=torch.float64)
    rotation = quaternions.to_rotmat(torch.as_tensor(camera.wxyz, dtype=torch.float64))
    viewmat[:3, :3] = rotation.T
    viewmat[:3, 3] = -rotation.T @ torch.as_tensor(camera.position, dtype=torch.float64)
    return Eye(viewmat, math.degrees(camera.fov))


def move(handle: viser.ClientHandle, eye: Eye) -> None:
    """Put a browser's camera where the eye is."""
    inverse = torch.linalg.inv(eye.viewmat.double())
    with handle.atomic():
        handle.camera.wxyz = quaternions.from_rotmat(inverse[None, :3, :3])[0].numpy()
        handle.camera.position = inverse[:3, 3].numpy()
        handle.camera.fov = math.radians(eye.fov_deg)
