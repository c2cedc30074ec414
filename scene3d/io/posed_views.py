"""What a reader of a capture format finds: photos with lens and pose, before sizes are checked and lenses undone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scene3d.ops.lens import Lens

# Rotations are written with few digits: below this they are taken as they are, to the last bit.
ROTATION_TOLERANCE = 1e-4


@dataclass(frozen=True)
class PosedView:
    """One photo as its capture format describes it.

    Attributes:
        name: What the format calls it; views are sorted by it.
        image_path: The photo, which exists.
        lens: Its distortion.
        focal: fx, fy in pixels; None where only angle_x is known.
        center: Principal point in pixels; None for the middle.
        size: Width and height that focal and center belong to; None for the photo's own.
        cam_from_world: Rigid, OpenCV axes. [4, 4] float64
        angle_x: Horizontal field of view in radians, used where focal is None.
        mask_path: White = keep, or None.
        depth: A depth map, and the scene units of one step of its numbers; None where there is none.
        split: "train", "test" or "" where the format does not say.
    """

    name: str
    image_path: Path
    lens: Lens
    focal: tuple[float, float] | None
    center: tuple[float, float] | None
    size: tuple[int, int] | None
    cam_from_world: np.ndarray
    angle_x: float = 0.0
    mask_path: Path | None = None
    split: str = ""
    depth: tuple[Path, float] | None = None


@dataclass(frozen=True)
class PosedViews:
    """All of a capture.

    Attributes:
        views: Those whose photo and pose are there.
        points: World frame. [P, 3] float32
        point_colors: [P, 3] uint8
        notices: What was left out or changed.
    """

    views: tuple[PosedView, ...]
    points: Tensor = field(default_factory=lambda: torch.zeros(0, 3))
    point_colors: Tensor = field(default_factory=lambda: torch.zeros(0, 3, dtype=torch.uint8))
    notices: tuple[str, ...] = ()


def rigid(matrix: np.ndarray) -> tuple[np.ndarray, bool] | None:
    """The rigid transform nearest to `matrix`, which may hold a scale or rounding errors.

    Args:
        matrix: Affine. [4, 4]

    Returns:
        The transform [4, 4] float64 and whether it differs from `matrix` by more than rounding; None where there is
        no such transform: NaN, infinity, a mirrored or a flat frame.
    """
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        return None
    linear = matrix[:3, :3].astype(np.float64)
    scale = np.cbrt(max(np.linalg.det(linear), 0.0))
    if not 1e-8 < scale < 1e8:
        return None
    result = np.eye(4)
    result[:3, 3] = matrix[:3, 3]
    is_off = np.abs(linear @ linear.T - np.eye(3)).max() > ROTATION_TOLERANCE
    if is_off:
        left, _, right = np.linalg.svd(linear)
        result[:3, :3] = left @ right
    else:
        result[:3, :3] = linear
    return result, bool(is_off)


def names_text(names: list[str], limit: int = 3) -> str:
    """A few names and how many more."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
