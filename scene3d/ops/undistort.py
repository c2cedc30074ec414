"""Photos of a real lens resampled to a pinhole view: same focal length, cropped so that every pixel was seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.ops.lens import Lens, distort, max_radius, undistort

# The lens is evaluated at every 4th pixel and interpolated between: the error is about 2 / focal length pixels.
GRID_STEP = 4
# Wide lenses would give huge pinhole images whose margins are stretched: at most this many times the photo's size.
MAX_GROWTH = 1.5
# Source pixels turned into float at a time; bounds the memory of very large photos.
BAND_PIXELS = 1 << 22


@dataclass(frozen=True)
class LensView:
    """A photo with its lens and the pinhole view cut out of it.

    Attributes:
        lens: Distortion of the photo.
        fx, fy: Focal lengths of photo and view, pixels.
        cx, cy: Principal point of the photo, pixels.
        x0, y0: Left top pixel of the view in the photo's undistorted pixel grid, whole numbers, may be negative.
        width, height: Size of the view, pixels.
    """

    lens: Lens
    fx: float
    fy: float
    cx: float
    cy: float
    x0: int
    y0: int
    width: int
    height: int


def lens_view(
    lens: Lens, focal: tuple[float, float], center: tuple[float, float], size: tuple[int, int], multiple: int = 1
) -> LensView:
    """Choose the view: the largest rectangle in the undistorted grid whose pixels all lie in the photo.

    Args:
        lens: Distortion of the photo.
        focal: fx, fy in pixels.
        center: Principal point in pixels.
        size: Width and height of the photo.
        multiple: Width and height of the view become multiples of this, so that it can be reduced by it exactly.

    Raises:
        ValueError: nothing of the photo remains: the distortion is nonsense.
    """
    width, height = size
    if lens.is_pinhole:
        left, top, right, bottom = 0, 0, width, height
    else:
        left, top, right, bottom = _inner_box(lens, focal, center, size)
    # Cut evenly from both sides, so that the subject stays in the middle.
    new_width, new_height = ((b - a) // multiple * multiple for a, b in ((left, right), (top, bottom)))
    if new_width <= 0 or new_height <= 0:
        raise ValueError(f"lens: expected a distortion that leaves some of the {width}x{height} photo, got {lens}")
    if not lens.is_pinhole:
        left, top = left + (right - left - new_width) // 2, top + (bottom - top - new_height) // 2
    return LensView(lens, *focal, *center, left, top, new_width, new_height)


def resample(photo: Tensor, view: LensView) -> Tensor:
    """The view of a photo, bilinear between its pixels, clamped at its border.

    Args:
        photo: Channels, uint8. [H, W, D]
        view: From lens_view for this size.

    Returns:
        float32 in 0..255. [view.height, view.width, D]
    """
    height, width, depth = photo.shape
    source = photo.permute(2, 0, 1).contiguous().to(torch.float32)[None]
    result = torch.empty(view.height, view.width, depth)
    # Rows go in bands: the grid of a whole large photo would take as much memory as the photo in float.
    n_rows = max(GRID_STEP, BAND_PIXELS // view.width // GRID_STEP * GRID_STEP)
    for start in range(0, view.height, n_rows):
        stop = min(start + n_rows, view.height)
        pixels = _source_pixels(view, start, stop)
        grid = pixels * torch.tensor([2 / width, 2 / height]) - 1
        band = torch.nn.functional.grid_sample(
            source, grid[None], mode="bilinear", padding_mode="border", align_corners=False
        )
        result[start:stop] = band[0].permute(1, 2, 0)
    return result


def nearest_index(view: LensView, size: tuple[int, int], factor: int) -> Tensor:
    """Flat index of the photo's pixel for each pixel of the view, to be averaged over blocks of `factor` squared.

    Plain rounding would move a whole block by up to half a pixel. Here rounding is dithered so that each row of a
    block rounds x, and each column rounds y, at another threshold: the block's mean is then the mean over a box whose
    edges fall between pixels, in steps of 1 / factor pixel. As fast as a copy, and sharper than bilinear.

    Args:
        view: From lens_view for this size, with sides that are multiples of factor.
        size: Width and height of the photo.
        factor: Side of a block, 3 or more for the steps to be small.

    Returns:
        [view.height, view.width] int32
    """
    width, height = size
    pixels = _source_pixels(view, 0, view.height)
    dither = (torch.arange(factor) + 0.5) / factor - 0.5
    x = pixels[:, :, 0] + dither.repeat(view.height // factor)[:, None]
    y = pixels[:, :, 1] + dither.repeat(view.width // factor)
    columns, rows = x.floor().to(torch.int32).clamp_(0, width - 1), y.floor().to(torch.int32).clamp_(0, height - 1)
    return rows * width + columns


def coverage(view: LensView, size: tuple[int, int]) -> Tensor:
    """Which pixels of the view lie in the photo of `size` (width, height). [view.height, view.width] bool"""
    return _is_seen(view, size, torch.arange(view.height), torch.arange(view.width))


def is_covered(view: LensView, size: tuple[int, int]) -> bool:
    """Whether every pixel of the view lies in the photo; a lens that is one to one need be asked along the rim only."""
    rows, columns = torch.arange(view.height), torch.arange(view.width)
    rims = [_is_seen(view, size, rows, columns[[0, -1]]), _is_seen(view, size, rows[[0, -1]], columns)]
    return all(bool(rim.all()) for rim in rims)


def _is_seen(view: LensView, size: tuple[int, int], rows: Tensor, columns: Tensor) -> Tensor:  # [rows, columns]
    rays = _view_rays(view, rows + 0.5, columns + 0.5)
    pixels = distort(rays, view.lens) * _pair(view.fx, view.fy) + _pair(view.cx, view.cy)
    # Half a pixel of tolerance: there the nearest pixel of the photo is still the right one.
    inside = (pixels > -0.5) & (pixels < torch.tensor(size) + 0.5)
    return inside.all(dim=-1) & (rays.norm(dim=-1) <= max_radius(view.lens))


def _inner_box(
    lens: Lens, focal: tuple[float, float], center: tuple[float, float], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    # Undistort the centres of the border pixels; the box lies within the innermost of each side.
    width, height = size
    along = torch.linspace(0, 1, 257, dtype=torch.float64)
    near, far_x, far_y = torch.full_like(along, 0.5), width - 0.5, height - 0.5
    xs, ys = 0.5 + along * (width - 1), 0.5 + along * (height - 1)
    sides = [(near, ys), (near + far_x - 0.5, ys), (xs, near), (xs, near + far_y - 0.5)]
    scale, middle = _pair(*focal), _pair(*center)
    moved = [undistort((torch.stack(side, dim=-1) - middle) / scale, lens) * scale + middle for side in sides]
    box = [
        float(moved[0][:, 0].max()) - 0.5,
        float(moved[2][:, 1].max()) - 0.5,
        float(moved[1][:, 0].min()) + 0.5,
        float(moved[3][:, 1].min()) + 0.5,
    ]
    grow_x, grow_y = (MAX_GROWTH - 1) / 2 * width, (MAX_GROWTH - 1) / 2 * height
    limits = [max(box[0], -grow_x), max(box[1], -grow_y), min(box[2], width + grow_x), min(box[3], height + grow_y)]
    # The slack keeps rounding in the last bit from costing a row.
    low = [math.ceil(value - 1e-6) for value in limits[:2]]
    high = [math.floor(value + 1e-6) for value in limits[2:]]
    return low[0], low[1], high[0], high[1]


def _source_pixels(view: LensView, start: int, stop: int) -> Tensor:  # [stop - start, width, 2]
    # Exact at a coarse grid that sticks out by up to one step, bilinear between.
    n_rows, n_columns = (math.ceil(n / GRID_STEP) + 1 for n in (stop - start, view.width))
    ys = start + 0.5 + GRID_STEP * torch.arange(n_rows)
    xs = 0.5 + GRID_STEP * torch.arange(n_columns)
    coarse = distort(_view_rays(view, ys, xs), view.lens) * _pair(view.fx, view.fy) + _pair(view.cx, view.cy)
    coarse = coarse.to(torch.float32)
    size = ((n_rows - 1) * GRID_STEP + 1, (n_columns - 1) * GRID_STEP + 1)
    fine = torch.nn.functional.interpolate(
        coarse.permute(2, 0, 1)[None], size=size, mode="bilinear", align_corners=True
    )
    return fine[0].permute(1, 2, 0)[: stop - start, : view.width].contiguous()


def _view_rays(view: LensView, ys: Tensor, xs: Tensor) -> Tensor:  # [n, m, 2] float64
    y = (ys.to(torch.float64) + view.y0 - view.cy) / view.fy
    x = (xs.to(torch.float64) + view.x0 - view.cx) / view.fx
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def _pair(x: float, y: float) -> Tensor:
    return torch.tensor([x, y], dtype=torch.float64)
