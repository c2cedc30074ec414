"""A fit looked at while it goes on: now and then a copy of its Gaussians goes to the viewer."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable
from dataclasses import replace

from scene3d.core.capture import Capture
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.render.first_view import choose
from scene3d.view.address import announcement, free_port
from scene3d.view.door import Door
from scene3d.view.draw import Stock
from scene3d.view.server import Viewer

# Seconds between copies: often enough to see it grow, seldom enough not to slow the fit.
EVERY_SECONDS = 1.0
HOST = "127.0.0.1"


class Live:
    """Takes the states of one fit.

    Args:
        viewer: Where they are shown.
        scene: The first state; its facts hold for all.
        clock: Seconds that only grow.
    """

    def __init__(self, viewer: Viewer, scene: Scene, clock: Callable[[], float] = time.monotonic) -> None:
        self.viewer, self.scene = viewer, scene
        self._clock = clock
        self._shown = clock()

    def show(self, step: int, fraction: float, gaussians: Callable[[], Gaussians]) -> None:
        """Show the state after a step, if somebody looks and the last one is old enough; the last step is always shown.

        Args:
            step: Steps done.
            fraction: Part of the run done.
            gaussians: Gives a copy of the state.
        """
        is_due = bool(self.viewer.clients) and self._clock() - self._shown >= EVERY_SECONDS
        if is_due or fraction >= 1:
            self.viewer.publish(replace(self.scene, payload=gaussians()), f"Step {step:,}, {fraction:.0%} done.")
            self._shown = self._clock()


def start_live(scene: Scene, capture: Capture, port: int) -> tuple[Live, list[str]]:
    """Serve the first state of a fit to this machine. Returns what takes the later ones, and lines for the user.

    Raises:
        AddressError: no port is free.
    """
    chosen = free_port(HOST, port)
    viewer = Viewer(Door(HOST, chosen, "fit"), Stock((scene,), capture), choose(scene, capture.cameras))
    # The viewer stays while the rest of the command runs.
    atexit.register(viewer.stop)
    return Live(viewer, scene), announcement(HOST, chosen, port)
