"""Quaternions wxyz, [..., 4]. A rotation takes any non-zero length; the zero quaternion stays zero."""

from __future__ import annotations

import torch
from torch import Tensor


def normalize(quats: Tensor) -> Tensor:
    """Scale to length one; a zero quaternion stays zero, with zero gradient.

    Args:
        quats: wxyz, finite, any length. [..., 4]

    Returns:
        Unit quaternions, or zeros where the input is zero. [..., 4]

    Differentiable in quats.
    """
    # The largest entry is divided out first, as a constant: squares of 1e-30 or 1e30 leave the range of float32.
    largest = quats.detach().abs().amax(dim=-1, keepdim=True)
    is_zero = largest == 0
    bounded = torch.where(
        is_zero, torch.zeros_like(quats), quats / torch.where(is_zero, torch.ones_like(largest), largest)
    )
    squares = bounded.square().sum(dim=-1, keepdim=True)
    return bounded / torch.where(is_zero, torch.ones_like(squares), squares).sqrt()


def to_rotmat(quats: Tensor) -> Tensor:
    """Rotation matrices of quaternions of any length; zeros give the identity (callers drop them before).

    Args:
        quats: wxyz. [..., 4]

    Returns:
        [..., 3, 3].

    Differentiable in quats.
    """
    w, x, y, z = normalize(quats).unbind(dim=-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def from_rotmat(rotmats: Tensor) -> Tensor:
    """Unit quaternions, w >= 0, of rotation matrices.

    Each row of `outer` is 4 q_k q, once for every k; the row of the largest q_k is the accurate one (Shepperd 1978).

    Args:
        rotmats: [..., 3, 3]

    Returns:
        wxyz. [..., 4]
    """
    m = rotmats
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    rows = [
        torch.stack([1 + m00 + m11 + m22, wx, wy, wz], dim=-1),
        torch.stack([wx, 1 + m00 - m11 - m22, xy, xz], dim=-1),
        torch.stack([wy, xy, 1 - m00 + m11 - m22, yz], dim=-1),
        torch.stack([wz, xz, yz, 1 - m00 - m11 + m22], dim=-1),
    ]
    outer = torch.stack(rows, dim=-2)
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    quats = normalize(outer.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2))
    return torch.where(quats[..., :1] < 0, -quats, quats)


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product: the rotation b, then a.

    Args:
        a: wxyz. [..., 4]
        b: wxyz. [..., 4]

    Returns:
        [..., 4].
    """
    aw, ax, ay, az = a.unbind(dim=-1)
    bw, bx, by, bz = b.unbind(dim=-1)
    product = [
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    ]
    return torch.stack(product, dim=-1)


def slerp(a: Tensor, b: Tensor, fraction: Tensor | float) -> Tensor:
    """Turn from a to b at constant speed, the short way round.

    Args:
        a: Start, any non-zero length. [..., 4]
        b: End, any non-zero length. [..., 4]
        fraction: 0 gives a, 1 gives b. Number or [...]

    Returns:
        Unit quaternions. [..., 4]
    """
    a, b = normalize(a), normalize(b)
    fraction = torch.as_tensor(fraction, dtype=a.dtype, device=a.device)[..., None]
    b = torch.where((a * b).sum(dim=-1, keepdim=True) < 0, -b, b)
    # The half angle from chord lengths is accurate for angles near 0, where acos is not.
    angle = 2 * torch.atan2((a - b).norm(dim=-1, keepdim=True), (a + b).norm(dim=-1, keepdim=True))
    sine = angle.sin()
    is_small = sine < 1e-6  # Linear interpolation is exact to rounding below this angle.
    sine = torch.where(is_small, torch.ones_like(sine), sine)
    weight_a = torch.where(is_small, 1 - fraction, ((1 - fraction) * angle).sin() / sine)
    weight_b = torch.where(is_small, fraction, (fraction * angle).sin() / sine)
    return normalize(weight_a * a + weight_b * b)
