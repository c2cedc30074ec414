"""How fast the live viewer draws: the first picture, and pictures while the view moves, without and with a browser."""

from __future__ import annotations

import io
import math
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from PIL import Image

from scene3d.core.cameras import look_at
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.io.registry import read_scene, write_scene
from scene3d.render.first_view import FirstView, choose
from scene3d.view.draw import Stock, draw
from scene3d.view.look import Eye, Look

# What a viewer does until its first picture, in a process of its own.
ALONE = """
import sys, time
from pathlib import Path
from scene3d.view.door import Door
from scene3d.view.address import free_port
began = float(sys.argv[2])
door = Door("127.0.0.1", free_port("127.0.0.1", 8080), "alone")
listens = time.time() - began
from scene3d.io.registry import read_scene
from scene3d.render.first_view import choose
from scene3d.view.draw import Stock, draw
from scene3d.view.look import Eye, Look
from scene3d.core.cameras import look_at
scene = read_scene(Path(sys.argv[1]))
view = choose(scene, None)
draw(Stock((scene,)), Eye(look_at(view.position, view.target, view.up), 50.0), Look(), 640, 360)
drawn = time.time() - began
print(f"without a browser: address {listens:.2f} s, first picture drawn {drawn:.2f} s after the start")
door.stop()
"""
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]


@dataclass(frozen=True)
class Config:
    """What to draw."""

    scene: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="SCENE")] = None
    """Scene file. Default: 100,000 random Gaussians of degree 3."""
    width: int = 640
    """Pixels."""
    height: int = 360
    """Pixels."""
    frames: int = 40
    """Pictures of a turn around the scene."""
    browser: bool = True
    """Also time the first picture of `scene3d view` in headless Chromium, from the start of the process."""


def run(config: Config) -> None:
    """Print one line per measurement."""
    with tempfile.TemporaryDirectory() as name:
        path = config.scene
        if path is None:
            path = Path(name) / "random.ply"
            write_scene(Scene(_random(100_000)), path)
        began = time.perf_counter()
        scene = read_scene(path)
        view = choose(scene, None)
        read = time.perf_counter() - began
        stock = Stock((scene,))
        draw(stock, _eye(view, 0.0), Look(), config.width, config.height)
        first = time.perf_counter() - began
        print(f"{scene.size_text()}: read {read:.2f} s, first picture after {first:.2f} s")
        for mode in ("rgb", "depth", "normals", "alpha", "ellipsoids"):
            print(f"{mode:<11}{_rate(stock, view, Look(mode=mode), config):6.1f} pictures/s with JPEG")
        print(subprocess.check_output([sys.executable, "-c", ALONE, str(path), str(time.time())], text=True).strip())
        if config.browser:
            came, seen = _in_browser(path, config)
            print(
                f"in Chromium: first picture {came:.2f} s after the command was started, in a screenshot {seen:.2f} s"
            )


def _rate(stock: Stock, view: FirstView, look: Look, config: Config) -> float:
    began = time.perf_counter()
    for i in range(config.frames):
        picture = draw(stock, _eye(view, 2 * math.pi * i / config.frames), look, config.width, config.height)
        Image.fromarray(picture).save(io.BytesIO(), "JPEG", quality=70)
    return config.frames / (time.perf_counter() - began)


def _eye(view: FirstView, angle: float) -> Eye:
    """The first view turned around its target."""
    offset, up = view.position - view.target, view.up
    turned = (
        offset * math.cos(angle)
        + torch.linalg.cross(up, offset) * math.sin(angle)
        + up * (up @ offset) * (1 - math.cos(angle))
    )
    return Eye(look_at(view.target + turned, view.target, up), 50.0)


def _random(n: int) -> Gaussians:
    generator = torch.Generator().manual_seed(0)
    return Gaussians(
        means=torch.randn(n, 3, generator=generator),
        quats=torch.randn(n, 4, generator=generator),
        log_scales=torch.randn(n, 3, generator=generator) * 0.5 - 4.2,
        opacity_logits=torch.randn(n, generator=generator) * 2,
        sh0=torch.randn(n, 1, 3, generator=generator),
        shN=torch.randn(n, 15, 3, generator=generator) * 0.1,
    )


def _in_browser(path: Path, config: Config) -> tuple[float, float]:
    """Seconds from the start of the command until the first picture is in the page, and until a screenshot shows it."""
    from playwright.sync_api import sync_playwright

    program = next(found for found in map(shutil.which, ("chromium", "google-chrome")) if found)
    with sync_playwright() as p:
        tab = p.chromium.launch(executable_path=program, args=FLAGS).new_page(
            viewport={"width": config.width, "height": config.height}
        )
        pictures: list[float] = []

        def received(data: str | bytes) -> None:
            if isinstance(data, bytes) and b"\xff\xd8\xff" in data:  # A JPEG, sent as it is.
                pictures.append(time.perf_counter())

        tab.on("websocket", lambda socket: socket.on("framereceived", received))
        began = time.perf_counter()
        viewer = subprocess.Popen(
            [sys.executable, "-m", "scene3d", "view", str(path)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert viewer.stdout is not None
            tab.goto(next(line.split()[-1] for line in viewer.stdout if line.startswith("open")), wait_until="commit")
            # Screenshots take their time from what they wait for: none is made before a picture has come.
            while not pictures:
                tab.wait_for_timeout(5)
            while np.asarray(Image.open(io.BytesIO(tab.screenshot(timeout=60_000))))[:, :200, :3].std() < 8:
                tab.wait_for_timeout(5)
            return pictures[0] - began, time.perf_counter() - began
        finally:
            viewer.terminate()


if __name__ == "__main__":
    run(tyro.cli(Config, description=__doc__))
