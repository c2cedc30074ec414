"""Depth supervision of splats: rendered depth is drawn to the depth maps of a capture, where it has some."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scene3d.core.capture import Capture
from scene3d.core.errors import CaptureError
from scene3d.core.gaussians import Gaussians
from scene3d.recon.descent import Objective
from scene3d.recon.photos import on_device
from scene3d.recon.settings import FitSettings
from scene3d.render.types import Render

# Relative error beyond which the gradient does not grow: floaters at the camera, or things behind a gap.
MOST_OFF = 0.2
# Maps that are kept instead of being read for each step.
KEPT_BYTES = 1 << 28


def with_depth_maps(objective: Objective | None, capture: Capture, settings: FitSettings) -> Objective | None:
    """The objective, with the error of depth added to its penalty where settings.depth_weight asks for it.

    Raises:
        CaptureError: no training photo has a depth map.
    """
    if settings.depth_weight == 0:
        return objective
    if all(capture.load_depth(i) is None for i in capture.train):
        remedy = (
            "Name them in transforms.json (depth_file_path, depth_unit_scale_factor), or leave --depth-weight away."
        )
        raise CaptureError(capture.source, "no training photo has a depth map", remedy)
    before, load = objective or Objective(), _Maps(capture)

    def penalty(gaussians: Gaussians, render: Render, view: int, fraction: float) -> Tensor | None:
        others = before.penalty(gaussians, render, view, fraction)
        depth = load(view)
        if depth is None:
            return others
        own = settings.depth_weight * depth_error(render, depth)
        return own if others is None else others + own

    return replace(before, penalty=penalty, with_depth=True)


class _Maps:
    """Depth maps of a capture, kept once they are read, as long as a budget lasts."""

    def __init__(self, capture: Capture) -> None:
        self._capture, self._left = capture, KEPT_BYTES
        self._kept: dict[int, Tensor] = {}

    def __call__(self, view: int) -> Tensor | None:
        depth = self._kept.get(view)
        if depth is None:
            depth = self._capture.load_depth(view)
            if depth is not None and depth.numel() * depth.element_size() <= self._left:
                self._kept[view] = depth
                self._left -= depth.numel() * depth.element_size()
        return depth


def depth_error(render: Render, depth: Tensor) -> Tensor:
    """Mean relative error of the expected depth of one view, weighted by opacity, squared where it is small (Huber).

    Args:
        render: With depth.
        depth: z in the camera, 0 = unknown; any multiple of the size of the render. [H, W]

    Differentiable in the depth of the render.
    """
    assert render.depth is not None
    seen, alpha = render.depth[0, ..., 0], render.alpha[0, ..., 0].detach()
    depth = on_device(_at_size(depth, seen.shape[0], seen.shape[1]), seen.device)
    known = depth > 0
    off = alpha * (seen / depth.clamp_min(1e-6) - 1)
    errors = torch.nn.functional.huber_loss(off, torch.zeros_like(off), reduction="none", delta=MOST_OFF)
    return torch.where(known, errors, 0.0).sum() / known.sum().clamp_min(1)


def _at_size(depth: Tensor, height: int, width: int) -> Tensor:
    """The nearest pixels of a map: the mean of two surfaces is on neither. [height, width]"""
    row = ((torch.arange(height) + 0.5) * (depth.shape[0] / height)).long()
    column = ((torch.arange(width) + 0.5) * (depth.shape[1] / width)).long()
    return depth[row[:, None], column[None]]
