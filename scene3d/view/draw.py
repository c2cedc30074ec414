"""From what a viewer asks for to a picture: no browser, no threads, no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture, Photo
from scene3d.core.scene import Scene
from scene3d.io.s3d_marks import Marks
from scene3d.ops.colormap import HEAT, colorize
from scene3d.render.frames import FrameSettings, Mode, picture, raster_settings, spread, to_bytes
from scene3d.render.scene_view import on_device_of, render_scene
from scene3d.render.types import RasterSettings, Render
from scene3d.view import ellipsoids
from scene3d.view.look import Cut, Eye, Look
from scene3d.view.marks import painted

DEPTH_PERCENTILES = (2.0, 98.0)
# Pixels from which the depths of a picture are spread: a sample is as good as all.
DEPTH_SAMPLE = 20_000
# Mean difference of the three channels, of 1, that takes the brightest colour.
WORST_ERROR = 0.25
NO_ERROR = 40  # Grey where there is no photo to compare with.
FRAME = FrameSettings()
# Rows of a field that are drawn between two looks at whether they are still wanted.
BAND_ROWS = 128


class Stock:
    """The scenes on show, what was last cut out of them, and the photo last read.

    Args:
        scenes: One, or two to compare.
        capture: Its photos, for the error.
        backend: Of the rasterizer.
        marks: For each scene, what compression made of its Gaussians, by name.
    """

    def __init__(
        self,
        scenes: tuple[Scene, ...],
        capture: Capture | None = None,
        backend: str = "auto",
        marks: tuple[dict[str, Marks], ...] = (),
    ) -> None:
        if not 1 <= len(scenes) <= 2:
            raise ValueError(f"scenes: expected one or two, got {len(scenes)}")
        self.scenes = list(scenes)
        self.capture = capture
        self.backend = backend
        self.marks = marks or ({},) * len(scenes)
        self._cuts: dict[int, tuple[Scene, Cut, str, Scene]] = {}
        self._photo: tuple[int, Photo] | None = None

    def replace(self, i: int, scene: Scene) -> None:
        """Show another scene in place of scene i."""
        self.scenes[i] = scene

    def shown(self, i: int, cut: Cut, mark: str = "") -> Scene:
        """Scene i without what the cut leaves out, in the colours of the mark where it has that.

        Remembered until scene, cut or mark change. Fields are shown whole.
        """
        scene = self.scenes[i]
        known = self._cuts.get(i)
        if known is None or known[0] is not scene or known[1:3] != (cut, mark):
            kept = painted(scene, self.marks[i][mark]) if mark in self.marks[i] else scene
            if kept.kind == "gaussians":
                kept = replace(kept, payload=cut.apply(kept.splats()))
            else:
                kept = on_device_of(kept, self.backend)
            known = (scene, cut, mark, kept)
            self._cuts[i] = known
        return known[3]

    def photo(self, i: int) -> Photo:
        """Photo i of the capture."""
        if self.capture is None:
            raise ValueError("photo: the error needs the photos of a capture, and there is none")
        if self._photo is None or self._photo[0] != i:
            self._photo = (i, self.capture.load(i))
        return self._photo[1]


class Stale(Exception):
    """A picture that was given up: something else is to be seen by now."""


@torch.no_grad()
def draw(
    stock: Stock, eye: Eye, look: Look, width: int, height: int, is_stale: Callable[[], bool] = lambda: False
) -> np.ndarray:
    """Draw one picture.

    Args:
        stock: The scenes.
        eye: From where; the error is seen from its photo instead.
        look: What to show.
        width: Pixels.
        height: Pixels.
        is_stale: Asked while fields are drawn, which takes longest; True gives the picture up.

    Returns:
        uint8. [H, W, 3]

    Raises:
        Stale: is_stale said so.
    """
    if look.mode == "error" and stock.capture is not None:
        return _error(stock, look, width, height, is_stale)
    camera = eye.camera(width, height)
    if len(stock.scenes) == 1 or look.side == "A":
        return _side(stock, 0, camera, look, is_stale).numpy()
    if look.side == "B":
        return _side(stock, 1, camera, look, is_stale).numpy()
    left, right = (_side(stock, i, camera, look, is_stale) for i in (0, 1))
    if look.side == "difference":
        return _heat((left.float() - right.float()).abs().mean(dim=2) / 255).numpy()
    edge = round(min(max(look.split, 0.0), 1.0) * width)
    return torch.cat([left[:, :edge], right[:, edge:]], dim=1).numpy()


def _side(stock: Stock, i: int, camera: Cameras, look: Look, is_stale: Callable[[], bool]) -> Tensor:  # [H, W, 3] uint8
    scene = stock.shown(i, look.cut, look.mark if look.mode == "codes" else "")
    if look.mode == "ellipsoids":
        return to_bytes(ellipsoids.draw(scene.splats(), camera, look.background))
    mode: Mode = "rgb" if look.mode == "error" or look.mode == "codes" else look.mode
    settings = replace(FRAME, mode=mode, background=look.background, sh_degree=look.sh_degree)
    raster = raster_settings(scene, settings)
    if scene.kind == "gaussians":
        render = render_scene(scene, camera, raster, stock.backend)
    else:
        render = _in_bands(scene, camera, raster, stock.backend, is_stale)
    depths = (0.0, 1.0)
    if render.depth is not None:
        solid = render.depth[render.alpha > 0.5]
        depths = spread(solid[:: max(1, len(solid) // DEPTH_SAMPLE)], DEPTH_PERCENTILES)
    return picture(render, settings, depths).cpu()


def _in_bands(
    scene: Scene, camera: Cameras, raster: RasterSettings, backend: str, is_stale: Callable[[], bool]
) -> Render:
    """A view of a field, some rows at a time."""
    parts = []
    for top in range(0, camera.height(), BAND_ROWS):
        if is_stale():
            raise Stale
        Ks = camera.Ks.clone()
        Ks[:, 1, 2] -= top
        size = camera.sizes.new_tensor([[camera.width(), min(BAND_ROWS, camera.height() - top)]])
        parts.append(render_scene(scene, replace(camera, Ks=Ks, sizes=size), raster, backend))
    first = parts[0]
    if len(parts) == 1:
        return first
    images: dict[str, Any] = {}
    for name in ("rgb", "alpha", "depth", "normals"):
        images[name] = (
            None if getattr(first, name) is None else torch.cat([getattr(part, name) for part in parts], dim=1)
        )
    return replace(first, **images)


@dataclass(frozen=True)
class Placed:
    """A photo in a window: all of it is seen, as large as fits.

    Attributes:
        camera: Of the whole window.
        left: First column of the photo.
        top: First row.
        width: Columns.
        height: Rows.
    """

    camera: Cameras
    left: int
    top: int
    width: int
    height: int


def place_photo(view: Cameras, width: int, height: int) -> Placed:
    """Put the one view into a window of that size."""
    shrink = min(width / view.width(), height / view.height())
    inner = (max(1, round(view.width() * shrink)), max(1, round(view.height() * shrink)))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    K = view.resized(torch.tensor([inner])).Ks.float().clone()
    K[:, 0, 2] += left
    K[:, 1, 2] += top
    camera = Cameras(view.viewmats.float(), K, torch.tensor([[width, height]]))
    return Placed(camera, left, top, *inner)


def _error(stock: Stock, look: Look, width: int, height: int, is_stale: Callable[[], bool]) -> np.ndarray:
    assert stock.capture is not None
    i = min(max(look.photo or 0, 0), len(stock.capture) - 1)
    placed = place_photo(stock.capture.cameras.select([i]), width, height)
    side = 1 if look.side == "B" and len(stock.scenes) > 1 else 0
    ours = _side(stock, side, placed.camera, look, is_stale)
    rows, columns = slice(placed.top, placed.top + placed.height), slice(placed.left, placed.left + placed.width)
    photo = stock.photo(i)
    truth = _resized(photo.rgb, placed)
    difference = (ours[rows, columns].float() - truth.float()).abs().mean(dim=2) / 255
    inside = _heat(difference)
    if photo.mask is not None:
        inside[_resized(photo.mask[..., None].expand(-1, -1, 3), placed)[..., 0] < 128] = NO_ERROR
    window = torch.full((height, width, 3), NO_ERROR, dtype=torch.uint8)
    window[rows, columns] = inside
    return window.numpy()


def _resized(image: Tensor, placed: Placed) -> Tensor:  # [H, W, 3] uint8
    small = Image.fromarray(image.contiguous().numpy()).resize((placed.width, placed.height), Image.Resampling.BOX)
    return torch.from_numpy(np.array(small))


def _heat(difference: Tensor) -> Tensor:  # [H, W] -> [H, W, 3] uint8
    return colorize(difference / WORST_ERROR, HEAT)
