"""Itinerary: from the name of a path to the views to render; sizes follow the photos where none is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture
from scene3d.render import paths, surround
from scene3d.render.paths import Shot
from scene3d.render.scene_points import ScenePoints

PathName = Literal["auto", "orbit", "ellipse", "spiral", "flight", "train", "test", "all"]
DATASET_PATHS = ("train", "test", "all")
BARE_SIZE = (960, 540)
# Views from nearly all around: a turntable shows nothing that was not photographed.
ALL_AROUND_DEG = 300.0
MAX_SIDE = 16384
# More frames than anyone waits for; a mistyped fps should not fill a disk.
MAX_FRAMES = 100_000


@dataclass(frozen=True)
class Wish:
    """What the user asks for.

    Attributes:
        path: auto = orbit where photos surround the scene or are not at hand, else flight.
        width: Pixels; None follows the photos, or the height.
        height: Pixels; None follows the photos, or the width.
        seconds: Length of a path.
        fps: Frames a second.
        elevation_deg: Of an orbit; None follows the photos.
        up: World direction; None follows the photos or the scene.
    """

    path: PathName = "auto"
    width: int | None = None
    height: int | None = None
    seconds: float = 8.0
    fps: float = 30.0
    elevation_deg: float | None = None
    up: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_SIDE:
                raise ValueError(f"{name}: expected 1 to {MAX_SIDE} pixels, got {value}")
        if not (0 < self.fps <= 1000 and self.seconds > 0):
            raise ValueError(f"fps, seconds: expected positive numbers, got {self.fps:g} and {self.seconds:g}")
        if not self.fps * self.seconds <= MAX_FRAMES:
            raise ValueError(f"seconds: expected at most {MAX_FRAMES} frames, got {self.fps * self.seconds:g}")


@dataclass(frozen=True)
class Itinerary:
    """Views to render.

    Attributes:
        path: Its name, never auto.
        cameras: In order.
    """

    path: str
    cameras: Cameras


def plan(wish: Wish, points: ScenePoints, capture: Capture | None, up: tuple[float, float, float] | None) -> Itinerary:
    """Choose the views.

    Args:
        wish: What to film.
        points: Of the scene, where there is no capture to learn the surround from.
        capture: Its capture.
        up: What the scene itself says is up.

    Raises:
        ValueError: the path needs a capture, or the capture has no such views.
    """
    if capture is None:
        return _plan_bare(wish, points, up)
    if wish.path in DATASET_PATHS:
        chosen = {"train": capture.train, "test": capture.test}.get(wish.path, tuple(range(len(capture))))
        if not chosen:
            raise ValueError(f"path: the capture has no {wish.path} views. Choose another path, or --test-every 8")
        return Itinerary(wish.path, fit_size(capture.cameras.select(chosen), wish.width, wish.height))
    views = capture.cameras.select(capture.train or tuple(range(len(capture))))
    around = surround.from_cameras(views, wish.up or up)
    shot = _shot(wish, _typical_size(views))
    name = wish.path
    if name == "auto":
        name = "orbit" if around.arc_deg >= ALL_AROUND_DEG else "flight"
    if name == "orbit":
        return Itinerary(name, paths.orbit(around, shot, wish.elevation_deg))
    if name == "ellipse":
        return Itinerary(name, paths.ellipse(views, around, shot))
    if name == "spiral":
        return Itinerary(name, paths.spiral(views, around, shot))
    return Itinerary(name, paths.through(views, shot))


def fit_size(cameras: Cameras, width: int | None, height: int | None) -> Cameras:
    """The same views at the width or height asked for; where both are given the image may be stretched no further
    than by rounding: views are cropped or extended around their centre instead.
    """
    if width is None and height is None:
        return cameras
    if width is not None and height is not None:
        return _reframed(cameras, width, height)
    sizes = cameras.sizes.double()
    ratio = width / sizes[:, :1] if width is not None else (height or 1) / sizes[:, 1:]
    return cameras.resized((sizes * ratio).round().long().clamp(1, MAX_SIDE))


def _plan_bare(wish: Wish, points: ScenePoints, up: tuple[float, float, float] | None) -> Itinerary:
    if wish.path not in ("auto", "orbit"):
        raise ValueError(f"path: {wish.path} needs the cameras of a capture. Add --capture FOLDER, or use --path orbit")
    around = surround.from_points(points, wish.up or up)
    return Itinerary("orbit", paths.orbit(around, _shot(wish, BARE_SIZE), wish.elevation_deg))


def _shot(wish: Wish, size: tuple[int, int]) -> Shot:
    width, height = wish.width, wish.height
    if width is None and height is None:
        width, height = size
    elif width is None:
        width = max(1, round((height or 1) * size[0] / size[1]))
    elif height is None:
        height = max(1, round(width * size[1] / size[0]))
    assert height is not None
    return Shot(min(width, MAX_SIDE), min(height, MAX_SIDE), max(1, round(wish.seconds * wish.fps)))


def _typical_size(views: Cameras) -> tuple[int, int]:
    width, height = views.sizes.median(dim=0).values.tolist()
    return int(width), int(height)


def _reframed(cameras: Cameras, width: int, height: int) -> Cameras:
    sizes = cameras.sizes.double()
    wanted = torch.tensor([width, height], dtype=torch.float64)
    # The area of the image is kept, so that the subject fills about as much of it.
    scale = (math.sqrt(width * height) / sizes.prod(dim=1).sqrt()).to(cameras.Ks.dtype)
    Ks = cameras.Ks.clone()
    Ks[:, :2] *= scale[:, None, None]
    shift = (wanted / 2 - sizes / 2 * scale.double()[:, None]).to(Ks.dtype)
    Ks[:, :2, 2] += shift
    return Cameras(cameras.viewmats, Ks, wanted.long().repeat(len(cameras), 1), cameras.names)
