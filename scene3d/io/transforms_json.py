"""Captures as JSON: nerfstudio's transforms.json and Blender's transforms_{train,val,test}.json.

Poses in these files are world-from-camera with OpenGL axes (x right, y up, z backwards); they become
cam-from-world with OpenCV axes here and nowhere else. The world frame is that of the file: `applied_transform` only
records how the file's frame came from COLMAP's, and is used for nothing but to bring COLMAP's points into it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.errors import CaptureError, FormatError
from scene3d.io.atomic import write_json
from scene3d.io.binary import is_file, load_bytes
from scene3d.io.colmap import find_models
from scene3d.io.colmap_model import read_model
from scene3d.io.json_fields import is_finite_number
from scene3d.io.ply import read_points_ply, write_points_ply
from scene3d.io.posed_views import PosedView, PosedViews, names_text, rigid
from scene3d.ops.lens import COLMAP_PARAMS, Lens

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG", ".webp", ".tif", ".tiff", ".bmp")
# OpenGL and OpenCV cameras differ by half a turn about x.
OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
SPLIT_LISTS = (("train", "train_filenames"), ("test", "test_filenames"), ("val", "val_filenames"))
MAX_SIZE = 1 << 20
MILLIMETRE = 0.001


def read_transforms(path: Path) -> PosedViews:
    """Read one transforms.json.

    Raises:
        FormatError: no JSON, or not of this kind.
        CaptureError: no photo with a pose is left, or a lens is not supported.
    """
    data = _load(path)
    found = _read_frames(path, data, "")
    splits = {name: split for split, key in SPLIT_LISTS for name in _names(data.get(key))}
    views = tuple(_with_split(view, splits.get(view.name, "")) for view in found.views) if splits else found.views
    points, colors, notices = _read_points(path, data)
    return PosedViews(views, points, colors, (*found.notices, *notices))


def read_blender(folder: Path) -> PosedViews:
    """Read transforms_train.json with transforms_test.json beside it, or transforms_val.json where there is no test.

    Raises:
        FormatError: no JSON, or not of this kind.
        CaptureError: no photo with a pose is left.
    """
    held_out = next((n for n in ("test", "val") if (folder / f"transforms_{n}.json").is_file()), None)
    train_path = folder / "transforms_train.json"
    data = _load(train_path)
    parts = [_read_frames(train_path, data, "train")]
    if held_out is not None:
        path = folder / f"transforms_{held_out}.json"
        parts.append(_read_frames(path, _load(path), "test"))
    points, colors, notices = _read_points(train_path, data)
    all_notices = [notice for part in parts for notice in part.notices]
    if held_out == "test" and (folder / "transforms_val.json").is_file():
        all_notices.append("transforms_val.json is not used: transforms_test.json holds the test views")
    views = tuple(view for part in parts for view in part.views)
    return PosedViews(views, points, colors, (*all_notices, *notices))


def write_transforms_json(
    cameras: Cameras,
    path: Path,
    file_paths: Sequence[str] = (),
    points: Tensor | None = None,
    point_colors: Tensor | None = None,
) -> None:
    """Write pinhole cameras as transforms.json, points beside it as sparse_pc.ply.

    Args:
        cameras: The views.
        path: Of the JSON file.
        file_paths: Photos relative to the file's folder, one a view; the cameras' names by default.
        points: In the world of the cameras. [P, 3]
        point_colors: sRGB. [P, 3] uint8

    Raises:
        OutputError: a file cannot be written.
    """
    frames = []
    world_from_cam = torch.linalg.inv(cameras.viewmats.to(torch.float64)).numpy() @ OPENCV_FROM_OPENGL
    for i, name in enumerate(file_paths or cameras.names):
        K = cameras.Ks[i].tolist()
        frame = {"file_path": str(name), "w": cameras.width(i), "h": cameras.height(i)}
        frame |= {"fl_x": K[0][0], "fl_y": K[1][1], "cx": K[0][2], "cy": K[1][2]}
        frames.append(frame | {"transform_matrix": world_from_cam[i].tolist()})
    data: dict[str, Any] = {"camera_model": "PINHOLE"}
    if points is not None and len(points):
        colors = point_colors if point_colors is not None else torch.full_like(points, 128, dtype=torch.uint8)
        write_points_ply(points, colors, path.parent / "sparse_pc.ply")
        data["ply_file_path"] = "sparse_pc.ply"
    write_json(path, data | {"frames": frames})


def _load(path: Path) -> dict[str, Any]:
    text = load_bytes(path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(path, f"is no valid JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("frames"), list):
        raise FormatError(path, "expected an object with a list 'frames'")
    if not all(isinstance(frame, dict) for frame in data["frames"]):
        raise FormatError(path, "expected every entry of 'frames' to be an object")
    return data


def _read_frames(path: Path, data: dict[str, Any], split: str) -> PosedViews:
    views, missing, broken, skewed = [], [], [], []
    for number, frame in enumerate(data["frames"]):
        name = frame.get("file_path")
        if not isinstance(name, str) or not name:
            raise FormatError(path, f"frame {number}: expected a file_path, got {str(name)[:60]!r}")
        image_path = _find_image(path.parent, name)
        pose = _cam_from_world(frame.get("transform_matrix"))
        if image_path is None:
            missing.append(name)
        elif pose is None:
            broken.append(name)
        else:
            skewed += [name] if pose[1] else []
            views.append(_view(path, {**data, **frame}, image_path, pose[0], split))
    notices = []
    if missing:
        notices.append(f"{path.name} names {len(missing)} photos that are not there: {names_text(missing)}")
    if broken:
        notices.append(f"{len(broken)} photos have no valid pose (NaN, mirrored, no 4x4): {names_text(broken)}")
    if skewed:
        notices.append(f"{len(skewed)} poses hold a scale or shear, which was taken out: {names_text(skewed)}")
    times = {frame["time"] for frame in data["frames"] if is_finite_number(frame.get("time"))}
    if len(times) > 1 and split != "test":
        notices.append(f"{path.name} is of {len(times)} instants: what moves will blur, a scene stands still here")
    if not views:
        detail = f"; {'; '.join(notices)}" if notices else ""
        problem = f"none of the {len(data['frames'])} frames can be used{detail}"
        raise CaptureError(path, problem, "Check file_path and transform_matrix of the frames.")
    return PosedViews(tuple(views), notices=tuple(notices))


def _find_image(folder: Path, name: str) -> Path | None:
    path = folder / name.replace("\\", "/")
    if is_file(path):
        return path
    candidates = (path.with_name(path.name + suffix) for suffix in IMAGE_SUFFIXES)
    return next((candidate for candidate in candidates if is_file(candidate)), None)


def _cam_from_world(matrix: Any) -> tuple[np.ndarray, bool] | None:
    world_from_cam = _matrix(matrix)
    found = rigid(world_from_cam) if world_from_cam is not None else None
    if found is None:
        return None
    return np.linalg.inv(found[0] @ OPENCV_FROM_OPENGL), found[1]


def _matrix(value: Any) -> np.ndarray | None:  # [4, 4]
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if matrix.shape == (3, 4):
        matrix = np.vstack([matrix, [0, 0, 0, 1]])
    return matrix if matrix.shape == (4, 4) else None


def _view(path: Path, values: dict[str, Any], image_path: Path, pose: np.ndarray, split: str) -> PosedView:
    name = str(values["file_path"]).replace("\\", "/").removeprefix("./")
    fx = _number(path, values, "fl_x", 0.0)
    angle_x = _number(path, values, "camera_angle_x", 0.0)
    if fx <= 0 and not 0 < angle_x < math.pi:
        raise CaptureError(path, f"{name} has no focal length", "Give fl_x (pixels) or camera_angle_x (radians).")
    width, height = (_number(path, values, key, 0.0) for key in ("w", "h"))
    if not (0 <= width < MAX_SIZE and 0 <= height < MAX_SIZE):
        raise FormatError(path, f"{name}: expected a sensible size w x h, got {width:g} x {height:g}")
    focal = (fx, _number(path, values, "fl_y", fx)) if fx > 0 else None
    center = (_number(path, values, "cx", 0.0), _number(path, values, "cy", 0.0)) if "cx" in values else None
    size = (round(width), round(height)) if width and height else None
    mask = values.get("mask_path")
    mask_path = path.parent / mask if isinstance(mask, str) and is_file(path.parent / mask) else None
    lens = _lens(path, values)
    depth = _depth(path, values)
    return PosedView(name, image_path, lens, focal, center, size, pose, angle_x, mask_path, split, depth)


def _depth(path: Path, values: dict[str, Any]) -> tuple[Path, float] | None:
    """The depth map of a frame, as nerfstudio names it: millimetres where the file does not say otherwise."""
    name = values.get("depth_file_path")
    if not isinstance(name, str) or not is_file(path.parent / name):
        return None
    unit = _number(path, values, "depth_unit_scale_factor", MILLIMETRE)
    if not unit > 0:
        raise FormatError(path, f"depth_unit_scale_factor: expected more than 0, got {unit:g}")
    return path.parent / name, unit


def _lens(path: Path, values: dict[str, Any]) -> Lens:
    model = str(values.get("camera_model", "OPENCV"))
    if model not in COLMAP_PARAMS:
        remedy = f"Use one of {', '.join(COLMAP_PARAMS)}."
        raise CaptureError(path, f"camera model {model} is not supported", remedy)
    is_fisheye = model.endswith("FISHEYE") or values.get("is_fisheye") is True
    if model.endswith("PINHOLE") and not is_fisheye:
        return Lens()
    radial = tuple(_number(path, values, key, 0.0) for key in ("k1", "k2", "k3", "k4"))
    if is_fisheye:
        return Lens(True, radial)
    return Lens(False, radial, (_number(path, values, "p1", 0.0), _number(path, values, "p2", 0.0)))


def _number(path: Path, values: dict[str, Any], key: str, default: float) -> float:
    value = values.get(key, default)
    if not is_finite_number(value):
        raise FormatError(path, f"{key}: expected a finite number, got {str(value)[:40]!r}")
    return float(value)


def _names(value: Any) -> list[str]:
    return [str(name).replace("\\", "/").removeprefix("./") for name in value] if isinstance(value, list) else []


def _with_split(view: PosedView, split: str) -> PosedView:
    # Views in no list are left to neither side; a validation view is as held out as a test view.
    values = {**vars(view), "split": "test" if split == "val" else split or "unused"}
    return PosedView(**values)


def _read_points(path: Path, data: dict[str, Any]) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    none = torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.uint8)
    name = data.get("ply_file_path")
    if isinstance(name, str) and name:
        if is_file(path.parent / name):
            return *read_points_ply(path.parent / name), ()
        return *none, (f"{path.name} names the points {name}, which are not there",)
    models = find_models(path.parent)
    transform = _matrix(data.get("applied_transform"))
    if not models or transform is None:
        return *none, ()
    model = read_model(models[0])
    points = (model.points @ transform[:3, :3].T + transform[:3, 3]).astype(np.float32)
    is_finite = np.isfinite(points).all(axis=1)
    return torch.from_numpy(points[is_finite]), torch.from_numpy(model.colors[is_finite]), ()
