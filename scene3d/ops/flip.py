"""FLIP: how different two images look when one flips between them, 0 (equal) to 1, for each pixel.

Written from "FLIP: A Difference Evaluator for Alternating Images" (Andersson et al. 2020); equation numbers are of that
paper. Images are sRGB in [0, 1]. All filters are products of one-dimensional ones and continue the border outwards.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scene3d.core.checks import Dims
from scene3d.ops.image import masked_mean

# A 0.7 m wide screen of 3840 pixels seen from 0.7 m, the paper's default.
PIXELS_PER_DEGREE = 0.7 * 3840 / 0.7 * math.pi / 180

# Contrast sensitivity, table 1: amplitude and width (square degrees) of each Gaussian of the Y, Cx and Cz filters.
_SENSITIVITY = (((1.0, 0.0047),), ((1.0, 0.0053),), ((34.1, 0.04), (13.5, 0.025)))
_WIDEST = 0.04
_COLOR_EXPONENT = 0.7  # q_c
_FEATURE_EXPONENT = 0.5  # q_f
_KNEE_IN = 0.4  # p_c: this share of the largest colour difference ...
_KNEE_OUT = 0.95  # p_t: ... is mapped to this value.
_FEATURE_WIDTH_DEG = 0.082  # Width of the finest feature that counts, from the peak of the Y sensitivity.


def flip(reference: Tensor, test: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean FLIP.

    Args:
        reference: sRGB in [0, 1], clamped. [H, W, 3]
        test: sRGB in [0, 1], clamped. [H, W, 3]
        mask: Weight of each pixel, bool or number; None counts all alike. [H, W]

    Returns:
        Scalar, 0 to 1.
    """
    if mask is not None:
        dims = Dims()
        dims.check("reference", reference, "H W 3")
        dims.check("mask", mask, "H W")
    return masked_mean(flip_map(reference, test), mask)


def flip_map(reference: Tensor, test: Tensor, pixels_per_degree: float = PIXELS_PER_DEGREE) -> Tensor:
    """FLIP of each pixel: the colour difference, raised where edges or points differ.

    Args:
        reference: sRGB in [0, 1], clamped. [H, W, 3]
        test: sRGB in [0, 1], clamped. [H, W, 3]
        pixels_per_degree: Of the viewing angle; larger means farther away, fine detail counts less.

    Returns:
        [H, W], 0 to 1.
    """
    dims = Dims()
    dims.check("reference", reference, "H W 3")
    dims.check("test", test, "H W 3", reference.dtype)
    opponents = [_opponent_from_linear(_linear_from_srgb(image.clamp(0, 1))) for image in (reference, test)]
    colors = [_hunt(_lab_from_linear(_perceived(image, pixels_per_degree))) for image in opponents]
    color_difference = _redistribute(_hyab(colors[0], colors[1]) ** _COLOR_EXPONENT)
    lightness = [(image[..., 0] + 16) / 116 for image in opponents]
    feature_difference = _feature_difference(lightness[0], lightness[1], pixels_per_degree)
    return color_difference ** (1 - feature_difference)  # Equation 18.


def _perceived(opponent: Tensor, pixels_per_degree: float) -> Tensor:
    """Blur like the eye does, equations 4 to 6, back to linear RGB. [H, W, 3]"""
    radius = math.ceil(3 * math.sqrt(_WIDEST / (2 * math.pi**2)) * pixels_per_degree)
    degrees = torch.arange(-radius, radius + 1, dtype=opponent.dtype, device=opponent.device) / pixels_per_degree
    channels = []
    for channel, gaussians in zip(opponent.unbind(dim=2), _SENSITIVITY, strict=True):
        total, weight = torch.zeros_like(channel), torch.zeros_like(degrees[0])
        for amplitude, width in gaussians:
            kernel = math.sqrt(amplitude * math.sqrt(math.pi / width)) * torch.exp(-(math.pi**2) * degrees**2 / width)
            total = total + _filter(channel, kernel, kernel)
            weight = weight + kernel.sum() ** 2
        channels.append(total / weight)
    return _linear_from_opponent(torch.stack(channels, dim=2)).clamp(0, 1)


