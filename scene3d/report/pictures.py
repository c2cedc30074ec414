"""Pictures of an evaluation: photo, render and error side by side, with the scale of the error written on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from scene3d.ops.colormap import HEAT, LEVELS, colorize
from scene3d.render.frames import to_bytes
from scene3d.report.evaluate import Comparison

# FLIP of a good render lies far below 1; half the range shows where it errs.
ERROR_MAX = 0.5
# Panels of small images are enlarged, so that labels can be read.
MIN_PANEL = 260
INK, MUTED, PAPER = (24, 24, 27), (113, 113, 122), (255, 255, 255)


@dataclass(frozen=True)
class ViewPictures:
    """8-bit images of one view.

    Attributes:
        truth: The photo.
        render: The render.
        error: FLIP as colours from 0 to ERROR_MAX.
        side_by_side: All three with labels and scale.
    """

    truth: Image.Image
    render: Image.Image
    error: Image.Image
    side_by_side: Image.Image


def draw_pictures(comparison: Comparison) -> ViewPictures:
    """Draw the pictures of one view."""
    truth, render = _image(to_bytes(comparison.truth)), _image(to_bytes(comparison.render))
    error = _image(colorize(comparison.error / ERROR_MAX, HEAT))
    return ViewPictures(truth, render, error, _side_by_side(comparison, (truth, render, error)))


def _side_by_side(comparison: Comparison, panels: tuple[Image.Image, ...]) -> Image.Image:
    zoom = -(-MIN_PANEL // panels[0].width)
    # Whole multiples without smoothing: enlarged pixels stay what they are.
    panels = tuple(p.resize((p.width * zoom, p.height * zoom), Image.Resampling.NEAREST) for p in panels)
    width, height = panels[0].size
    size = max(12, round(width / 26))
    font = ImageFont.load_default(size)
    gap, band = max(4, size // 3), round(1.9 * size)
    sheet = Image.new("RGB", (3 * width + 2 * gap, height + 2 * band), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (label, panel) in enumerate(zip(("photo", "render", "error (FLIP)"), panels, strict=True)):
        left = i * (width + gap)
        sheet.paste(panel, (left, band))
        draw.text((left + size // 2, band // 2), label, INK, font, anchor="lm")
    score, middle = comparison.score, height + band + band // 2
    draw.text((size // 2, middle), _fitting(score.name, width - size, font), MUTED, font, anchor="lm")
    words = f"PSNR {score.psnr:.2f} dB   SSIM {score.ssim:.3f}"
    draw.text((width + gap + size // 2, middle), words, INK, font, anchor="lm")
    _draw_scale(sheet, (2 * (width + gap), height + band, width, band), font, f"mean {score.flip:.3f}")
    return sheet


def _draw_scale(
    sheet: Image.Image, box: tuple[int, int, int, int], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, mean: str
) -> None:
    """The colours from 0 to ERROR_MAX, with their numbers, in box (left, top, width, height)."""
    left, top, width, height = box
    draw = ImageDraw.Draw(sheet)
    middle, pad = top + height // 2, height // 4
    low, high = "0", f"{ERROR_MAX:g}+"
    mean_width, low_width, high_width = (round(draw.textlength(text, font)) for text in (mean, low, high))
    draw.text((left + pad, middle), mean, INK, font, anchor="lm")
    begin = left + 3 * pad + mean_width + low_width + pad
    end = left + width - high_width - 2 * pad
    draw.text((begin - pad, middle), low, MUTED, font, anchor="rm")
    draw.text((end + pad, middle), high, MUTED, font, anchor="lm")
    if end - begin < 8:
        return
    ramp = _image(colorize(torch.linspace(0, 1, LEVELS)[None]))
    sheet.paste(ramp.resize((end - begin, max(height // 3, 4))), (begin, middle - height // 6))


def _fitting(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The end of a long name: there lies what tells it from others."""
    while len(text) > 4 and font.getlength(text) > width:
        text = "…" + text[2:]
    return text


def _image(pixels: Tensor) -> Image.Image:  # [H, W, 3] uint8
    return Image.fromarray(np.ascontiguousarray(pixels.cpu().numpy()))
