"""Look at a scene in the browser: our renderer on this machine, streamed. Only this machine can see it unless asked.

Drag to turn, right-drag to move, wheel to zoom, W A S D Q E to fly.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from scene3d.core.errors import Scene3dError
from scene3d.core.interrupt import stop_requests
from scene3d.view.address import announcement, free_port
from scene3d.view.door import Door


@dataclass(frozen=True)
class Config:
    """What to look at, and who may."""

    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE")]
    """Scene file."""
    compare: Path | None = None
    """A second scene, to switch between the two, split the picture, or see how they differ."""
    capture: Path | None = None
    """Folder with the photos of the scene: shown where they were taken, and compared with the picture."""
    data_factor: int | None = None
    """Reduce photos by this whole number."""
    max_size: int | None = 960
    """Longer side of photos at most, pixels."""
    up: tuple[float, float, float] | None = None
    """World direction that is up. Default: from the scene or the photos, else -y."""
    host: str = "127.0.0.1"
    """Address to listen on. The default lets nobody else in; 0.0.0.0 lets in everyone who can reach this machine."""
    port: int = 8080
    """Port to listen on; where it is taken, the next that is free."""
    backend: str = "auto"
    """Rasterizer: auto, cpu, cuda, gsplat or reference."""


def run(config: Config) -> None:
    """Serve until stopped; print the address."""
    port = free_port(config.host, config.port)
    # A browser on this machine works on the same cores: threads of torch that spin while they wait would hold it up.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Whoever reads the address may ask for the end at once.
    with stop_requests() as asked:
        door = Door(config.host, port, config.scene.name)
        print("\n".join(announcement(config.host, port, config.port)), flush=True)
        try:
            _show(config, door)
        except (Scene3dError, ValueError, OSError) as error:
            door.fail(str(error))
            raise
        while not asked():
            time.sleep(0.2)
    door.stop()


def _show(config: Config, door: Door) -> None:
    """Read the scenes and put them behind the door."""
    # Imported here, for this is most of the time until the first picture: the browser loads its page meanwhile.
    from scene3d.io.camera_path import views_of
    from scene3d.io.registry import read_scene
    from scene3d.io.s3d_marks import read_marks, read_planes
    from scene3d.render.first_view import choose
    from scene3d.view.draw import Stock
    from scene3d.view.server import Viewer

    files = (config.scene,) if config.compare is None else (config.scene, config.compare)
    scenes = tuple(read_scene(file) for file in files)
    capture = None
    if config.capture is not None:
        from scene3d.io.capture_files import CaptureOptions, read_capture

        options = CaptureOptions(data_factor=config.data_factor, max_size=config.max_size)
        capture = read_capture(config.capture, options)
    view = choose(scenes[0], views_of(config.scene, capture), config.up)
    stock = Stock(scenes, capture, config.backend, tuple(read_marks(file) for file in files))
    viewer = Viewer(door, stock, view, config.scene.resolve().parent)
    planes = {name: plane for file in files for name, plane in read_planes(file).items()}
    if planes:
        viewer.show_planes(planes)
