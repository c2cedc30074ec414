"""Matrices of foreign scene graphs, of which Gaussians can follow only rotations, one scale and translations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from scene3d.core.errors import FormatError
from scene3d.ops.rigid import Sim3

# Relative difference of the axes up to which a matrix passes as a rotation times one scale.
TOLERANCE = 1e-4


def similarity(path: Path, where: str, matrix: np.ndarray) -> Sim3 | None:
    """The transform of a [4, 4] matrix that multiplies columns, None for the identity.

    Raises:
        FormatError: the matrix shears, mirrors, stretches or holds no numbers; path and `where` are for the message.
    """
    if np.array_equal(matrix, np.eye(4)):
        return None
    linear = matrix[:3, :3]
    with np.errstate(all="ignore"):
        scale = max(float(np.linalg.det(linear)), 0.0) ** (1 / 3)
        is_rigid = scale > 0 and bool(np.abs(linear.T @ linear / scale**2 - np.eye(3)).max() < TOLERANCE)
    if not is_rigid or not np.isfinite(matrix).all():
        raise FormatError(path, f"{where}: expected a rotation, one scale and a translation")
    return Sim3(torch.from_numpy(linear / scale), torch.from_numpy(matrix[:3, 3].copy()), scale)
