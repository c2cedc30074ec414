"""The viewer: viser's server with our pictures in it.

What comes from a browser is a camera, the state of the controls and clicks: no path, no name, no text. Files that a
browser asks for are sent to it; on this machine nothing is written but camera_path.json, where the viewer was told to.
"""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from scene3d.core.cameras import Cameras
from scene3d.core.errors import Scene3dError
from scene3d.core.scene import Scene
from scene3d.io.registry import write_scene
from scene3d.io.s3d_marks import Plane
from scene3d.ops import quaternions
from scene3d.render.first_view import FirstView
from scene3d.view.client import Client, move
from scene3d.view.door import Door
from scene3d.view.draw import Stock
from scene3d.view.local import local_splats
from scene3d.view.look import Eye, Look
from scene3d.view.marks import sheet
from scene3d.view.panel import LookPanel, up_of
from scene3d.view.route_panel import RoutePanel

if TYPE_CHECKING:
    import viser

THUMBNAIL_SIDE = 96
MAX_FRUSTUMS = 200
# Frustums are as large as this share of the distance from which the scene is looked at.
FRUSTUM_SCALE = 0.04
LOCAL = "/gaussians"
# No browser waits longer than this for its controls.
FIRST_PICTURE_SECONDS = 0.5


class Viewer:
    """A running viewer.

    Args:
        door: Where browsers come in; it has a server of its own.
        stock: The scenes.
        view: Where browsers begin.
        folder: Where camera_path.json is saved; None only sends it to the browser.
    """

    def __init__(self, door: Door, stock: Stock, view: FirstView, folder: Path | None = None) -> None:
        self.door, self.stock, self.view = door, stock, view
        self.server = door.server
        self.clients: dict[int, Client] = {}
        self._turn, self._register = threading.Lock(), threading.Lock()
        self._local: tuple[Scene, Any] | None = None
        self._set_camera()
        for handle in self.server.get_clients().values():
            self._begin(handle)
        self.panel: LookPanel | None = None
        self.server.on_client_connect(self._greet)
        self.server.on_client_disconnect(self._disconnect)
        # A picture first: browsers take longer to lay out the controls than it takes to draw.
        for handle in self.server.get_clients().values():
            self._connect(handle).has_sent.wait(FIRST_PICTURE_SECONDS)
        self.panel = LookPanel(self.server.gui, stock, self.refresh)
        self.server.gui.add_button("Download what is shown").on_click(self._download)
        self.route_panel = RoutePanel(self.server, folder)
        self._say()
        if stock.capture is not None:
            self._add_frustums(FRUSTUM_SCALE * float((view.target - view.position).norm()))

    def refresh(self) -> None:
        """Draw again in every browser."""
        self._hand_over()
        for client in list(self.clients.values()):
            client.refresh()

    def publish(self, scene: Scene, status: str = "") -> None:
        """Show a newer state of the first scene, as a fit goes on."""
        self.stock.replace(0, scene)
        self._say(status)
        self.refresh()

    def show_planes(self, planes: dict[str, Plane]) -> None:
        """Let browsers choose one of the attribute planes of a grid, beside the controls."""
        gui = self.server.gui
        with gui.add_folder("Grid", expand_by_default=False):
            chosen = gui.add_dropdown("Attribute", list(planes))
            note = gui.add_markdown("")
            image = gui.add_image(sheet(planes[chosen.value]).numpy(), format="png")

        def show(_: Any) -> None:
            note.content = planes[chosen.value].note
            image.image = sheet(planes[chosen.value]).numpy()

        chosen.on_update(show)
        show(None)

    def stop(self) -> None:
        """Stop listening."""
        for client in list(self.clients.values()):
            client.stop()
        self.door.stop()

    def _hand_over(self) -> None:
        """Give the Gaussians to the browsers, or take them back, as the controls say."""
        assert self.panel is not None
        look = self.panel.look()
        if not self.panel.is_local.value:
            if self._local is not None:
                self._local[1].remove()
            self._local = None
            return
        scene = self.stock.shown(0, look.cut, look.mark if look.mode == "codes" else "")
        if self._local is not None and self._local[0] is scene:
            return
        try:
            splats = local_splats(scene.splats())
        except ValueError as error:
            self.panel.is_local.value = False
            for client in self.server.get_clients().values():
                client.add_notification("Not done", str(error), auto_close_seconds=8.0)
            return
        fields = (splats.centers, splats.covariances, splats.rgbs, splats.opacities)
        self._local = (scene, self.server.scene.add_gaussian_splats(LOCAL, *fields))
        for client in self.server.get_clients().values():
            client.scene.set_background_image(None)

    def _set_camera(self) -> None:
        up = up_of(self.view.up)
        self.server.scene.set_up_direction(up)
        camera = self.server.initial_camera
        camera.up = up
        camera.position, camera.look_at = self.view.position.numpy(), self.view.target.numpy()
        camera.fov = _fov(self.view)

    def _begin(self, handle: viser.ClientHandle) -> None:
        """Bring a browser that came before the scene to where others begin."""
        with handle.atomic():
            handle.camera.up_direction = up_of(self.view.up)
            handle.camera.position, handle.camera.look_at = self.view.position.numpy(), self.view.target.numpy()
            handle.camera.fov = _fov(self.view)

    def _say(self, status: str = "") -> None:
        sizes = " and ".join(scene.size_text() for scene in self.stock.scenes)
        self.door.say(f"{sizes}. {status}".strip())

    def _greet(self, handle: viser.ClientHandle) -> None:
        self._connect(handle)

    def _connect(self, handle: viser.ClientHandle) -> Client:
        """Draw for a browser from now on, if that is not done already."""
        with self._register:
            client = self.clients.get(handle.client_id)
            if client is None:
                client = self.clients[handle.client_id] = Client(handle, self.stock, self._look, self._turn)
                client.start()
        return client

    def _look(self) -> Look | None:
        """What to draw here, None where browsers draw."""
        if self._local is not None:
            return None
        return Look() if self.panel is None else self.panel.look()

    def _disconnect(self, handle: viser.ClientHandle) -> None:
        client = self.clients.pop(handle.client_id, None)
        if client is not None:
            client.stop()

    def _download(self, event: Any) -> None:
        """Send the Gaussians that the cut leaves as a .ply file; the browser asks its user where to put it."""
        assert self.panel is not None
        look = self.panel.look()
        scene = self.stock.shown(1 if look.side == "B" and len(self.stock.scenes) > 1 else 0, look.cut)
        try:
            scene.splats()
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "shown.ply"
                write_scene(scene, path)
                event.client.send_file_download("shown.ply", path.read_bytes(), save_immediately=True)
        except (Scene3dError, OSError) as error:
            event.client.add_notification("Not sent", str(error), auto_close_seconds=8.0)

    def _add_frustums(self, scale: float) -> None:
        capture = self.stock.capture
        assert capture is not None
        count = min(len(capture), MAX_FRUSTUMS)
        picked = sorted({round(i * (len(capture) - 1) / max(count - 1, 1)) for i in range(count)})
        gui = self.server.gui
        shown = gui.add_checkbox("Photos", initial_value=False, hint="Click on one to look from where it was taken")
        handles = {i: _frustum(self.server, capture.cameras.select([i]), i, scale) for i in picked}
        for i, handle in handles.items():
            handle.on_click(self._goto(i))

        def show(_: Any) -> None:
            for handle in handles.values():
                handle.visible = shown.value
            if shown.value:
                threading.Thread(target=self._add_thumbnails, args=(handles,), daemon=True).start()

        shown.on_update(show)

    def _goto(self, i: int) -> Callable[[Any], None]:
        capture = self.stock.capture
        assert capture is not None
        view = capture.cameras.select([i])
        fov_deg = math.degrees(2 * math.atan(view.height() / 2 / float(view.Ks[0, 1, 1])))

        def go(event: Any) -> None:
            if self.panel is not None:
                self.panel.choose_photo(i)
            move(event.client, Eye(view.viewmats[0], fov_deg))

        return go

    def _add_thumbnails(self, handles: dict[int, Any]) -> None:
        capture = self.stock.capture
        assert capture is not None
        for i, handle in handles.items():
            if handle.image is not None:
                continue
            try:
                picture = Image.fromarray(capture.load(i).rgb.numpy())
            except (Scene3dError, OSError):
                continue  # Its frustum stays empty; the error mode says why when it is asked for this photo.
            picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            handle.image = np.asarray(picture)


def _fov(view: FirstView) -> float:
    # The angle of the view is across the longer side; windows are wider than high.
    return 2 * math.atan(math.tan(math.radians(view.fov_deg) / 2) / 1.5)


def _frustum(server: viser.ViserServer, view: Cameras, i: int, scale: float) -> Any:
    inverse = torch.linalg.inv(view.viewmats[0].double())
    return server.scene.add_camera_frustum(
        f"/photos/{i:05d}",
        fov=2 * math.atan(view.height() / 2 / float(view.Ks[0, 1, 1])),
        aspect=view.width() / view.height(),
        scale=scale,
        color=(255, 150, 40),
        wxyz=quaternions.from_rotmat(inverse[None, :3, :3])[0].numpy(),
        position=inverse[:3, 3].numpy(),
        visible=False,
    )
