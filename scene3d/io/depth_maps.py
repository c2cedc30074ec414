"""Depth maps beside photos: z in the camera, in scene units, brought to the pixels of the pinhole view of a photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scene3d.core.errors import CaptureError
from scene3d.io.images import DECODE_ERRORS, PhotoPlan
from scene3d.ops.lens import distort

REMEDY = "Give 16-bit grey PNG files or float32 .npy files, or remove depth_file_path."


def load_depth(path: Path, unit: float, plan: PhotoPlan) -> Tensor:
    """Read a depth map of a photo.

    Values are taken from the nearest pixel: the mean of two surfaces is on neither. The map may be smaller or larger
    than the photo. Like the photo's pixels, depth is along the optical axis.

    Args:
        path: Grey image of whole numbers, or a .npy file.
        unit: Scene units of one step; numbers of .npy files are taken with it too.
        plan: How the photo becomes its view.

    Returns:
        [H, W] float32, 0 where nothing is known.

    Raises:
        CaptureError: the file is no depth map.
    """
    values = _read(path)
    if plan.is_turned:
        raise CaptureError(path, "belongs to a photo that its EXIF orientation turns", "Turn photo and map upright.")
    view, (width, height) = plan.view, plan.size
    # Centres of the pixels of the result in the undistorted grid of the photo.
    x = (torch.arange(width, dtype=torch.float64) + 0.5) * (view.width / width) + view.x0
    y = (torch.arange(height, dtype=torch.float64) + 0.5) * (view.height / height) + view.y0
    across, down = torch.meshgrid((x - view.cx) / view.fx, (y - view.cy) / view.fy, indexing="xy")
    placed = (
        torch.stack([across, down], dim=-1)
        if view.lens.is_pinhole
        else distort(torch.stack([across, down], -1), view.lens)
    )
    source_width, source_height = plan.source_size
    column = ((placed[..., 0] * view.fx + view.cx) * (values.shape[1] / source_width)).floor().long()
    row = ((placed[..., 1] * view.fy + view.cy) * (values.shape[0] / source_height)).floor().long()
    inside = (column >= 0) & (row >= 0) & (column < values.shape[1]) & (row < values.shape[0])
    found = values[row.clamp(0, values.shape[0] - 1), column.clamp(0, values.shape[1] - 1)] * unit
    return torch.where(inside & found.isfinite() & (found > 0), found, 0.0)


def _read(path: Path) -> Tensor:  # [H, W] float32
    try:
        if path.suffix.lower() == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as image:
                values = np.array(image)
    except DECODE_ERRORS as error:
        raise CaptureError(path, f"no depth map can be read from it ({error})", REMEDY) from error
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "uif":
        raise CaptureError(path, f"expected one number a pixel, got {values.dtype} of shape {values.shape}", REMEDY)
    return torch.from_numpy(values.astype(np.float32))
