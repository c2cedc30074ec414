"""Photos before structure from motion: which are usable, which share a camera, which need a copy, where masks are.

Names are paths relative to the photo folder, with forward slashes. Sizes are stored pixels unless said otherwise.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from scene3d.core.errors import CaptureError
from scene3d.ops.sharpness import laplacian_variance

# COLMAP reads these as they are.
PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})
# Pillow reads these and COLMAP does not: they are worked on as JPEG copies.
COPIED_SUFFIXES = frozenset({".webp"})
# Nobody here reads these; a folder that holds them gets a hint.
FOREIGN_SUFFIXES = frozenset(
    {".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".avif"}
)
COPY_QUALITY = 97
# Sharpness and brightness are compared between photos at this size, so that resolution does not count.
MEASURE_SIZE = 512

_ORIENTATION_TAG = 0x0112
_EXIF_IFD = 0x8769
_CAMERA_TAGS = (0x010F, 0x0110)  # Make, Model
_LENS_TAGS = (0x920A, 0xA405, 0xA434)  # FocalLength, FocalLengthIn35mmFilm, LensModel


@dataclass(frozen=True)
class Photo:
    """A readable photo.

    Attributes:
        name: Path below the photo folder.
        width: Pixels after the EXIF orientation is applied.
        height: Pixels after the EXIF orientation is applied.
        orientation: EXIF orientation, 1 = upright.
        camera_key: Equal for photos that can share intrinsics: size, maker, model, focal length.
        sharpness: Variance of the Laplacian at MEASURE_SIZE, grey levels squared.
        brightness: Mean grey level, 0 to 255.
        sha256: Of the file's bytes.
    """

    name: str
    width: int
    height: int
    orientation: int
    camera_key: str
    sharpness: float
    brightness: float
    sha256: str

    @property
    def needs_copy(self) -> bool:
        return self.orientation != 1 or Path(self.name).suffix.lower() in COPIED_SUFFIXES


@dataclass(frozen=True)
class LeftOut:
    """A photo that is not used, and why."""

    name: str
    reason: str


def list_photos(folder: Path) -> list[str]:
    """Name the photos below `folder`, sorted. Hidden files and folders are passed over.

    Raises:
        CaptureError: The folder is missing, is no folder, or holds no photo.
    """
    if not folder.exists():
        raise CaptureError(folder, "expected a folder of photos, it does not exist", "Check the path.")
    if not folder.is_dir():
        raise CaptureError(folder, "expected a folder of photos or a video, got another file", "Give a folder.")
    names, foreign = [], set()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts) or not path.is_file():
            continue
        if path.suffix.lower() in PHOTO_SUFFIXES | COPIED_SUFFIXES:
            names.append(relative.as_posix())
        elif path.suffix.lower() in FOREIGN_SUFFIXES:
            foreign.add(path.suffix.lower())
    if not names:
        if foreign:
            raise CaptureError(
                folder,
                f"expected JPEG, PNG, TIFF, BMP or WebP photos, found only {', '.join(sorted(foreign))}",
                "Convert them to JPEG first (keep the EXIF data: it holds the focal length).",
            )
        raise CaptureError(
            folder,
            "expected a folder of photos, found none",
            "Give a folder with at least 2 overlapping photos (.jpg, .png, .tif, .bmp, .webp).",
        )
    return names


def check_photos(
    folder: Path, names: list[str], progress: Callable[[int], None] | None = None
) -> tuple[list[Photo], list[LeftOut]]:
    """Decode every photo once; broken ones are left out with the reason.

    Args:
        folder: The photo folder.
        names: Photos below it.
        progress: Told how many are done.

    Returns:
        Usable photos in the order of `names`, and those left out.
    """
    photos: list[Photo] = []
    left_out: list[LeftOut] = []
    for i, name in enumerate(names):
        try:
            photos.append(_check_photo(folder, name))
        except Image.DecompressionBombError:
            left_out.append(LeftOut(name, f"too large: more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels"))
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            left_out.append(LeftOut(name, f"cannot be read: {_reason(folder / name, error)}"))
        if progress is not None:
            progress(i + 1)
    return photos, left_out


def group_by_camera(photos: list[Photo]) -> list[list[Photo]]:
    """Split photos into groups that can share intrinsics, largest first."""
    groups: dict[str, list[Photo]] = {}
    for photo in photos:
        groups.setdefault(photo.camera_key, []).append(photo)
    return sorted(groups.values(), key=lambda group: (-len(group), group[0].name))


def write_upright_copy(source: Path, target: Path) -> None:
    """Write `source` as a JPEG with its EXIF orientation applied; the focal length and other tags stay."""
    with Image.open(source) as image:
        exif = image.getexif()
        upright = ImageOps.exif_transpose(image) or image
        exif[_ORIENTATION_TAG] = 1
        target.parent.mkdir(parents=True, exist_ok=True)
        upright.convert("RGB").save(target, "JPEG", quality=COPY_QUALITY, subsampling=0, exif=exif.tobytes())


def find_mask_folder(photo_folder: Path) -> Path | None:
    """The folder `masks` beside or inside of the photo folder, where there is one."""
    for folder in (photo_folder.parent / "masks", photo_folder / "masks"):
        if folder.is_dir() and folder != photo_folder:
            return folder
    return None


def find_mask(mask_folder: Path, name: str) -> Path | None:
    """The mask of photo `name`: a/0001.jpg has a/0001.jpg.png, a/0001.png or a/0001.jpg (white = keep)."""
    photo = Path(name)
    for candidate in (photo.with_name(photo.name + ".png"), photo.with_suffix(".png"), photo):
        if (mask_folder / candidate).is_file():
            return mask_folder / candidate
    return None


def write_mask(source: Path | None, target: Path, photo: Photo) -> str | None:
    """Write the mask COLMAP wants: one channel, size of the photo, 0 or 255. Without `source` all is kept.

    Returns:
        What was wrong with the mask, None where nothing was.
    """
    size = (photo.width, photo.height)
    # COLMAP drops a photo whose mask is missing once any mask is given, so every photo gets one.
    mask, problem = Image.new("L", size, 255), None
    if source is not None:
        try:
            with Image.open(source) as image:
                grey = ImageOps.exif_transpose(image.convert("L"))
            if grey.size != size and _is_turned(grey.size, size) and photo.orientation != 1:
                grey = ImageOps.exif_transpose(_with_orientation(grey, photo.orientation))
            mask = grey.point(lambda level: 255 if level >= 128 else 0).resize(size, Image.Resampling.NEAREST)
        except (OSError, SyntaxError, ValueError) as error:
            problem = f"mask of {photo.name} cannot be read ({_reason(source, error)}); it is not used"
    target.parent.mkdir(parents=True, exist_ok=True)
    mask.save(target, "PNG", compress_level=1)
    return problem


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a symlink to the file `source`, or a copy where the file system knows no symlinks."""
    try:
        os.symlink(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _check_photo(folder: Path, name: str) -> Photo:
    path = folder / name
    data = path.read_bytes()
    if not data:
        raise OSError("empty file")
    with Image.open(path) as image:
        image.verify()
    with Image.open(path) as image:
        width, height = image.size
        exif = image.getexif()
        orientation = _orientation(exif)
        key = _camera_key(exif)
        # JPEG is decoded small; a truncated file shows itself all the same since all of it is read.
        image.draft("L", (MEASURE_SIZE, MEASURE_SIZE))
        grey = image.convert("L") if image.mode not in ("I;16", "I") else image.point(lambda v: v / 256).convert("L")
    if min(width, height) < 16:
        raise ValueError(f"expected at least 16 pixels a side, got {width}x{height}")
    grey.thumbnail((MEASURE_SIZE, MEASURE_SIZE), Image.Resampling.BOX)
    levels: NDArray[np.float32] = np.asarray(grey, dtype=np.float32)
    if orientation >= 5:
        width, height = height, width
    return Photo(
        name=name,
        width=width,
        height=height,
        orientation=orientation,
        camera_key=f"{width}x{height} {key}",
        sharpness=laplacian_variance(levels),
        brightness=float(levels.mean()),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _orientation(exif: Image.Exif) -> int:
    value = exif.get(_ORIENTATION_TAG, 1)
    # Some cameras write 0 for unknown; COLMAP and viewers then show the stored pixels.
    return int(value) if isinstance(value, int) and 1 <= value <= 8 else 1


def _camera_key(exif: Image.Exif) -> str:
    lens = exif.get_ifd(_EXIF_IFD)
    words = [str(exif.get(tag, "")).strip("\0 ") for tag in _CAMERA_TAGS]
    words += [str(lens.get(tag, "")).strip("\0 ") for tag in _LENS_TAGS]
    return "|".join(words)


def _is_turned(size: tuple[int, int], other: tuple[int, int]) -> bool:
    return (size[0] > size[1]) != (other[0] > other[1])


def _with_orientation(image: Image.Image, orientation: int) -> Image.Image:
    turned = image.copy()
    turned.getexif()[_ORIENTATION_TAG] = orientation
    return turned


def _reason(path: Path, error: Exception) -> str:
    if path.exists() and path.stat().st_size == 0:
        return "empty file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = str(error)
    return "not an image" if "cannot identify" in text else text
