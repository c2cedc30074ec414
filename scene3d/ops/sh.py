"""Real spherical harmonics of degree 0 to 3, in the order and with the signs of 3D Gaussian splatting files.

Band l has 2l+1 functions, m = -l..l; K = (degree+1)^2 functions in all. Colour = 0.5 + sum of coefficients times basis.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_DEGREE = 3
C0 = 0.28209479177387814  # sqrt(1 / 4 pi)
_C1 = 0.4886025119029199  # sqrt(3 / 4 pi)
_C2_XY = 1.0925484305920792  # sqrt(15 / 4 pi)
_C2_ZZ = 0.31539156525252005  # sqrt(5 / 16 pi)
_C2_XX_YY = 0.5462742152960396  # sqrt(15 / 16 pi)
_C3_3 = 0.5900435899266435  # sqrt(35 / 32 pi)
_C3_XYZ = 2.890611442640554  # sqrt(105 / 4 pi)
_C3_1 = 0.4570457994644658  # sqrt(21 / 32 pi)
_C3_0 = 0.3731763325901154  # sqrt(7 / 16 pi)
_C3_2 = 1.445305721320277  # sqrt(105 / 16 pi)


def from_rgb(rgb: Tensor) -> Tensor:
    """Degree-0 coefficient of a colour that is the same from everywhere."""
    return (rgb - 0.5) / C0


def to_rgb(sh0: Tensor) -> Tensor:
    """Colour of a degree-0 coefficient, unclamped."""
    return sh0 * C0 + 0.5


def basis(dirs: Tensor, degree: int) -> Tensor:
    """Evaluate the basis functions.

    Args:
        dirs: Unit directions. [..., 3]
        degree: 0 to 3.

    Returns:
        [..., K].

    Differentiable in dirs.
    """
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"degree: expected 0 to {MAX_DEGREE}, got {degree}")
    x, y, z = dirs.unbind(dim=-1)
    xx, yy, zz = x * x, y * y, z * z
    values = [torch.full_like(x, C0)]
    if degree >= 1:
        values += [-_C1 * y, _C1 * z, -_C1 * x]
    if degree >= 2:
        values += [_C2_XY * x * y, -_C2_XY * y * z, _C2_ZZ * (2 * zz - xx - yy), -_C2_XY * x * z, _C2_XX_YY * (xx - yy)]
    if degree >= 3:
        values += [
            -_C3_3 * y * (3 * xx - yy),
            _C3_XYZ * x * y * z,
            -_C3_1 * y * (4 * zz - xx - yy),
            _C3_0 * z * (2 * zz - 3 * xx - 3 * yy),
            -_C3_1 * x * (4 * zz - xx - yy),
            _C3_2 * z * (xx - yy),
            -_C3_3 * x * (xx - 3 * yy),
        ]
    return torch.stack(values, dim=-1)


def evaluate(sh0: Tensor, shN: Tensor, dirs: Tensor, degree: int) -> Tensor:
    """Colour seen along `dirs`, from the camera towards the Gaussian, clamped to be no less than 0.

    Args:
        sh0: [N, 1, 3]
        shN: At least the coefficients of `degree`. [N, K-1, 3]
        dirs: Unit directions. [N, 3]
        degree: Highest band used.

    Returns:
        [N, 3].

    Differentiable in sh0, shN and dirs.
    """
    values = basis(dirs, degree)
    coefficients = torch.cat([sh0, shN[:, : values.shape[-1] - 1]], dim=1)
    return ((values[:, :, None] * coefficients).sum(dim=1) + 0.5).clamp_min(0)


def band_rotations(rotation: Tensor, degree: int) -> list[Tensor]:
    """Matrices that turn the coefficients of each band along with the scene.

    A rotated band is again a combination of the functions of that band, so the matrix that explains the values at
    enough directions is the exact one: B(d) M = B(R^T d).

    Args:
        rotation: new_from_old. [3, 3]
        degree: 0 to 3.

    Returns:
        Band l: [2l+1, 2l+1], dtype of rotation; new coefficients = M @ old.
    """
    exact = rotation.detach().to("cpu", torch.float64)
    dirs = _spread_directions()
    before, after = basis(dirs @ exact, degree), basis(dirs, degree)
    bands = [slice(l * l, (l + 1) ** 2) for l in range(degree + 1)]
    matrices = [torch.linalg.lstsq(after[:, band], before[:, band]).solution for band in bands]
    return [matrix.to(rotation.device, rotation.dtype) for matrix in matrices]


def rotate(shN: Tensor, rotation: Tensor) -> Tensor:
    """Turn coefficients along with the scene; degree 0 does not change.

    Args:
        shN: [N, K-1, 3] with K in (1, 4, 9, 16)
        rotation: new_from_old. [3, 3]

    Returns:
        [N, K-1, 3].

    Differentiable in shN.
    """
    degree = round((shN.shape[1] + 1) ** 0.5) - 1
    if degree == 0:
        return shN
    matrices = [matrix.to(shN.device, shN.dtype) for matrix in band_rotations(rotation, degree)[1:]]
    parts = shN.split([2 * l + 1 for l in range(1, degree + 1)], dim=1)
    return torch.cat([matrix @ part for matrix, part in zip(matrices, parts, strict=True)], dim=1)


def _spread_directions(n: int = 32) -> Tensor:  # [n, 3], a Fibonacci lattice on the sphere
    index = torch.arange(n, dtype=torch.float64) + 0.5
    z = 1 - 2 * index / n
    longitude = index * (torch.pi * (3 - 5**0.5))
    ring = (1 - z * z).sqrt()
    return torch.stack([ring * longitude.cos(), ring * longitude.sin(), z], dim=1)
