"""How sharp an image is, from its second derivatives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def laplacian_variance(grey: NDArray[np.float32]) -> float:
    """Variance of the 4-neighbour Laplacian: low for blurred and for empty images.

    Args:
        grey: Grey levels. [H, W]

    Returns:
        The variance, levels squared; 0 for images under 3 pixels a side. Pech-Pacheco 2000.
    """
    if min(grey.shape) < 3:
        return 0.0
    centre = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * centre
    return float(laplacian.var())
