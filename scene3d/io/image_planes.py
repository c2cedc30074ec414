"""Bytes of Gaussians as pixels of lossless images, row by row from the top left, one Gaussian a pixel."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from scene3d.core.errors import FormatError

# An image of one colour unpacks to millions of pixels from a hundred bytes: no more unless its size earns them.
FREE_PIXELS = 2**22
PIXELS_PER_BYTE = 256
WEBP_METHOD = 4
WEBP_EFFORT = 90


def plane_size(count: int) -> tuple[int, int]:
    """Width and height, multiples of 4, of a nearly square image of at least `count` pixels."""
    width = max(4, math.ceil(math.sqrt(count) / 4) * 4)
    return width, max(4, math.ceil(count / width / 4) * 4)


def to_plane(rows: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Lay rows [N, 1 to 4] uint8 out as an RGBA image; missing channels are 0, missing opacity and pixels 255.

    Args:
        rows: One pixel each. [N, channels]
        size: Width and height.

    Returns:
        [height, width, 4] uint8.
    """
    width, height = size
    plane = np.zeros((height * width, 4), np.uint8)
    plane[:, 3] = 255
    plane[: len(rows), : rows.shape[1]] = rows
    # The last value goes on to the end: cheaper to code than a jump.
    plane[len(rows) :] = plane[len(rows) - 1] if len(rows) else plane[:1]
    return plane.reshape(height, width, 4)


def encode_webp(plane: np.ndarray) -> bytes:
    """Lossless WebP of an RGBA image; colours of transparent pixels are kept too."""
    has_alpha = bool((plane[:, :, 3] != 255).any())
    image = Image.fromarray(np.ascontiguousarray(plane if has_alpha else plane[:, :, :3]))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, exact=True, quality=WEBP_EFFORT, method=WEBP_METHOD)
    return buffer.getvalue()


def decode_image(path: Path, name: str, data: bytes, min_pixels: int) -> np.ndarray:
    """Pixels of a WebP or PNG image.

    Args:
        path: Of the scene, for messages.
        name: Of the image, for messages.
        data: The file.
        min_pixels: How many pixels it must have.

    Returns:
        RGBA. [height, width, 4] uint8

    Raises:
        FormatError: it is no such image, is damaged, too small, or absurdly large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("WEBP", "PNG")) as image:
            width, height = image.size
            if width * height < min_pixels:
                problem = f"{name}: expected at least {min_pixels} pixels, got {width}x{height}"
                raise FormatError(path, problem)
            if width * height > max(FREE_PIXELS, PIXELS_PER_BYTE * len(data)):
                raise FormatError(path, f"{name}: {width}x{height} pixels in {len(data)} bytes is too much")
            return np.array(image.convert("RGBA"))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise FormatError(path, f"{name}: expected a whole WebP or PNG image: {error}") from error
