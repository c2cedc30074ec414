"""How closely a browser's picture of an exported page agrees with our own render, and how soon it is there.

Opens the page in headless Chromium (WebGL in software) and compares views of the capture with renders of the scene.
"""

from __future__ import annotations

import io
import math
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from PIL import Image

from scene3d.core.cameras import Cameras
from scene3d.core.scene import Scene
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.registry import read_scene, write_scene
from scene3d.ops import quaternions
from scene3d.page.build import PageSettings, build_page
from scene3d.page.compose import viewer_from_world
from scene3d.render.first_view import choose
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings

FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
POSE = """(pose) => scene3d.ready.then(({ app }) => new Promise((resolve) => {
  app.off("framerender", window.hold);
  window.hold = () => {
    const camera = app.root.findByName("camera");
    camera.setPosition(...pose.position);
    camera.setRotation(...pose.rotation);
    Object.assign(camera.camera, { horizontalFov: true, fov: pose.fov, nearClip: 0.01, farClip: 10000 });
  };
  app.on("framerender", window.hold);
  app.autoRender = true;
  let frames = 0;
  const count = (camera, layer, ready) => {
    if (++frames < 6 || !ready) return;
    app.systems.gsplat.off("frame:ready", count);
    app.once("frameend", () => { app.autoRender = false; resolve(); });
  };
  app.systems.gsplat.on("frame:ready", count);
}))"""


@dataclass(frozen=True)
class Config:
    """What to compare."""

    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE")]
    """Scene file."""
    capture: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CAPTURE")]
    """Its photos."""
    embed: str = "sog"
    """Format inside of the page: sog, compressed.ply or ply."""
    width: int = 640
    """Pixels."""
    height: int = 480
    """Pixels."""
    views: int = 6
    """Views, evenly among the photos."""
    antialiased: bool = False
    """Treat the scene as antialiased, whatever it says."""


def run(config: Config) -> None:
    """Print a table."""
    from playwright.sync_api import sync_playwright

    scene = read_scene(config.scene)
    if config.antialiased:
        scene = _antialiased(scene)
    capture = read_capture(config.capture, CaptureOptions())
    cameras = _views(capture.cameras, config)
    page = build_page(scene, capture.cameras, PageSettings("bench", f".{config.embed}"))
    up = choose(scene, capture.cameras).up
    program = next(path for path in map(shutil.which, ("chromium", "google-chrome")) if path)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as p:
        file, inside = Path(name) / "page.html", Path(name) / f"scene.{config.embed}"
        file.write_text(page, encoding="utf-8")
        write_scene(scene, inside)
        embedded = read_scene(inside)
        browser = p.chromium.launch(executable_path=program, args=FLAGS)
        tab = browser.new_page(viewport={"width": config.width, "height": config.height})
        began = time.perf_counter()
        tab.goto(f"{file.as_uri()}?noui")
        tab.evaluate("() => scene3d.ready.then(() => 0)")
        seconds = time.perf_counter() - began
        size = len(page.encode()) / 1e6
        print(f"{len(scene.payload):,} Gaussians as {config.embed}: page {size:.2f} MB, first frame {seconds:.1f} s")
        for i in range(len(cameras)):
            theirs = _shot(tab, cameras, i, up)
            print(f"{cameras.names[i]}: {_psnr(theirs, embedded, cameras, i):.1f} dB", end="")
            print(f" ({_psnr(theirs, scene, cameras, i):.1f} dB against the scene before it was compressed)")
        browser.close()


def _antialiased(scene: Scene) -> Scene:
    from dataclasses import replace

    return replace(scene, info=replace(scene.info, antialiased=True))


def _views(cameras: Cameras, config: Config) -> Cameras:
    """Views of the capture in the size of the window; the viewer has neither off-centre axes nor two focals."""
    picked = sorted({round(i * (len(cameras) - 1) / max(config.views - 1, 1)) for i in range(config.views)})
    chosen = cameras.select(picked)
    focal = float((chosen.Ks[:, 0, 0] / chosen.sizes[:, 0]).mean()) * config.width
    K = torch.tensor([[focal, 0, config.width / 2], [0, focal, config.height / 2], [0, 0, 1]])
    sizes = torch.tensor([[config.width, config.height]]).repeat(len(chosen), 1)
    return Cameras(chosen.viewmats.float(), K.repeat(len(chosen), 1, 1), sizes, chosen.names)


def _shot(tab: Any, cameras: Cameras, i: int, up: torch.Tensor) -> np.ndarray:
    turn = viewer_from_world(up).float()
    opengl = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    w, x, y, z = quaternions.from_rotmat((turn @ cameras.viewmats[i, :3, :3].T @ opengl)[None])[0].tolist()
    fov = 2 * math.degrees(math.atan(cameras.width() / 2 / float(cameras.Ks[i, 0, 0])))
    position = (turn @ cameras.centers()[i]).tolist()
    tab.evaluate(POSE, {"position": position, "rotation": [x, y, z, w], "fov": fov})
    return np.asarray(Image.open(io.BytesIO(tab.screenshot())).convert("RGB")) / 255


def _psnr(theirs: np.ndarray, scene: Scene, cameras: Cameras, i: int) -> float:
    settings = RasterSettings(antialiased=scene.info.antialiased)
    ours = rasterize(scene.payload, cameras.select([i]), settings).rgb[0].clamp(0, 1).numpy()
    return -10 * math.log10(float(np.mean((ours - theirs) ** 2)) + 1e-12)


if __name__ == "__main__":
    run(tyro.cli(Config, description=__doc__))
