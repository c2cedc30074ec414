"""COLMAP's sparse models: cameras, images and points3D, binary and text, read and written.

Only what a capture needs is kept: keypoints and tracks are skipped when reading and written as empty. The files
rigs and frames of newer versions repeat the poses and are ignored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scene3d.core.errors import FormatError
from scene3d.io.atomic import write_bytes, write_text
from scene3d.io.binary import ByteReader, load_bytes

# Names by number, and how many parameters each model has.
MODELS = (
    *(("SIMPLE_PINHOLE", 3), ("PINHOLE", 4), ("SIMPLE_RADIAL", 4), ("RADIAL", 5), ("OPENCV", 8)),
    *(("OPENCV_FISHEYE", 8), ("FULL_OPENCV", 12), ("FOV", 5), ("SIMPLE_RADIAL_FISHEYE", 4)),
    *(("RADIAL_FISHEYE", 5), ("THIN_PRISM_FISHEYE", 12), ("RAD_TAN_THIN_PRISM_FISHEYE", 16)),
)
PARAM_COUNTS = dict(MODELS)
FILES = ("cameras", "images", "points3D")


@dataclass(frozen=True)
class ColmapCamera:
    """A camera: model name, size in pixels, parameters in COLMAP's order."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]


@dataclass(frozen=True)
class ColmapImage:
    """A registered photo: file name, camera, cam_from_world as quaternion wxyz and translation."""

    name: str
    camera_id: int
    quat: tuple[float, float, float, float]
    translation: tuple[float, float, float]


@dataclass(frozen=True)
class ColmapModel:
    """A sparse model.

    Attributes:
        cameras: By camera id.
        images: By image id.
        points: World. [P, 3] float64
        colors: [P, 3] uint8
        errors: Mean reprojection error, pixels. [P] float64
    """

    cameras: dict[int, ColmapCamera]
    images: dict[int, ColmapImage]
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    colors: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.uint8))
    errors: np.ndarray = field(default_factory=lambda: np.zeros(0))


def has_model(folder: Path) -> bool:
    """Whether the folder holds a sparse model, binary or text; points3D may be missing."""
    return any((folder / f"cameras{s}").is_file() and (folder / f"images{s}").is_file() for s in (".bin", ".txt"))


def read_model(folder: Path) -> ColmapModel:
    """Read a sparse model, binary where both are there.

    Raises:
        FormatError: a file is missing, truncated or holds something else.
    """
    suffix = ".bin" if (folder / "images.bin").is_file() and (folder / "cameras.bin").is_file() else ".txt"
    cameras_path, images_path, points_path = (folder / f"{name}{suffix}" for name in FILES)
    read_cameras, read_images, read_points = READERS[suffix]
    cameras, images = read_cameras(cameras_path), read_images(images_path)
    for image in images.values():
        if image.camera_id not in cameras:
            raise FormatError(images_path, f"image {image.name!r} has camera {image.camera_id}, which is not there")
    if not points_path.is_file():
        return ColmapModel(cameras, images)
    return ColmapModel(cameras, images, *read_points(points_path))


def count_images(folder: Path) -> int:
    """Number of registered photos of the model in `folder`."""
    path = folder / "images.bin"
    if path.is_file():
        return ByteReader(path, load_bytes(path)).count(64, "images")
    return len(_read_images_txt(folder / "images.txt"))


def write_model(model: ColmapModel, folder: Path, text: bool = False) -> None:
    """Write a sparse model into `folder`, binary or text.

    Raises:
        OutputError: the files cannot be written.
    """
    if text:
        write_text(folder / "cameras.txt", _cameras_text(model))
        write_text(folder / "images.txt", _images_text(model))
        write_text(folder / "points3D.txt", _points_text(model))
        return
    write_bytes(folder / "cameras.bin", _cameras_bytes(model))
    write_bytes(folder / "images.bin", _images_bytes(model))
    write_bytes(folder / "points3D.bin", _points_bytes(model))


def _read_cameras_bin(path: Path) -> dict[int, ColmapCamera]:
    reader = ByteReader(path, load_bytes(path))
    cameras = {}
    for _ in range(reader.count(24, "cameras")):
        start = reader.offset
        camera_id, model_id, width, height = reader.fields("IiQQ", "a camera")
        if not 0 <= model_id < len(MODELS):
            raise FormatError(path, f"unknown camera model number {model_id}", start)
        model, n_params = MODELS[model_id]
        cameras[camera_id] = _camera(path, model, width, height, reader.fields(f"{n_params}d", "a camera"), start)
    return cameras


def _read_images_bin(path: Path) -> dict[int, ColmapImage]:
    reader = ByteReader(path, load_bytes(path))
    images = {}
    for _ in range(reader.count(73, "images")):
        image_id, *pose, camera_id = reader.fields("I7dI", "an image")
        name = reader.c_string("an image name")
        n_keypoints = reader.count(24, "keypoints")
        reader.need(24 * n_keypoints, "keypoints")
        reader.offset += 24 * n_keypoints
        images[image_id] = _image(name, camera_id, pose)
    return images