def _redistribute(difference: Tensor) -> Tensor:
    """Map colour differences to [0, 1], small ones to most of the range: equations 11 and 12."""
    green_blue = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=difference.dtype, device=difference.device)
    green, blue = _hunt(_lab_from_linear(green_blue))
    largest = _hyab(green, blue) ** _COLOR_EXPONENT
    knee = _KNEE_IN * largest
    above = _KNEE_OUT + (difference - knee) / (largest - knee) * (1 - _KNEE_OUT)
    return torch.where(difference < knee, difference * _KNEE_OUT / knee, above)


def _feature_difference(reference: Tensor, test: Tensor, pixels_per_degree: float) -> Tensor:
    """Difference of edges and points, equations 13 to 17. [H, W]"""
    sigma = 0.5 * _FEATURE_WIDTH_DEG * pixels_per_degree
    radius = math.ceil(3 * sigma)
    x = torch.arange(-radius, radius + 1, dtype=reference.dtype, device=reference.device)
    smooth = torch.exp(-(x**2) / (2 * sigma**2))
    smooth = smooth / smooth.sum()
    edge, point = _balance(-x * smooth), _balance((x**2 / sigma**2 - 1) * smooth)
    strengths = []
    for image in (reference, test):
        edges = _filter(image, edge, smooth).square() + _filter(image, smooth, edge).square()
        points = _filter(image, point, smooth).square() + _filter(image, smooth, point).square()
        strengths.append(torch.stack([edges.sqrt(), points.sqrt()]))
    largest = (strengths[0] - strengths[1]).abs().amax(dim=0)
    return (largest / math.sqrt(2)) ** _FEATURE_EXPONENT


def _balance(kernel: Tensor) -> Tensor:
    """Scale the positive weights to sum 1 and the negative ones to sum -1."""
    return torch.where(kernel > 0, kernel / kernel.clamp_min(0).sum(), kernel / -kernel.clamp_max(0).sum())


def _filter(image: Tensor, along_x: Tensor, along_y: Tensor) -> Tensor:  # [H, W], kernels flipped as by correlation
    half = len(along_x) // 2
    padded = torch.nn.functional.pad(image[None, None], (half, half, half, half), mode="replicate")
    rows = torch.nn.functional.conv2d(padded, along_x.view(1, 1, 1, -1))
    return torch.nn.functional.conv2d(rows, along_y.view(1, 1, -1, 1))[0, 0]


def _hyab(a: Tensor, b: Tensor) -> Tensor:  # City-block in lightness, Euclidean in the chroma plane, equation 10
    return (a[..., 0] - b[..., 0]).abs() + (a[..., 1:] - b[..., 1:]).square().sum(dim=-1).sqrt()


def _hunt(lab: Tensor) -> Tensor:  # Colours look fainter in the dark, equation 9
    return torch.cat([lab[..., :1], 0.01 * lab[..., :1] * lab[..., 1:]], dim=-1)


def _linear_from_srgb(srgb: Tensor) -> Tensor:
    return torch.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)


def _xyz_from_linear(like: Tensor) -> Tensor:
    """Matrix to XYZ over the white point: rows sum to 1. From the primaries of sRGB and white D65. [3, 3]"""
    primaries = torch.tensor([[0.64, 0.33], [0.30, 0.60], [0.15, 0.06]], dtype=torch.float64)
    white = torch.tensor([0.3127, 0.3290], dtype=torch.float64)
    columns = torch.cat([primaries, 1 - primaries.sum(dim=1, keepdim=True)], dim=1).T
    white_xyz = torch.cat([white, 1 - white.sum(dim=0, keepdim=True)]) / white[1]
    matrix = columns * torch.linalg.solve(columns, white_xyz) / white_xyz[:, None]
    return matrix.to(like.device, like.dtype)


def _opponent_from_linear(linear: Tensor) -> Tensor:  # YCxCz, CIELAB without its cube root
    x, y, z = (linear @ _xyz_from_linear(linear).T).unbind(dim=-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


def _linear_from_opponent(opponent: Tensor) -> Tensor:
    y = (opponent[..., 0] + 16) / 116
    xyz = torch.stack([y + opponent[..., 1] / 500, y, y - opponent[..., 2] / 200], dim=-1)
    return xyz @ torch.linalg.inv(_xyz_from_linear(opponent)).T


def _lab_from_linear(linear: Tensor) -> Tensor:
    xyz = linear @ _xyz_from_linear(linear).T
    delta = 6 / 29
    root = torch.where(xyz > delta**3, xyz.clamp_min(delta**3) ** (1 / 3), xyz / (3 * delta**2) + 4 / 29)
    x, y, z = root.unbind(dim=-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)
