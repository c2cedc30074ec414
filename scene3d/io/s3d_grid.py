"""The codec "grid" of .s3d: attributes as pictures, one Gaussian a pixel, row by row, coded by lossless image codecs.

Gaussians lie in a grid whose neighbours are alike (ops/grid_sort.py), so that the pictures are smooth. Every attribute
has levels of its own number of bits between bounds of its own channels. Positions are levels of sign(x) ln(1 + |x|)
where that is told, so that the far background costs no precision of the near. A chunk for each attribute, two where it
has more than 8 bits and the image codec is WebP: high bytes and low bytes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scene3d.core.errors import FormatError
from scene3d.core.gaussians import SH_COUNTS, Gaussians
from scene3d.core.scene import SceneInfo
from scene3d.io.image_planes import decode_image
from scene3d.io.s3d_container import DAMAGED, Container

CODEC = "grid"
ImageCodec = Literal["webp", "jxl"]
IMAGE_CODECS = ("webp", "jxl")
LAYOUTS = ("rgb", "gray")
MAX_BITS = 16
MAX_SIDE = 16383  # Of a WebP image.
WEBP_EFFORT, JXL_EFFORT = 80, 7
# Channels by attribute; quaternions are stored without w, which is not negative.
CHANNELS = {"means": 3, "quats": 3, "log_scales": 3, "opacities": 1, "sh0": 3}


@dataclass(frozen=True)
class Levels:
    """One attribute as whole numbers.

    Attributes:
        values: In the order of the grid, 0 to 2^n_bits - 1. [N, C] int64
        n_bits: 1 to 16.
        low: What 0 stands for, by channel. [C]
        high: What the highest level stands for. [C]
    """

    values: Tensor
    n_bits: int
    low: Tensor
    high: Tensor

    def restored(self) -> Tensor:
        """The numbers that the levels stand for. [N, C] float32"""
        step = (self.high.double() - self.low.double()) / (2**self.n_bits - 1)
        return (self.low.double() + self.values.double() * step).float()


def to_levels(rows: Tensor, n_bits: int, clip: float = 0.0) -> Levels:
    """Round rows [N, C] to levels between the bounds of each channel; `clip` is the share cut off at either end."""
    exact = rows.double()
    if len(rows) == 0:
        low = high = torch.zeros(rows.shape[1], dtype=torch.float64)
    else:
        ordered = exact.sort(dim=0).values
        n_cut = int(clip * len(rows))
        low, high = ordered[n_cut], ordered[len(rows) - 1 - n_cut]
    low, high = low.float().double(), high.float().double()
    unit = (exact - low) / (high - low).clamp_min(1e-30)
    values = (unit * (2**n_bits - 1)).round().clamp(0, 2**n_bits - 1).long()
    return Levels(values, n_bits, low.float(), high.float())


def grid_rows(gaussians: Gaussians, has_log_means: bool) -> dict[str, Tensor]:
    """The attributes as they are put into levels. [N, C] each; shN is missing where there is none."""
    quats = torch.nn.functional.normalize(gaussians.quats, dim=1)
    quats = torch.where(quats[:, :1] < 0, -quats, quats)
    means = gaussians.means
    rows = {
        "means": means.sign() * means.abs().log1p() if has_log_means else means,
        "quats": quats[:, 1:],
        "log_scales": gaussians.log_scales,
        "opacities": gaussians.opacities[:, None],
        "sh0": gaussians.sh0[:, 0],
    }
    return {**rows, "shN": gaussians.shN.flatten(1)} if gaussians.sh_degree else rows


def from_grid_rows(rows: dict[str, Tensor], has_log_means: bool) -> Gaussians:
    """The inverse of grid_rows, for numbers that need not be exact."""
    n, means, axis = len(rows["means"]), rows["means"], rows["quats"]
    w = (1 - axis.double().square().sum(dim=1, keepdim=True)).clamp_min(0).sqrt().float()
    # The ends of the range would be infinite logits.
    opacities = rows["opacities"][:, 0].clamp(1e-4, 1 - 1e-4)
    n_rest = rows["shN"].shape[1] // 3 if "shN" in rows else 0
    return Gaussians(
        means=means.sign() * means.abs().expm1() if has_log_means else means,
        quats=torch.cat([w, axis], dim=1),
        log_scales=rows["log_scales"],
        opacity_logits=opacities.logit(),
        sh0=rows["sh0"][:, None],
        shN=rows["shN"].reshape(n, n_rest, 3) if n_rest else torch.zeros(n, 0, 3),
    )


def encode_grid(
    levels: dict[str, Levels], width: int, has_log_means: bool, info: SceneInfo, image_codec: ImageCodec = "webp"
) -> Container:
    """Make the container.

    Args:
        levels: Attributes as of grid_rows, in the order of the grid.
        width: Cells per row.
        has_log_means: Whether positions are logarithms.
        info: Facts about the scene.
        image_codec: webp, or jxl, which needs the package imagecodecs here and wherever the file is read.
    """
    chunks: dict[str, bytes] = {}
    attributes: dict[str, Any] = {}
    n = len(levels["means"].values)
    for name, attribute in levels.items():
        grid = _to_grid(attribute.values, width)
        layouts = LAYOUTS if grid.shape[2] % 3 == 0 else ("gray",)
        parts = {layout: _encode_parts(_laid_out(grid, layout), attribute.n_bits, image_codec) for layout in layouts}
        layout = min(parts, key=lambda key: sum(map(len, parts[key])))
        chunks.update(zip((name, f"{name}.low"), parts[layout], strict=False))
        attributes[name] = {
            "bits": attribute.n_bits,
            "low": attribute.low.tolist(),
            "high": attribute.high.tolist(),
            "layout": layout,
        }
    meta = {"width": width, "log_means": has_log_means, "images": image_codec, "attributes": attributes}
    return Container("splats", CODEC, n, chunks, info, meta)


def decode_grid(container: Container, path: Path) -> Gaussians:
    """Restore the Gaussians.

    Raises:
        FormatError: a size or number is not what this codec writes.
    """
    rows = {name: levels.restored() for name, levels in read_levels(container, path)[0].items()}
    gaussians = from_grid_rows(rows, bool(container.meta.get("log_means")))
    if not bool(gaussians.is_finite().all()):
        raise FormatError(path, "holds numbers that are not finite", remedy=DAMAGED)
    return gaussians


def read_levels(container: Container, path: Path) -> tuple[dict[str, Levels], int]:
    """Every attribute as it is stored, and the cells per row.

    Raises:
        FormatError: a size or number is not what this codec writes.
    """
    meta = container.meta
    width, images, attributes = meta.get("width"), meta.get("images"), meta.get("attributes")
    if not isinstance(width, int) or not 1 <= width <= MAX_SIDE:
        raise FormatError(path, f"width: expected 1 to {MAX_SIDE}, got {str(width)[:60]}", remedy=DAMAGED)
    if images not in IMAGE_CODECS or not isinstance(attributes, dict):
        raise FormatError(path, f"images: expected one of {', '.join(IMAGE_CODECS)}, got {images!r}", remedy=DAMAGED)
    channels = dict(CHANNELS)
    if "shN" in attributes:
        n_low = attributes["shN"].get("low") if isinstance(attributes["shN"], dict) else None
        channels["shN"] = len(n_low) if isinstance(n_low, list) else 0
        if channels["shN"] not in [3 * (count - 1) for count in SH_COUNTS[1:]]:
            raise FormatError(path, f"shN: expected 9, 24 or 45 channels, got {channels['shN']}", remedy=DAMAGED)
    reader = _Reader(container, path, width, images)
    return {name: reader.attribute(name, attributes.get(name), count) for name, count in channels.items()}, width


class _Reader:
    """Attributes of one container."""

    def __init__(self, container: Container, path: Path, width: int, image_codec: ImageCodec) -> None:
        self.container, self.path, self.width, self.image_codec = container, path, width, image_codec
        self.height = -(-container.n_items // width)

    def attribute(self, name: str, facts: Any, n_channels: int) -> Levels:
        """Levels of one attribute, all of its facts checked."""
        if not isinstance(facts, dict):
            raise FormatError(self.path, f"{name}: expected its facts, got {str(facts)[:60]}", remedy=DAMAGED)
        n_bits, layout = facts.get("bits"), facts.get("layout")
        if not isinstance(n_bits, int) or not 1 <= n_bits <= MAX_BITS or layout not in LAYOUTS:
            problem = f"{name}: expected 1 to {MAX_BITS} bits as rgb or gray, got {n_bits!r} as {layout!r}"
            raise FormatError(self.path, problem, remedy=DAMAGED)
        if layout == "rgb" and n_channels % 3:
            raise FormatError(self.path, f"{name}: {n_channels} channels are no colours", remedy=DAMAGED)
        low, high = (self._bounds(name, facts.get(key), n_channels) for key in ("low", "high"))
        n = self.container.n_items
        if n == 0:
            return Levels(torch.zeros(0, n_channels, dtype=torch.int64), n_bits, low, high)
        per_pixel = 3 if layout == "rgb" else 1
        shape = (self.height * n_channels // per_pixel, self.width, per_pixel)
        picture = self._picture(name, shape, n_bits)
        if int(picture.max()) >> n_bits:
            raise FormatError(self.path, f"{name}: a level has more than {n_bits} bits", remedy=DAMAGED)
        grid = picture.reshape(n_channels // per_pixel, self.height * self.width, per_pixel)
        values = np.ascontiguousarray(grid.transpose(1, 0, 2)).reshape(-1, n_channels)[:n]
        return Levels(torch.from_numpy(values.astype(np.int64)), n_bits, low, high)

    def _bounds(self, name: str, values: Any, n_channels: int) -> Tensor:
        is_sound = isinstance(values, list) and len(values) == n_channels
        if not is_sound or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            problem = f"{name}: expected bounds of {n_channels} channels, got {str(values)[:60]}"
            raise FormatError(self.path, problem, remedy=DAMAGED)
        return torch.tensor(values, dtype=torch.float64).float()

    def _picture(self, name: str, shape: tuple[int, int, int], n_bits: int) -> np.ndarray:
        if self.image_codec == "jxl":
            return _decode_jxl(self.path, name, self._chunk(name), shape, n_bits)
        picture = self._webp(name, shape).astype(np.uint16)
        return picture * 256 + self._webp(f"{name}.low", shape) if n_bits > 8 else picture

    def _webp(self, name: str, shape: tuple[int, int, int]) -> np.ndarray:
        pixels = decode_image(self.path, name, self._chunk(name), shape[0] * shape[1])
        if pixels.shape[:2] != shape[:2]:
            problem = f"{name}: expected {shape[1]}x{shape[0]} pixels, got {pixels.shape[1]}x{pixels.shape[0]}"
            raise FormatError(self.path, problem, remedy=DAMAGED)
        return pixels[:, :, : shape[2]]

    def _chunk(self, name: str) -> bytes:
        if name not in self.container.chunks:
            raise FormatError(self.path, f"the chunk {name!r} is missing", remedy=DAMAGED)
        return self.container.chunks[name]


def _to_grid(values: Tensor, width: int) -> np.ndarray:  # [N, C] -> [H, W, C]
    height = -(-len(values) // width)
    # Cells behind the last Gaussian repeat it.
    index = torch.arange(height * width).clamp(max=max(len(values) - 1, 0))
    return values[index].numpy().astype(np.uint16).reshape(height, width, values.shape[1])


def _laid_out(grid: np.ndarray, layout: str) -> np.ndarray:  # [H, W, C] -> [C / P * H, W, P], P = 3 or 1
    height, width, channels = grid.shape
    per_pixel = 3 if layout == "rgb" else 1
    parts = grid.reshape(height, width, channels // per_pixel, per_pixel).transpose(2, 0, 1, 3)
    return np.ascontiguousarray(parts).reshape(-1, width, per_pixel)


def _encode_parts(picture: np.ndarray, n_bits: int, image_codec: ImageCodec) -> list[bytes]:
    if picture.size == 0:
        return [b""]
    if image_codec == "jxl":
        import imagecodecs

        pixels = picture.astype(np.uint8 if n_bits <= 8 else np.uint16)
        squeezed = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
        return [bytes(imagecodecs.jpegxl_encode(squeezed, lossless=True, effort=JXL_EFFORT, numthreads=1))]
    if n_bits <= 8:
        return [_encode_webp(picture)]
    return [_encode_webp(picture >> 8), _encode_webp(picture & 255)]


def _encode_webp(picture: np.ndarray) -> bytes:
    pixels = np.ascontiguousarray(picture.astype(np.uint8))
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, quality=WEBP_EFFORT, method=4)
    return buffer.getvalue()


def _decode_jxl(path: Path, name: str, data: bytes, shape: tuple[int, int, int], n_bits: int) -> np.ndarray:
    import imagecodecs

    # The picture is decoded into memory of the size that it must have: any other size is refused before it is decoded.
    size = shape[:2] if shape[2] == 1 else shape
    pixels = np.empty(size, np.uint8 if n_bits <= 8 else np.uint16)
    try:
        imagecodecs.jpegxl_decode(data, out=pixels, numthreads=1)
    except (ValueError, RuntimeError) as error:
        raise FormatError(path, f"{name}: expected a whole JPEG XL image: {error}", remedy=DAMAGED) from error
    return pixels.reshape(shape)
