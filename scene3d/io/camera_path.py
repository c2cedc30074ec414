"""Camera files made for rendering: nerfstudio's camera_path.json and the cameras.json that splat trainers write.

camera_path.json: camera_to_world with OpenGL axes (row-major 4x4), vertical fov in degrees.
cameras.json: position and camera-to-world rotation with OpenCV axes, fx, fy, width, height.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture
from scene3d.core.errors import FormatError
from scene3d.io.json_fields import is_finite_number

OPENCV_FROM_OPENGL = (1.0, -1.0, -1.0, 1.0)
DEFAULT_SIZE = (1280, 720)
# Larger images than this are a mistake or an attack, not a video.
MAX_SIDE = 16384
# float cannot hold all whole numbers of JSON.
MAX_NUMBER = 1e300
CAMERAS_NAME = "cameras.json"


def read_cameras(path: Path) -> Cameras:
    """Read the views of a camera_path.json or a cameras.json.

    Raises:
        FormatError: the file is neither, or holds a pose or size that is none.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(path, f"cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(path, f"is not JSON: {error}") from error
    if isinstance(data, dict) and isinstance(data.get("camera_path"), list):
        width, height = (_number(path, data, key, size) for key, size in _SIZE_KEYS)
        return _read_entries(path, data["camera_path"], lambda entry: _path_view(path, entry, width, height))
    if isinstance(data, list):
        return _read_entries(path, data, lambda entry: _list_view(path, entry))
    remedy = "Give a camera_path.json (with a list camera_path) or a cameras.json (a list of cameras)."
    raise FormatError(path, "holds no cameras", remedy=remedy)


def camera_path_json(cameras: Cameras, fps: float) -> str:
    """The text of a camera_path.json: views of one size, looking along the middle of their images.

    Raises:
        ValueError: no views, or of different sizes.
    """
    if len(cameras) == 0 or bool((cameras.sizes != cameras.sizes[0]).any()):
        raise ValueError(f"cameras: expected views of one size, got {cameras.sizes.unique(dim=0).tolist()}")
    width, height = cameras.width(), cameras.height()
    opengl = torch.diag(torch.tensor(OPENCV_FROM_OPENGL, dtype=torch.float64))
    entries = []
    for viewmat, K in zip(cameras.viewmats.double(), cameras.Ks.double(), strict=True):
        entries.append(
            {
                "camera_to_world": (torch.linalg.inv(viewmat) @ opengl).reshape(-1).tolist(),
                "fov": math.degrees(2 * math.atan(height / 2 / float(K[1, 1]))),
                "aspect": width / height,
            }
        )
    path = {
        "camera_type": "perspective",
        "render_width": width,
        "render_height": height,
        "fps": fps,
        "seconds": len(entries) / fps,
        "camera_path": entries,
    }
    return json.dumps(path, indent=2, allow_nan=False) + "\n"


def cameras_json(cameras: Cameras) -> str:
    """The text of a cameras.json; cx and cy are ours, readers that do not know them take the middle of the image."""
    entries = []
    for i, (viewmat, K) in enumerate(zip(cameras.viewmats.double(), cameras.Ks.double(), strict=True)):
        rotation = viewmat[:3, :3].T
        entries.append(
            {
                "id": i,
                "img_name": cameras.names[i],
                "width": cameras.width(i),
                "height": cameras.height(i),
                "position": (-rotation @ viewmat[:3, 3]).tolist(),
                "rotation": rotation.tolist(),
                "fx": float(K[0, 0]),
                "fy": float(K[1, 1]),
                "cx": float(K[0, 2]),
                "cy": float(K[1, 2]),
            }
        )
    return json.dumps(entries, allow_nan=False) + "\n"


def find_cameras(scene: Path) -> Path | None:
    """The cameras.json that a trainer left beside a scene file or in one of the three folders above it."""
    for folder in scene.resolve().parents[:4]:
        if (folder / CAMERAS_NAME).is_file():
            return folder / CAMERAS_NAME
    return None


def views_of(scene: Path, capture: Capture | None) -> Cameras | None:
    """Where the photos of a scene were taken: by its capture, else by the cameras.json found near its file, if any.

    Raises:
        FormatError: the cameras.json is damaged.
    """
    if capture is not None:
        return capture.cameras.select(capture.train or tuple(range(len(capture))))
    found = find_cameras(scene)
    return None if found is None else read_cameras(found)


_SIZE_KEYS = (("render_width", DEFAULT_SIZE[0]), ("render_height", DEFAULT_SIZE[1]))
_View = tuple[Tensor, tuple[float, float, float, float], float, float, str]


def _read_entries(path: Path, entries: list[Any], parse: Callable[[dict[str, Any]], _View]) -> Cameras:
    views = []
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise FormatError(path, f"camera {i}: expected an object, got {type(entry).__name__}")
        try:
            views.append(parse(entry))
        except ValueError as error:
            raise FormatError(path, f"camera {i}: {error}") from error
    if not views:
        raise FormatError(path, "lists no cameras", remedy="Add at least one view and export the file again.")
    Ks, sizes = [], []
    for _, (fx, fy, cx, cy), width, height, _ in views:
        Ks.append([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        sizes.append([int(width), int(height)])
    names = tuple(view[4] or f"{i:05d}" for i, view in enumerate(views))
    return Cameras(torch.stack([view[0] for view in views]), torch.tensor(Ks), torch.tensor(sizes), names)


def _path_view(path: Path, entry: dict[str, Any], width: float, height: float) -> _View:
    _check_size(width, height)
    world_from_gl = _matrix(entry.get("camera_to_world"), 16).reshape(4, 4)
    fov_deg = _number(path, entry, "fov", 50.0)
    if not 0 < fov_deg < 180:
        raise ValueError(f"fov: expected degrees between 0 and 180, got {fov_deg:g}")
    focal = height / 2 / math.tan(math.radians(fov_deg) / 2)
    world_from_cam = world_from_gl @ torch.diag(torch.tensor(OPENCV_FROM_OPENGL, dtype=torch.float64))
    return (
        _invert(world_from_cam[:3, :3], world_from_cam[:3, 3]),
        (focal, focal, width / 2, height / 2),
        width,
        height,
        "",
    )


def _list_view(path: Path, entry: dict[str, Any]) -> _View:
    width, height = (_number(path, entry, key, math.nan) for key in ("width", "height"))
    _check_size(width, height)
    focal = (_number(path, entry, "fx", math.nan), _number(path, entry, "fy", math.nan))
    if not all(0 < value < math.inf for value in focal):
        raise ValueError(f"fx, fy: expected positive pixels, got {focal[0]} and {focal[1]}")
    middle = (_number(path, entry, "cx", width / 2), _number(path, entry, "cy", height / 2))
    if not all(math.isfinite(value) for value in middle):
        raise ValueError(f"cx, cy: expected pixels, got {middle[0]} and {middle[1]}")
    rotation = _matrix(entry.get("rotation"), 9).reshape(3, 3)
    center = _matrix(entry.get("position"), 3)
    return _invert(rotation, center), focal + middle, width, height, str(entry.get("img_name", ""))


def _invert(rotation: Tensor, center: Tensor) -> Tensor:  # world_from_cam [3, 3], [3] -> cam_from_world [4, 4]
    lengths = rotation.norm(dim=0)
    # Exporters scale the whole scene now and then: directions are what counts.
    rotation = rotation / lengths
    is_rotation = torch.allclose(rotation.T @ rotation, torch.eye(3, dtype=rotation.dtype), atol=1e-3)
    if not is_rotation or float(torch.linalg.det(rotation)) < 0:
        raise ValueError("pose: expected a rotation, got a matrix whose axes are not perpendicular or mirrored")
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, :3] = rotation.T
    viewmat[:3, 3] = -rotation.T @ center
    return viewmat.float()


def _matrix(value: Any, count: int) -> Tensor:
    flat = value
    while isinstance(flat, list) and flat and isinstance(flat[0], list):
        flat = [number for row in flat if isinstance(row, list) for number in row]
    is_numbers = isinstance(flat, list) and len(flat) == count and all(is_finite_number(number) for number in flat)
    if not is_numbers:
        raise ValueError(f"pose: expected {count} finite numbers, got {str(value)[:60]}")
    return torch.tensor([float(number) for number in flat], dtype=torch.float64)


def _number(path: Path, entry: dict[str, Any], key: str, default: float) -> float:
    value = entry.get(key, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or (isinstance(value, int) and abs(value) > MAX_NUMBER):
        raise FormatError(path, f"{key}: expected a number, got {str(value)[:60]}")
    return float(value)


def _check_size(width: float, height: float) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ValueError(f"size: expected 1 to {MAX_SIDE} pixels, got {width:g} x {height:g}")
