"""Captures from disk: finds out the format, checks the photos, undoes the lenses, splits train from test."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture
from scene3d.core.errors import CaptureError
from scene3d.io.colmap import find_models, read_colmap
from scene3d.io.depth_maps import load_depth
from scene3d.io.images import MIN_INDEX_FACTOR, TURNED, ImageHeader, PhotoPlan, load_photo, read_image_header
from scene3d.io.photo_cache import PhotoCache
from scene3d.io.posed_views import PosedView, PosedViews
from scene3d.io.transforms_json import IMAGE_SUFFIXES, read_blender, read_transforms
from scene3d.ops.undistort import LensView, lens_view

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
PHOTO_FOLDERS = ("images", "input", "rgb", ".")
MIN_VIEWS = 2
# Rounding of places, in pixels as cameras see the middle of the scene: from here on it is told, beyond this refused.
NOTED_ROUNDING, MOST_ROUNDING = 0.05, 0.5


@dataclass(frozen=True)
class CaptureOptions:
    """How a capture is read.

    Attributes:
        data_factor: Photos are reduced by this whole number; None for 1.
        max_size: Longer side at most, pixels, after data_factor; None for no limit.
        test_every: Every n-th photo by name, from the first, is held out; 0 for none. Given splits are kept.
        masks: Use masks/ and mask_path.
        cache_bytes: Memory for decoded photos.
    """

    data_factor: int | None = None
    max_size: int | None = None
    test_every: int = 8
    masks: bool = True
    cache_bytes: int = 512 << 20

    def __post_init__(self) -> None:
        if self.data_factor is not None and self.data_factor < 1:
            raise ValueError(f"data_factor: expected 1 or more, got {self.data_factor}")
        if self.max_size is not None and self.max_size < 16:
            raise ValueError(f"max_size: expected 16 or more, got {self.max_size}")
        if self.test_every < 0 or self.test_every == 1:
            raise ValueError(f"test_every: expected 0 (no test views) or 2 and more, got {self.test_every}")


def read_capture(path: Path, options: CaptureOptions = CaptureOptions()) -> Capture:
    """Read a COLMAP, transforms.json or Blender capture. Photos themselves are read when asked for.

    Args:
        path: Folder of the capture, or its transforms.json.
        options: How.

    Raises:
        CaptureError: nothing there, photos without poses, too few photos, a photo of the wrong size or damaged.
        FormatError: a file of the format is damaged.
    """
    posed = _read_posed(path)
    folder = path if path.is_dir() else path.parent
    views = sorted((view for view in posed.views if view.split != "unused"), key=lambda view: view.name)
    if len(views) < MIN_VIEWS:
        raise CaptureError(path, f"expected at least {MIN_VIEWS} posed photos, got {len(views)}", "Take more photos.")
    headers = [read_image_header(view.image_path) for view in views]
    fitted = [_fit_to_photo(view, header) for view, header in zip(views, headers, strict=True)]
    masks = [_find_mask(folder, view) if options.masks else None for view in views]
    plans = [_plan(view, mask, options) for view, mask in zip(fitted, masks, strict=True)]
    train, test = _split(views, options.test_every)
    if not train:
        raise CaptureError(path, f"all {len(test)} photos are test views", "Check the split files.")
    cache = PhotoCache(lambda i: load_photo(plans[i]), options.cache_bytes)
    cameras = _cameras(fitted, plans)
    return Capture(
        cameras=cameras,
        load=cache.load,
        prefetch=cache.prefetch,
        load_depth=lambda i: _depth(views[i], plans[i]),
        points=posed.points,
        point_colors=posed.point_colors,
        train=train,
        test=test,
        source=path,
        has_alpha=any(header.has_alpha for header in headers),
        notices=(
            *posed.notices,
            *_size_notices(views, fitted),
            *_mask_notices(masks),
            *_origin_notices(path, views, cameras),
        ),
        protocol=_protocol(views, plans, options),
    )


def _origin_notices(path: Path, views: list[PosedView], cameras: Cameras) -> list[str]:
    """Scenes are kept in 32 bits: far from the origin of their frame, their details fall between two numbers."""
    poses = np.stack([view.cam_from_world for view in views])
    centers = -np.einsum("nji,nj->ni", poses[:, :3, :3], poses[:, :3, 3])
    middle = np.median(centers, axis=0)
    reach = float(np.linalg.norm(centers - middle, axis=1).max())
    if reach == 0:
        return []
    step = float(np.spacing(np.float32(np.abs(middle).max())))
    off = step / (reach / float(cameras.Ks[:, 0, 0].median()))
    if off < NOTED_ROUNDING:
        return []
    digits = 1 - math.floor(math.log10(reach))
    place = ", ".join(f"{round(value, digits):.10g}" for value in middle)
    problem = (
        f"cameras lie within {reach:.3g} of ({place}): there, rounding to 32 bits moves things by {off:.2g} pixels"
    )
    remedy = f"Subtract ({place}) from the positions of cameras and points"
    if off > MOST_ROUNDING:
        raise CaptureError(path, problem, remedy + ".")
    return [f"{problem}. {remedy}"]


def _depth(view: PosedView, plan: PhotoPlan) -> Tensor | None:
    return None if view.depth is None else load_depth(*view.depth, plan)


def find_photos(folder: Path) -> list[Path]:
    """Photos of a folder, or of images/ in it, by name; no folders further down."""
    for name in PHOTO_FOLDERS:
        base = folder / name
        photos = sorted(p for p in base.iterdir() if _is_photo(p)) if base.is_dir() else []
        if photos:
            return photos
    return []


def has_poses(path: Path) -> bool:
    """Whether read_capture finds a format with poses at `path`."""
    return _reader(path) is not None


def _reader(path: Path) -> Callable[[], PosedViews] | None:
    if path.is_file():
        return (lambda: read_transforms(path)) if path.suffix.lower() == ".json" else None
    if (path / "transforms_train.json").is_file():
        return lambda: read_blender(path)
    if (path / "transforms.json").is_file():
        return lambda: read_transforms(path / "transforms.json")
    return (lambda: read_colmap(path)) if path.is_dir() and find_models(path) else None


def _read_posed(path: Path) -> PosedViews:
    if not path.exists():
        raise CaptureError(path, "no such file or folder", "Check the path.")
    reader = _reader(path)
    if reader is not None:
        return reader()
    formats = "sparse/0 of COLMAP, transforms.json or transforms_train.json"
    if path.is_file():
        if path.suffix.lower() in VIDEO_SUFFIXES:
            raise CaptureError(path, "is a video without camera poses", f"Run: scene3d pose {path}")
        raise CaptureError(path, "is no capture", f"Give a folder with {formats}, or a transforms.json.")
    photos = find_photos(path)
    if not photos:
        raise CaptureError(path, f"holds no photos and no poses ({formats})", "Check the path.")
    if len(photos) == 1:
        problem = f"holds one photo, {photos[0].name}; a scene needs many that overlap"
        raise CaptureError(path, problem, "Take 20 or more around the subject.")
    problem = f"holds {len(photos)} photos but no camera poses ({formats})"
    raise CaptureError(path, problem, f"Run: scene3d pose {photos[0].parent}")


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not path.name.startswith(".")


def _find_mask(folder: Path, view: PosedView) -> Path | None:
    if view.mask_path is not None:
        return view.mask_path
    # Names are relative to images/ (COLMAP) or to the capture (transforms.json).
    name = Path(view.name.removeprefix("images/"))
    candidates = (name.with_suffix(".png"), name.with_name(f"{view.image_path.name}.png"), name)
    return next((folder / "masks" / c for c in candidates if (folder / "masks" / c).is_file()), None)


@dataclass(frozen=True)
class _FittedView:
    view: PosedView
    focal: tuple[float, float]
    center: tuple[float, float]
    size: tuple[int, int]
    is_turned: bool
    is_scaled: bool


def _fit_to_photo(view: PosedView, header: ImageHeader) -> _FittedView:
    """Intrinsics in pixels of the photo as it is on disk.

    Raises:
        CaptureError: its aspect ratio differs from that of the camera.
    """
    stored, turned = header.size, header.size[::-1]
    stated = view.size if view.size is not None else stored
    # A photo stored lying down is turned only where its camera stands upright: most tools ignore EXIF.
    can_turn = header.orientation in TURNED and not _is_same_aspect(stated, stored) and _is_same_aspect(stated, turned)
    size = turned if can_turn else stored
    if not _is_same_aspect(stated, size):
        problem = f"expected a photo of {stated[0]}x{stated[1]} pixels, got {size[0]}x{size[1]}"
        raise CaptureError(view.image_path, problem, "Use the photos that the poses were made from, or pose these.")
    fx = 0.5 * stated[0] / math.tan(0.5 * view.angle_x) if view.focal is None else view.focal[0]
    fy = fx if view.focal is None else view.focal[1]
    cx, cy = view.center if view.center is not None else (stated[0] / 2, stated[1] / 2)
    if not (fx > 0 and fy > 0):
        raise CaptureError(view.image_path, f"expected a positive focal length, got {fx:g}, {fy:g}", "Check the poses.")
    sx, sy = size[0] / stated[0], size[1] / stated[1]
    return _FittedView(view, (fx * sx, fy * sy), (cx * sx, cy * sy), size, can_turn, size != stated)


def _is_same_aspect(a: tuple[int, int], b: tuple[int, int]) -> bool:
    # Folders like images_4 round to whole pixels: one pixel of the smaller image is forgiven.
    small, large = sorted((a, b))
    return abs(large[0] * small[1] / large[1] - small[0]) <= 1 or abs(large[1] * small[0] / large[0] - small[1]) <= 1


# Most captures have one camera: its view is found once.
@lru_cache(maxsize=4096)
def _cached_lens_view(fitted: tuple, factor: int) -> LensView:
    lens, focal, center, size = fitted
    return lens_view(lens, focal, center, size, factor)


def _plan(fitted: _FittedView, mask: Path | None, options: CaptureOptions) -> PhotoPlan:
    view, factor = fitted.view, options.data_factor or 1
    limit = options.max_size or max(fitted.size)
    # A largest size is reached by whole blocks first, then by less than a factor of two of Lanczos.
    factor *= max(1, max(fitted.size) // (factor * limit))
    try:
        key = (view.lens, fitted.focal, fitted.center, fitted.size)
        cut = _cached_lens_view(key, factor)
    except ValueError as error:
        problem = f"no pixel of {fitted.size[0]}x{fitted.size[1]}, reduced {factor} times, is left: {error}"
        raise CaptureError(view.image_path, problem, "Use a smaller data factor or check the camera.") from error
    width, height = _reduced(cut, factor)
    ratio = min(1.0, limit / max(width, height))
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return PhotoPlan(view.image_path, mask, fitted.is_turned, fitted.size, cut, factor, size)


def _reduced(cut: LensView, factor: int) -> tuple[int, int]:
    return cut.width // factor, cut.height // factor


def _cameras(fitted: list[_FittedView], plans: list[PhotoPlan]) -> Cameras:
    Ks = torch.zeros(len(plans), 3, 3, dtype=torch.float64)
    for i, plan in enumerate(plans):
        cut = plan.view
        sx, sy = plan.size[0] / cut.width, plan.size[1] / cut.height
        Ks[i, 0, 0], Ks[i, 1, 1], Ks[i, 2, 2] = cut.fx * sx, cut.fy * sy, 1.0
        Ks[i, 0, 2], Ks[i, 1, 2] = (cut.cx - cut.x0) * sx, (cut.cy - cut.y0) * sy
    viewmats = torch.from_numpy(np.stack([item.view.cam_from_world for item in fitted]))
    sizes = torch.tensor([plan.size for plan in plans], dtype=torch.int64)
    names = tuple(item.view.name for item in fitted)
    return Cameras(viewmats.to(torch.float32), Ks.to(torch.float32), sizes, names)


def _split(views: list[PosedView], test_every: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if any(view.split for view in views):
        is_test = [view.split == "test" for view in views]
    else:
        is_test = [test_every > 0 and i % test_every == 0 for i in range(len(views))]
    return tuple(i for i, t in enumerate(is_test) if not t), tuple(i for i, t in enumerate(is_test) if t)


def _size_notices(views: list[PosedView], fitted: list[_FittedView]) -> list[str]:
    scaled = [item for item in fitted if item.is_scaled]
    turned = [item for item in fitted if item.is_turned]
    notices = [f"{len(turned)} photos were turned upright by their EXIF orientation"] if turned else []
    if scaled:
        first = scaled[0]
        stated = first.view.size or first.size
        sizes = f"{first.size[0]}x{first.size[1]} instead of {stated[0]}x{stated[1]}"
        notices.append(f"{len(scaled)} photos have another size than their camera ({sizes}): intrinsics were scaled")
    return notices


def _mask_notices(masks: list[Path | None]) -> list[str]:
    n_masks = sum(mask is not None for mask in masks)
    return [f"{len(masks) - n_masks} of {len(masks)} photos have no mask"] if 0 < n_masks < len(masks) else []


def _protocol(views: list[PosedView], plans: list[PhotoPlan], options: CaptureOptions) -> str:
    parts = ["8-bit sRGB"]
    if any(not view.lens.is_pinhole for view in views):
        how = "nearest pixel, dithered" if plans[0].factor >= MIN_INDEX_FACTOR else "bilinear"
        parts.append(f"lens undone at full size ({how}; same focal length, cropped to what was seen)")
    factors = sorted({plan.factor for plan in plans})
    if factors != [1]:
        parts.append(f"reduced {'/'.join(map(str, factors))} times by area mean")
    if any(plan.size != _reduced(plan.view, plan.factor) for plan in plans):
        parts.append(f"Lanczos to at most {options.max_size} pixels")
    sizes = sorted({plan.size for plan in plans})
    parts.append(f"{sizes[0][0]}x{sizes[0][1]}" + (f" to {sizes[-1][0]}x{sizes[-1][1]}" if len(sizes) > 1 else ""))
    if any(view.split for view in views):
        parts.append("test views as given by the capture")
    else:
        parts.append(f"every {options.test_every}th by name is a test view" if options.test_every else "no test views")
    return "; ".join(parts)