def _read_points_bin(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    reader = ByteReader(path, load_bytes(path))
    record = struct.Struct("<Q3d3BdQ")
    n_points = reader.count(record.size, "points")
    points, colors, errors = np.zeros((n_points, 3)), np.zeros((n_points, 3), np.uint8), np.zeros(n_points)
    for i in range(n_points):
        reader.need(record.size, "a point")
        _, x, y, z, red, green, blue, errors[i], n_track = record.unpack_from(reader.data, reader.offset)
        points[i] = x, y, z
        colors[i] = red, green, blue
        reader.offset += record.size
        reader.need(8 * n_track, "the track of a point")
        reader.offset += 8 * n_track
    return points, colors, errors


def _read_cameras_txt(path: Path) -> dict[int, ColmapCamera]:
    cameras = {}
    for number, line in _lines(path):
        words = line.split()
        if not words:
            continue
        try:
            camera_id, model, width, height = int(words[0]), words[1], int(words[2]), int(words[3])
            params = tuple(float(word) for word in words[4:])
        except (ValueError, IndexError) as error:
            problem = f"line {number}: expected CAMERA_ID MODEL WIDTH HEIGHT PARAMS, got {line[:60]!r}"
            raise FormatError(path, problem) from error
        cameras[camera_id] = _camera(path, model, width, height, params, None)
    return cameras


def _read_images_txt(path: Path) -> dict[int, ColmapImage]:
    images = {}
    lines = _lines(path)
    for number, line in lines:
        words = line.split(maxsplit=9)
        if not words:
            continue
        try:
            image_id, camera_id, name = int(words[0]), int(words[8]), words[9].strip()
            images[image_id] = _image(name, camera_id, [float(word) for word in words[1:8]])
        except (ValueError, IndexError) as error:
            problem = f"line {number}: expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, got {line[:60]!r}"
            raise FormatError(path, problem) from error
        next(lines, None)  # The line of keypoints, which may be empty.
    return images


def _read_points_txt(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = []
    for number, line in _lines(path):
        words = line.split(maxsplit=8)
        if not words:
            continue
        try:
            values = [float(word) for word in words[1:8]]
            if len(values) != 7 or not all(0 <= value <= 255 for value in values[3:6]):
                raise ValueError(line)
        except ValueError as error:
            problem = f"line {number}: expected POINT3D_ID X Y Z R G B ERROR TRACK, got {line[:60]!r}"
            raise FormatError(path, problem) from error
        rows.append(values)
    table = np.array(rows).reshape(-1, 7)
    return table[:, :3], table[:, 3:6].astype(np.uint8), table[:, 6]


READERS = {
    ".bin": (_read_cameras_bin, _read_images_bin, _read_points_bin),
    ".txt": (_read_cameras_txt, _read_images_txt, _read_points_txt),
}


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    text = load_bytes(path).decode("utf-8", errors="surrogateescape")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.startswith("#"):
            yield number, line


def _camera(
    path: Path, model: str, width: int, height: int, params: tuple[float, ...], offset: int | None
) -> ColmapCamera:
    if model not in PARAM_COUNTS:
        raise FormatError(path, f"unknown camera model {model!r}", offset)
    if len(params) != PARAM_COUNTS[model]:
        raise FormatError(path, f"{model}: expected {PARAM_COUNTS[model]} parameters, got {len(params)}", offset)
    if not (0 < width < 1 << 20 and 0 < height < 1 << 20):
        raise FormatError(path, f"expected a camera of sensible size, got {width}x{height} pixels", offset)
    if not np.isfinite(params).all():
        raise FormatError(path, f"{model}: expected finite parameters, got {params}", offset)
    return ColmapCamera(model, int(width), int(height), tuple(float(value) for value in params))


def _image(name: str, camera_id: int, pose: list[float]) -> ColmapImage:
    w, x, y, z, tx, ty, tz = pose
    return ColmapImage(name, camera_id, (w, x, y, z), (tx, ty, tz))


def _cameras_bytes(model: ColmapModel) -> bytes:
    numbers = {name: number for number, (name, _) in enumerate(MODELS)}
    parts = [struct.pack("<Q", len(model.cameras))]
    for camera_id, camera in model.cameras.items():
        parts.append(struct.pack("<IiQQ", camera_id, numbers[camera.model], camera.width, camera.height))
        parts.append(struct.pack(f"<{len(camera.params)}d", *camera.params))
    return b"".join(parts)


def _images_bytes(model: ColmapModel) -> bytes:
    parts = [struct.pack("<Q", len(model.images))]
    for image_id, image in model.images.items():
        parts.append(struct.pack("<I7dI", image_id, *image.quat, *image.translation, image.camera_id))
        parts.append(image.name.encode("utf-8", errors="surrogateescape") + b"\0" + struct.pack("<Q", 0))
    return b"".join(parts)


def _points_bytes(model: ColmapModel) -> bytes:
    layout = [("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("n_track", "<u8")]
    rows = np.zeros(len(model.points), np.dtype(layout))
    rows["id"] = np.arange(1, len(rows) + 1)
    rows["xyz"], rows["rgb"], rows["error"] = model.points, model.colors, model.errors
    return struct.pack("<Q", len(rows)) + rows.tobytes()


def _cameras_text(model: ColmapModel) -> str:
    lines = ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"]
    for camera_id, camera in model.cameras.items():
        lines.append(f"{camera_id} {camera.model} {camera.width} {camera.height} {_numbers(camera.params)}")
    return "\n".join(lines) + "\n"


def _images_text(model: ColmapModel) -> str:
    lines = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME; then X, Y, POINT3D_ID of keypoints"]
    for image_id, image in model.images.items():
        lines.append(f"{image_id} {_numbers(image.quat + image.translation)} {image.camera_id} {image.name}")
        lines.append("")
    return "\n".join(lines) + "\n"


def _points_text(model: ColmapModel) -> str:
    lines = ["# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[]"]
    for i, (point, color, error) in enumerate(zip(model.points, model.colors, model.errors, strict=True), start=1):
        lines.append(f"{i} {_numbers(point)} {' '.join(map(str, color.tolist()))} {float(error)!r}")
    return "\n".join(lines) + "\n"


def _numbers(values: tuple[float, ...] | np.ndarray) -> str:
    return " ".join(repr(float(value)) for value in values)
