"""Outlines of a mesh in a picture: between which pixels a near surface ends, and how far its colour really reaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.ops.depth_edges import ONE_SURFACE

# Outlines are looked for so many pixels to either side.
REACH = 4
# Depths on both sides of an outline differ by this share at least.
MIN_JUMP = 0.01
# Along a line of pixels a surface goes on where depth changes by less than this share in all.
SAME_SURFACE = 0.08
# Colours that differ by less than about this, of 1, say nothing about where one ends.
CONTRAST = 0.1
# What both colours leave unexplained, root mean square: about the most that is believed.
RESIDUAL = 0.1
# Pixels on both sides that are known, at least.
MIN_PIXELS = 4
# The end of the near colour is summed up over so many pixels to either side of where it is found.
MIXED = 2


@dataclass(frozen=True)
class Outline:
    """P pairs of neighbouring pixels between which a near surface ends.

    Attributes:
        rows: Of the near pixel. [P]
        columns: Of the near pixel. [P]
        step: From the near to the far pixel: 1 or -1.
        axis: 0 = pairs above each other, 1 = side by side.
    """

    rows: Tensor
    columns: Tensor
    step: int
    axis: int

    def select(self, keep: Tensor) -> Outline:
        return Outline(self.rows[keep], self.columns[keep], self.step, self.axis)


@dataclass(frozen=True)
class Across:
    """Where the picture has P outlines.

    Attributes:
        shift: From the middle between both pixels towards the far one, pixels. [P]
        weight: How sure that is, 0 to 1. [P]
    """

    shift: Tensor
    weight: Tensor


def find_outlines(nearness: Tensor) -> list[Outline]:
    """All outlines in an image of 1 / z [H, W], 0 = nothing."""
    found = []
    for axis in (0, 1):
        n = nearness.shape[axis]
        if n < 3:
            continue
        bend = torch.zeros_like(nearness)
        both = nearness.narrow(axis, 0, n - 2) + nearness.narrow(axis, 2, n - 2)
        bend.narrow(axis, 1, n - 2).copy_((both - 2 * nearness.narrow(axis, 1, n - 2)).abs())
        before, after = nearness.narrow(axis, 0, n - 1), nearness.narrow(axis, 1, n - 1)
        bent = torch.maximum(bend.narrow(axis, 0, n - 1), bend.narrow(axis, 1, n - 1))
        for step, near, far in ((1, before, after), (-1, after, before)):
            # 1 / z is linear on planes: a bend may be an outline, a slope is none.
            rows, columns = ((near - far > MIN_JUMP * near) & (bent > ONE_SURFACE * near)).nonzero(as_tuple=True)
            if step < 0:
                rows, columns = (rows + 1, columns) if axis == 0 else (rows, columns + 1)
            found.append(Outline(rows, columns, step, axis))
    return found


def outward_directions(nearness: Tensor) -> Tensor:
    """Unit directions (x, y) from near to far around outlines in an image of 1 / z [H, W]. [H, W, 2]"""
    smooth = nearness[None, None]
    for _ in range(2):
        smooth = torch.nn.functional.avg_pool2d(smooth, 5, 1, 2, count_include_pad=False)
    slope_y, slope_x = torch.gradient(smooth[0, 0])
    return -torch.nn.functional.normalize(torch.stack([slope_x, slope_y], dim=-1), dim=-1, eps=1e-20)


def shifts_of(outline: Outline, shown: Callable[[Tensor, Tensor], Tensor], picture: Tensor, nearness: Tensor) -> Across:
    """How far the near colours of a mesh reach in a picture of the scene.

    Args:
        outline: Of the mesh.
        shown: From rows and columns [...] to what the mesh shows there, colour and opacity [..., 4].
        picture: Of the scene: colour over black, opacity. [H, W, 4] uint8
        nearness: 1 / z of the mesh, 0 = nothing. [H, W]
    """
    rows, columns, is_inside = _lines(outline, nearness)
    is_near = torch.arange(2 * REACH) < REACH
    depth = nearness[rows, columns]
    own = torch.where(is_near, depth[:, REACH - 1 : REACH], depth[:, REACH : REACH + 1])
    same = is_inside & ((depth - own).abs() <= SAME_SURFACE * torch.maximum(depth, own))
    # From the outline on, up to where either surface ends.
    left, right = same[:, :REACH].flip(1).cumprod(dim=1).flip(1), same[:, REACH:].cumprod(dim=1)
    known = torch.cat([left, right], dim=1)
    model, truth = shown(rows, columns), picture[rows, columns].float() / 255
    near, far = (_continued(model, known * side, k) for side, k in ((is_near, REACH - 1), (~is_near, REACH)))
    apart = near - far
    contrast = apart.square().sum(dim=2)
    share = (((truth - far) * apart).sum(dim=2) / contrast.clamp_min(1e-6)).clamp(0, 1)
    end = _best_end((truth - near).square().sum(dim=2) * known, (truth - far).square().sum(dim=2) * known)
    place = torch.arange(2 * REACH)
    mixed = known * ((place + 0.5 - end[:, None]).abs() < MIXED)
    shift = end - REACH + ((share - (place < end[:, None]).float()) * mixed).sum(dim=1)
    # What lies behind the next surface is unknown: no farther than half of the way there.
    shift = torch.minimum(torch.maximum(shift, -_limit(left)), _limit(right))
    left_over = (truth - far - share[..., None] * apart).square().mean(dim=2)
    return Across(shift, _trust(contrast, left_over, known) * _is_bounded(far, truth, right))


def _lines(outline: Outline, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and columns of the pixels across each outline, near ones first, and which are in the image. [P, 2 REACH]"""
    height, width = image.shape
    along = (torch.arange(1 - REACH, REACH + 1) * outline.step).expand(len(outline.rows), -1)
    rows = outline.rows[:, None] + along * (1 - outline.axis)
    columns = outline.columns[:, None] + along * outline.axis
    is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return rows.clamp(0, height - 1), columns.clamp(0, width - 1), is_inside


def _continued(values: Tensor, known: Tensor, k: int) -> Tensor:
    """Values of lines [P, L, D] where they are known, those of place k elsewhere."""
    return torch.where(known[..., None] > 0, values, values[:, k : k + 1])


def _best_end(as_near: Tensor, as_far: Tensor) -> Tensor:
    """How many of the pixels of a line are near, at the least sum of squares [P, L]. [P]"""
    start = torch.zeros_like(as_near[:, :1])
    cost = torch.cat([start, (as_near - as_far).cumsum(dim=1)], dim=1)
    return cost.argmin(dim=1)


def _limit(run: Tensor) -> Tensor:  # [P, REACH] -> [P]
    n = run.sum(dim=1)
    return torch.where(n < REACH, n / 2, float(REACH))


def _trust(contrast: Tensor, left_over: Tensor, known: Tensor) -> Tensor:
    n = known.sum(dim=1)
    strength = (contrast * known).sum(dim=1) / n.clamp_min(1)
    unexplained = (left_over * known).sum(dim=1) / n.clamp_min(1)
    return strength / (strength + CONTRAST**2) * torch.exp(-unexplained / RESIDUAL**2) * (n >= MIN_PIXELS)


def _is_bounded(far: Tensor, truth: Tensor, right: Tensor) -> Tensor:
    """1 but where the mesh shows nothing behind the outline and the scene does: there only the mesh ends. [P]"""
    last = (REACH + right.sum(dim=1) - 1).clamp_min(REACH).long()
    opacity = truth[torch.arange(len(truth)), last, 3]
    return torch.where(far[:, REACH, 3] > 0, 1.0, 1 - opacity)
