"""Photos from disk to what a render is compared with: decoded, lens undone, reduced, as 8-bit tensors.

Order: decode to 8-bit sRGB; move the lens's pixels to a pinhole view at full size; average blocks of `factor` by
`factor` pixels (alpha-weighted where there is alpha); where a largest size is asked for, Lanczos down to it.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from scene3d.core.capture import Photo
from scene3d.core.errors import CaptureError
from scene3d.ops.undistort import LensView, coverage, is_covered, nearest_index, resample

Result = TypeVar("Result")

MAX_PIXELS = 400_000_000
ORIENTATION_TAG = 0x0112
EXIF_FORMATS = ("JPEG", "MPO", "TIFF", "WEBP")
# Orientations that swap width and height.
TURNED = (5, 6, 7, 8)
# What Pillow's decoders raise on damaged files, beside OSError.
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
# From this factor on, pixels are copied by a dithered index instead of interpolated: see nearest_index.
MIN_INDEX_FACTOR = 3
# A pixel is used only if all of the photo's pixels it averages are: 254.5 forgives rounding.
MASK_THRESHOLD = 254.5
REMEDY = "Replace or remove this photo."


@dataclass(frozen=True)
class ImageHeader:
    """What is known of an image without decoding it.

    Attributes:
        size: Width and height as stored, pixels.
        has_alpha: It has an alpha channel or a transparent colour.
        orientation: EXIF orientation, 1 where there is none.
    """

    size: tuple[int, int]
    has_alpha: bool
    orientation: int


@dataclass(frozen=True)
class PhotoPlan:
    """How one photo becomes a Photo.

    Attributes:
        image_path: The photo.
        mask_path: White = keep, or None.
        is_turned: Turn it upright by its EXIF orientation first.
        source_size: Width and height once turned.
        view: Pinhole view at full size.
        factor: Blocks of factor x factor pixels are averaged.
        size: Width and height of the result.
    """

    image_path: Path
    mask_path: Path | None
    is_turned: bool
    source_size: tuple[int, int]
    view: LensView
    factor: int
    size: tuple[int, int]


def read_image_header(path: Path) -> ImageHeader:
    """Read size, alpha and orientation.

    Raises:
        CaptureError: the file is empty, damaged, of an unknown format or absurdly large.
    """

    def read() -> ImageHeader:
        with Image.open(path) as image:
            has_alpha = "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info
            return ImageHeader(image.size, has_alpha, _orientation(image))

    header = _guarded(path, read)
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise CaptureError(path, f"expected at most {MAX_PIXELS} pixels, got {width}x{height}", REMEDY)
    if width <= 0 or height <= 0:
        raise CaptureError(path, f"the image has no pixels ({width}x{height})", REMEDY)
    return header


def decode_image(path: Path, is_turned: bool = False) -> Image.Image:
    """Decode a photo to 8-bit RGB, or RGBA where it has alpha.

    Args:
        path: The photo.
        is_turned: Turn it upright by its EXIF orientation.

    Raises:
        CaptureError: the file is empty, truncated, damaged or of an unknown format.
    """

    def decode() -> Image.Image:
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image) if is_turned else image
            return _to_8bit(upright)

    return _guarded(path, decode)


def load_photo(plan: PhotoPlan) -> Photo:
    """Do what the plan says.

    Raises:
        CaptureError: photo or mask cannot be decoded or has another size than planned.
    """
    image = _sized(plan, plan.image_path, decode_image(plan.image_path, plan.is_turned))
    # Colours are averaged weighted by alpha: premultiplied, as mode RGBa holds them.
    is_straight = image.mode == "RGBA" and plan.factor == 1 and plan.size == (plan.view.width, plan.view.height)
    if image.mode == "RGBA" and not (is_straight and plan.view.lens.is_pinhole):
        image = image.convert("RGBa")
    small = _reduce(_undistort(image, plan), plan)
    pixels = torch.from_numpy(np.array(small.convert("RGBA") if small.mode == "RGBa" else small))
    alpha = pixels[:, :, 3].clone() if small.mode in ("RGBa", "RGBA") else None
    return Photo(pixels[:, :, :3].clone() if alpha is not None else pixels, alpha, _load_mask(plan))


def _load_mask(plan: PhotoPlan) -> Tensor | None:
    mask = None
    if plan.mask_path is not None:
        gray = _sized(plan, plan.mask_path, decode_image(plan.mask_path, plan.is_turned), fit=True).convert("L")
        mask = _undistort(gray.point([0] * 128 + [255] * 128), plan)
    if not _is_covered(plan.view, plan.source_size):
        seen = coverage(plan.view, plan.source_size).numpy()
        mask = Image.fromarray(np.where(seen, np.array(mask) if mask is not None else 255, 0).astype(np.uint8))
    if mask is None:
        return None
    reduced = np.array(_reduce(mask, plan))
    return torch.from_numpy(np.where(reduced >= MASK_THRESHOLD, 255, 0).astype(np.uint8))


def _sized(plan: PhotoPlan, path: Path, image: Image.Image, fit: bool = False) -> Image.Image:
    if image.size == plan.source_size:
        return image
    if fit:  # Masks are often drawn on reduced copies.
        return image.resize(plan.source_size, Image.Resampling.NEAREST)
    expected, found = ("x".join(map(str, size)) for size in (plan.source_size, image.size))
    raise CaptureError(path, f"expected {expected} pixels, got {found}: the file changed", "Start again.")


def _undistort(image: Image.Image, plan: PhotoPlan) -> Image.Image:
    view = plan.view
    if view.lens.is_pinhole:
        return image.crop((0, 0, view.width, view.height)) if image.size != (view.width, view.height) else image
    if image.mode == "L" or plan.factor >= MIN_INDEX_FACTOR:
        return _copy_pixels(image, plan)
    values = resample(torch.from_numpy(np.array(image)), view).round_().to(torch.uint8).numpy()
    size = (view.width, view.height)
    return Image.frombuffer(image.mode, size, values.tobytes(), "raw", image.mode, 0, 1)


def _copy_pixels(image: Image.Image, plan: PhotoPlan) -> Image.Image:
    # Four bytes a pixel, so that one copy moves a whole pixel.
    mode, dtype = ("L", np.uint8) if image.mode == "L" else ("RGBX" if image.mode == "RGB" else "RGBa", np.int32)
    full = image.convert("RGBX") if mode == "RGBX" else image
    source = torch.frombuffer(bytearray(full.tobytes()), dtype=torch.uint8 if mode == "L" else torch.int32)
    index = _pixel_index(plan.view, plan.source_size, plan.factor)
    moved = torch.index_select(source, 0, index.view(-1)).numpy()
    assert moved.dtype == dtype
    return Image.frombuffer(mode, (plan.view.width, plan.view.height), moved.tobytes(), "raw", mode, 0, 1)


# Photos of one camera share their index; two cameras taking turns are common, more are rare.
@lru_cache(maxsize=2)
def _pixel_index(view: LensView, size: tuple[int, int], factor: int) -> Tensor:
    return nearest_index(view, size, factor)


@lru_cache(maxsize=4096)
def _is_covered(view: LensView, size: tuple[int, int]) -> bool:
    return is_covered(view, size)


def _reduce(image: Image.Image, plan: PhotoPlan) -> Image.Image:
    small = image.reduce(plan.factor) if plan.factor > 1 else image
    if small.size != plan.size:
        small = small.resize(plan.size, Image.Resampling.BOX if small.mode == "L" else Image.Resampling.LANCZOS)
    return small.convert("RGB") if small.mode == "RGBX" else small


def _guarded(path: Path, action: Callable[[], Result]) -> Result:
    try:
        if path.stat().st_size == 0:
            raise CaptureError(path, "the file is empty (0 bytes)", REMEDY)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on size and EXIF; errors are still raised.
            return action()
    except FileNotFoundError as error:
        raise CaptureError(path, "no such photo", "Check the path.") from error
    except PermissionError as error:
        raise CaptureError(path, "may not be read", "Change its permissions.") from error
    except Image.UnidentifiedImageError as error:
        raise CaptureError(path, "is no image of a known format, or its start is damaged", REMEDY) from error
    except Image.DecompressionBombError as error:
        raise CaptureError(path, f"is too large: {error}", REMEDY) from error
    except DECODE_ERRORS as error:
        raise CaptureError(path, f"the image is truncated or damaged ({error})", REMEDY) from error


def _orientation(image: Image.Image) -> int:
    if image.format not in EXIF_FORMATS:
        return 1  # Pillow would decode a whole PNG to look for EXIF after its pixels.
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except (*DECODE_ERRORS, TypeError, KeyError):
        return 1  # Damaged EXIF does not make a photo useless.
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_8bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit greyscale; Pillow's own conversion would clip instead of scale.
        values = np.array(image, dtype=np.float64)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        return Image.fromarray((values.clip(0, top) * (255.0 / top)).round().astype(np.uint8)).convert("RGB")
    has_alpha = "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info
    mode = "RGBA" if has_alpha else "RGB"
    return image.copy() if image.mode == mode else image.convert(mode)
