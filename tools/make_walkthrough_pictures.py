"""Make the pictures of README.md and docs/walkthrough.md from a run of the bundled sample.

A held-out photo beside the scene; photos, what the viewer can show, the page on two screens.
"""

from __future__ import annotations

import io
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image

from scene3d.core.capture import Capture
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.registry import read_scene
from scene3d.io.sample import sample_capture
from scene3d.render.first_view import choose
from scene3d.view.draw import Stock, draw
from scene3d.view.look import Cut, Eye, Look

FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
SIZE = (320, 240)
GAP = 8
QUALITY = 80


@dataclass(frozen=True)
class Config:
    """Which run, and where to."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of a run of the bundled sample, with page.html."""
    out: Path = Path(__file__).resolve().parents[1] / "docs" / "images"
    """Folder of the pictures."""


def run(config: Config) -> None:
    """Write the pictures."""
    capture = read_capture(sample_capture(), CaptureOptions(max_size=480))
    scene = read_scene(config.run / "fit" / "scene.ply")
    photos = [Image.fromarray(capture.load(i).rgb.numpy()).resize(SIZE) for i in (0, 9, 19, 38)]
    _save(config.out / "walk_photos.jpg", [[np.asarray(photo) for photo in photos]])
    view = choose(scene, capture.cameras)
    eye = Eye(view.square(2).viewmats[0], 42.0)
    stock = Stock((scene,), capture)
    looks = [
        [Look(), Look(mode="depth"), Look(mode="normals")],
        [Look(mode="ellipsoids"), Look(cut=Cut(0.9)), Look(mode="error", photo=capture.test[0])],
    ]
    _save(config.out / "walk_looks.jpg", [[draw(stock, eye, look, *SIZE) for look in row] for row in looks])
    _save(config.out / "walk_page.jpg", [_screens(config.run / "page.html")])
    held_out = capture.test[0]
    true, at = (
        np.asarray(capture.load(held_out).rgb),
        Eye(capture.cameras.viewmats[held_out], _fov_deg(capture, held_out)),
    )
    shown = [draw(stock, at, look, true.shape[1], true.shape[0]) for look in (Look(), Look(mode="depth"))]
    gap = np.full((true.shape[0], GAP, 3), 255, np.uint8)
    _save(config.out / "sample.jpg", [[true, gap, shown[0], gap, shown[1]]])
    print(f"sample.jpg, walk_photos.jpg, walk_looks.jpg, walk_page.jpg -> {config.out}")


def _fov_deg(capture: Capture, i: int) -> float:
    view = capture.cameras.select([i])
    return math.degrees(2 * math.atan(view.height() / 2 / float(view.Ks[0, 1, 1])))


def _screens(page: Path) -> list[np.ndarray]:
    """The page on a desk and in a hand, equally high."""
    from playwright.sync_api import sync_playwright

    program = next(path for path in map(shutil.which, ("chromium", "google-chrome")) if path)
    shots = []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=program, args=FLAGS)
        for width, height in ((1000, 640), (360, 640)):
            tab = browser.new_page(viewport={"width": width, "height": height})
            tab.goto(page.resolve().as_uri())
            tab.evaluate("() => scene3d.ready.then(() => 0)")
            tab.wait_for_timeout(1500)
            shot = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
            shots.append(np.asarray(shot.resize((round(width * 0.7), round(height * 0.7)), Image.Resampling.LANCZOS)))
        browser.close()
    return shots


def _save(path: Path, rows: list[list[np.ndarray]]) -> None:
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path, quality=QUALITY, optimize=True)


if __name__ == "__main__":
    run(tyro.cli(Config, description=__doc__))
