"""Lenses: where a real lens puts a ray, and back. Points are (x/z, y/z) in the camera frame, OpenCV axes.

    perspective   d = 1 + k1 r² + k2 r⁴ + ... over 1 + q1 r² + q2 r⁴ + ...,   r² = x² + y²
                  x' = x d + 2 p1 x y + p2 (r² + 2 x²),   y' = y d + p1 (r² + 2 y²) + 2 p2 x y
    fisheye       θ = atan r,   θ' = θ (1 + k1 θ² + k2 θ⁴ + ...),   (x', y') = (x, y) θ' / r

Brown 1966; Kannala & Brandt 2006. COLMAP's and OpenCV's names map onto these two in lens_from_colmap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# COLMAP's models: names of the parameters in order. f stands for fx and fy together.
COLMAP_PARAMS = {
    "SIMPLE_PINHOLE": ("f", "cx", "cy"),
    "PINHOLE": ("fx", "fy", "cx", "cy"),
    "SIMPLE_RADIAL": ("f", "cx", "cy", "k1"),
    "RADIAL": ("f", "cx", "cy", "k1", "k2"),
    "OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2"),
    "OPENCV_FISHEYE": ("fx", "fy", "cx", "cy", "k1", "k2", "k3", "k4"),
    "FULL_OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "q1", "q2", "q3"),
    "SIMPLE_RADIAL_FISHEYE": ("f", "cx", "cy", "k1"),
    "RADIAL_FISHEYE": ("f", "cx", "cy", "k1", "k2"),
}
# Beyond this angle from the axis a pinhole image is stretched so much that it says nothing.
MAX_ANGLE = 1.4
NEWTON_STEPS = 30
# A rational lens is searched for its fold up to the radius of MAX_ANGLE in this many steps.
FOLD_SAMPLES = 4096


@dataclass(frozen=True)
class Lens:
    """A distortion model. The default distorts nothing.

    Attributes:
        is_fisheye: Equidistant projection instead of perspective.
        radial: k1, k2, ...
        tangential: p1, p2; perspective only.
        rational: q1, q2, ... of the denominator; perspective only.
    """

    is_fisheye: bool = False
    radial: tuple[float, ...] = ()
    tangential: tuple[float, float] = (0.0, 0.0)
    rational: tuple[float, ...] = ()

    @property
    def is_pinhole(self) -> bool:
        """Nothing is distorted."""
        return not self.is_fisheye and not any((*self.radial, *self.tangential, *self.rational))


def lens_from_colmap(model: str, params: Sequence[float]) -> tuple[Lens, tuple[float, float, float, float]]:
    """Split the parameters of a COLMAP camera into lens and (fx, fy, cx, cy) in pixels.

    Raises:
        ValueError: the model is not among COLMAP_PARAMS or has another number of parameters.
    """
    names = COLMAP_PARAMS.get(model)
    if names is None or len(names) != len(params):
        raise ValueError(f"camera model: expected one of {', '.join(COLMAP_PARAMS)}, got {model} of {len(params)}")
    values = dict(zip(names, (float(value) for value in params), strict=True))
    fx, fy = values.get("fx", values.get("f", 0.0)), values.get("fy", values.get("f", 0.0))
    lens = Lens(
        model.endswith("FISHEYE"),
        tuple(values[name] for name in ("k1", "k2", "k3", "k4") if name in values),
        (values.get("p1", 0.0), values.get("p2", 0.0)),
        tuple(values[name] for name in ("q1", "q2", "q3") if name in values),
    )
    return lens, (fx, fy, values["cx"], values["cy"])


def distort(points: Tensor, lens: Lens) -> Tensor:
    """Where the lens puts the rays `points`. [..., 2]

    Differentiable in points, except at the very axis of a fisheye lens.
    """
    x, y = points.unbind(-1)
    if lens.is_fisheye:
        # The floor makes 0/0 on the axis 1 there: atan(r)/r -> 1.
        r = (x * x + y * y).sqrt().clamp_min(torch.finfo(points.dtype).tiny)
        theta = torch.atan(r)
        return points * (theta * _series(theta * theta, lens.radial) / r)[..., None]
    r2 = x * x + y * y
    d = _series(r2, lens.radial) / _series(r2, lens.rational)
    p1, p2 = lens.tangential
    moved_x = x * d + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    moved_y = y * d + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return torch.stack([moved_x, moved_y], dim=-1)


def undistort(points: Tensor, lens: Lens) -> Tensor:
    """The rays that the lens puts at `points`, by Newton's method. [..., 2]

    Points that no ray within max_radius reaches come back as the nearest that one does, along the same direction.
    """
    if lens.is_pinhole:
        return points
    limit = max_radius(lens)
    length = points.norm(dim=-1).clamp_min(torch.finfo(points.dtype).tiny)
    radius = _invert_radial(length, lens, limit)
    rays = points * (radius / length)[..., None]
    if not any(lens.tangential) or lens.is_fisheye:
        return rays
    for _ in range(NEWTON_STEPS):
        rays = _inside(rays - _newton_step(rays, points, lens), limit)
    return rays


def max_radius(lens: Lens) -> float:
    """Radius up to which the lens is one to one: beyond it the polynomial folds back, or it is MAX_ANGLE."""
    limit = torch.tan(torch.tensor(MAX_ANGLE, dtype=torch.float64))
    angles = torch.linspace(0, MAX_ANGLE, FOLD_SAMPLES, dtype=torch.float64)
    radii = torch.tan(angles).clamp_max(limit)
    moved = _radial(radii, lens)
    folds = (moved.diff() <= 0).nonzero()
    return float(radii[folds[0, 0]]) if len(folds) else float(limit)


def _series(r2: Tensor, coefficients: Sequence[float]) -> Tensor:
    # 1 + k1 r² + k2 r⁴ + ... by Horner's rule.
    total = torch.zeros_like(r2)
    for k in reversed(coefficients):
        total = (total + k) * r2
    return 1 + total


def _radial(radii: Tensor, lens: Lens) -> Tensor:
    if lens.is_fisheye:
        theta = torch.atan(radii)
        return theta * _series(theta * theta, lens.radial)
    r2 = radii * radii
    return radii * _series(r2, lens.radial) / _series(r2, lens.rational)


def _invert_radial(moved: Tensor, lens: Lens, limit: float) -> Tensor:
    # Bisection in the angle: the radial part grows up to `limit`, and halving cannot run away as Newton can.
    low = torch.zeros_like(moved)
    high = torch.full_like(moved, limit).atan()
    for _ in range(60):
        middle = (low + high) / 2
        is_below = _radial(middle.tan(), lens) < moved
        low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
    return ((low + high) / 2).tan()


def _newton_step(rays: Tensor, points: Tensor, lens: Lens) -> Tensor:
    # Solve J step = distort(rays) - points with J by central differences.
    h = 1e-6 if rays.dtype == torch.float64 else 1e-3
    residual = distort(rays, lens) - points
    axes = torch.eye(2, dtype=rays.dtype) * h
    (a, c), (b, d) = (((distort(rays + e, lens) - distort(rays - e, lens)) / (2 * h)).unbind(-1) for e in axes)
    determinant = a * d - b * c
    # At a fold the determinant is 0: stay there.
    inverse = torch.where(determinant.abs() > 1e-9, 1 / determinant, torch.zeros_like(determinant))
    u, v = residual.unbind(-1)
    return torch.stack([(d * u - b * v) * inverse, (a * v - c * u) * inverse], dim=-1)


def _inside(rays: Tensor, limit: float) -> Tensor:
    return rays * (limit / rays.norm(dim=-1, keepdim=True).clamp_min(limit))
