"""What compression made of a scene, as pictures: Gaussians in the colours of their codes, and the planes of a grid."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scene3d.core.scene import Scene
from scene3d.io.s3d_marks import Marks, Plane
from scene3d.ops import sh
from scene3d.ops.colormap import HEAT, colorize

# Turns of the hue from label to label: the golden ratio keeps near numbers apart.
GOLDEN = 0.6180339887498949
# Planes of grids are shown at least this wide: small ones are enlarged by whole factors.
MIN_SIDE = 256


def painted(scene: Scene, marks: Marks) -> Scene:
    """The scene with Gaussians in the colours of their marks.

    Raises:
        ValueError: there is not one mark for each Gaussian.
    """
    gaussians = scene.splats()
    if len(marks.values) != len(gaussians):
        raise ValueError(f"marks: expected one for each of {len(gaussians)} Gaussians, got {len(marks.values)}")
    rgb = colors(marks).to(gaussians.dtype)
    flat = gaussians.shN.new_zeros(len(gaussians), 0, 3)
    return replace(scene, payload=replace(gaussians, sh0=sh.from_rgb(rgb)[:, None], shN=flat))


def colors(marks: Marks) -> Tensor:
    """sRGB, 0 to 1. [N, 3]"""
    if marks.kind == "amount":
        return colorize(0.15 + 0.85 * marks.values, HEAT).float() / 255
    if marks.kind == "place":
        column, row = marks.values.float().unbind(dim=1)
        return torch.stack([column, row, 1 - 0.5 * (column + row)], dim=1)
    number = marks.values.double()
    hue, value = (number * GOLDEN) % 1, 0.55 + 0.45 * ((number * GOLDEN**2) % 1)
    # HSV of saturation 0.75: the distance of the hue from red, green and blue on the circle.
    distance = (hue[:, None] * 6 - torch.tensor([0.0, 2.0, 4.0], dtype=torch.float64) + 3) % 6 - 3
    pure = (2 - distance.abs()).clamp(0, 1)
    return ((0.25 + 0.75 * pure) * value[:, None]).float()


def sheet(plane: Plane) -> Tensor:
    """The channels of a plane beside each other: by threes in colour, others in grey. [H, W, 3] uint8"""
    pixels = plane.pixels
    if pixels.shape[2] == 3:
        tiles = [pixels]
    elif pixels.shape[2] % 3 == 0:
        tiles = list(pixels.split(3, dim=2))
    else:
        tiles = [channel.expand(-1, -1, 3) for channel in pixels.split(1, dim=2)]
    n_columns = min(5, len(tiles))
    tiles += [torch.zeros_like(tiles[0])] * (-len(tiles) % n_columns)
    rows = [torch.cat(tiles[i : i + n_columns], dim=1) for i in range(0, len(tiles), n_columns)]
    whole = torch.cat(rows)
    factor = max(1, -(-MIN_SIDE // max(whole.shape[1], 1)))
    return whole.repeat_interleave(factor, dim=0).repeat_interleave(factor, dim=1)
