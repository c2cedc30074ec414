"""Controls of the camera path: add views, play the flight, save it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scene3d.core.errors import Scene3dError
from scene3d.io.atomic import write_text
from scene3d.io.camera_path import camera_path_json
from scene3d.view.client import eye_of, move
from scene3d.view.route import MAX_KEYS, Route

if TYPE_CHECKING:
    import viser

SIZE = (1280, 720)
LINE = "/camera path"
FILE_NAME = "camera_path.json"


class RoutePanel:
    """The camera path in the making.

    Args:
        server: Where controls and the drawn path go.
        folder: Where camera_path.json is saved; None only sends it to the browser.
    """

    def __init__(self, server: viser.ViserServer, folder: Path | None) -> None:
        self.server, self.folder = server, folder
        self.route = Route()
        self.is_playing = False
        gui = server.gui
        with gui.add_folder("Camera path", expand_by_default=False):
            self.count = gui.add_markdown("no views yet")
            self._button("Add this view", self._add)
            self._button("Remove last", lambda _: self._set(self.route.keys[:-1]))
            self._button("Clear", lambda _: self._set(()))
            self.seconds = gui.add_number("Seconds", 8.0, min=0.1, max=600.0, step=0.1)
            self.is_closed = gui.add_checkbox("Closed", initial_value=False)
            self._button("Play", self._play)
            self._button("Save " + FILE_NAME, self._save)
        for control in (self.seconds, self.is_closed):
            control.on_update(lambda _: self._set(self.route.keys))

    def _button(self, label: str, action: Callable[[viser.ClientHandle], None]) -> None:
        def clicked(event: Any) -> None:
            if event.client is None:
                return
            try:
                action(event.client)
            except (ValueError, Scene3dError) as error:
                event.client.add_notification("Not done", str(error), auto_close_seconds=8.0)

        self.server.gui.add_button(label).on_click(clicked)

    def _add(self, client: viser.ClientHandle) -> None:
        if len(self.route.keys) >= MAX_KEYS:
            raise ValueError(f"camera path: expected at most {MAX_KEYS} views. Remove some")
        self._set((*self.route.keys, eye_of(client.camera)))

    def _set(self, keys: tuple) -> None:
        self.route = replace(
            self.route, keys=keys, seconds=float(self.seconds.value), is_closed=bool(self.is_closed.value)
        )
        self.count.content = f"{len(keys)} view{'s' * (len(keys) > 1)}" if keys else "no views yet"
        self.server.scene.remove_by_name(LINE)
        if len(keys) >= 2:
            points = replace(self.route, seconds=4.0).views(*SIZE).centers().numpy()
            pairs = np.stack([points[:-1], points[1:]], axis=1)
            self.server.scene.add_line_segments(
                LINE, pairs, colors=(255, 150, 40), thickness=3.0, thickness_units="screen"
            )

    def _play(self, client: viser.ClientHandle) -> None:
        if self.is_playing:
            return
        eyes = self.route.eyes()
        self.is_playing = True
        threading.Thread(target=self._fly, args=(client, eyes), daemon=True).start()

    def _fly(self, client: viser.ClientHandle, eyes: list) -> None:
        try:
            began = time.perf_counter()
            while (share := (time.perf_counter() - began) / self.route.seconds) < 1:
                move(client, eyes[min(int(share * len(eyes)), len(eyes) - 1)])
                time.sleep(1 / 30)
            move(client, eyes[-1])
        finally:
            self.is_playing = False

    def _save(self, client: viser.ClientHandle) -> None:
        text = camera_path_json(self.route.views(*SIZE), self.route.fps)
        client.send_file_download(FILE_NAME, text.encode(), save_immediately=True)
        if self.folder is not None:
            write_text(self.folder / FILE_NAME, text)
            client.add_notification("Saved", str(self.folder / FILE_NAME), auto_close_seconds=8.0)
