"""Colour maps whose lightness rises evenly from 0 to 1, so that equal steps of a value look equal, in grey too.

Built in OKLCh (Ottosson 2020): lightness linear in the value, hue turning at constant speed, as much chroma as asked
for or as sRGB can show.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

LEVELS = 256


@dataclass(frozen=True)
class Ramp:
    """A path through OKLCh.

    Attributes:
        lightness: First and last OKLab lightness, 0 to 1.
        hue_deg: First and last hue, degrees; the ramp turns from one to the other.
        chroma: Chroma in the middle of the ramp.
    """

    lightness: tuple[float, float]
    hue_deg: tuple[float, float]
    chroma: float


HEAT = Ramp(lightness=(0.08, 0.97), hue_deg=(290.0, 463.0), chroma=0.21)
"""Black, violet, red, orange, pale yellow: for errors."""
DEPTH = Ramp(lightness=(0.22, 0.97), hue_deg=(285.0, 105.0), chroma=0.15)
"""Dark blue, teal, green, pale yellow: for depth, where near is bright."""

# Linear sRGB from the cubed cone responses of OKLab, and cone responses from OKLab (Ottosson 2020).
_RGB_FROM_LMS = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)
_LMS_FROM_LAB = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
)


def colorize(values: Tensor, ramp: Ramp = HEAT) -> Tensor:
    """Colour values in [0, 1]; what lies outside is clamped, NaN is shown as 0.

    Args:
        values: Any shape [...].
        ramp: The colours.

    Returns:
        sRGB, uint8. [..., 3]
    """
    index = (values.nan_to_num(0.0).clamp(0, 1) * (LEVELS - 1)).round().long()
    return _table(ramp)[index.cpu()]


def css_stops(n_stops: int, ramp: Ramp = HEAT) -> list[str]:
    """The ramp as n_stops evenly spaced CSS colours, "#rrggbb"."""
    colors = colorize(torch.linspace(0, 1, n_stops), ramp)
    return ["#" + "".join(f"{channel:02x}" for channel in color) for color in colors.tolist()]


@lru_cache(maxsize=8)
def _table(ramp: Ramp) -> Tensor:
    """The ramp in LEVELS steps, uint8. [LEVELS, 3]"""
    t = torch.linspace(0, 1, LEVELS, dtype=torch.float64)
    lightness = ramp.lightness[0] + t * (ramp.lightness[1] - ramp.lightness[0])
    hue = torch.deg2rad(ramp.hue_deg[0] + t * (ramp.hue_deg[1] - ramp.hue_deg[0]))
    chroma = ramp.chroma * (torch.pi * t).sin().clamp_min(0).sqrt()
    low, high = torch.zeros_like(t), chroma
    # Bisect the largest chroma that sRGB can show at this lightness and hue.
    for _ in range(20):
        middle = (low + high) / 2
        linear = _linear_rgb(lightness, middle, hue)
        fits = ((linear >= 0) & (linear <= 1)).all(dim=-1)
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    linear = _linear_rgb(lightness, low, hue).clamp(0, 1)
    srgb = torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(1e-9) ** (1 / 2.4) - 0.055)
    return (srgb * 255).round().to(torch.uint8)


def _linear_rgb(lightness: Tensor, chroma: Tensor, hue: Tensor) -> Tensor:
    lab = torch.stack([lightness, chroma * hue.cos(), chroma * hue.sin()], dim=-1)
    lms = lab @ torch.tensor(_LMS_FROM_LAB, dtype=lab.dtype).T
    return lms**3 @ torch.tensor(_RGB_FROM_LMS, dtype=lab.dtype).T
