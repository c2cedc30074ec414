"""Surround: what a camera path needs to know of a scene: where to look, which way is up, how far away to stay."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.render.scene_points import ScenePoints

# Most splat files come from COLMAP frames, where y points down.
DEFAULT_UP = (0.0, -1.0, 0.0)
# A bare scene has no cameras: one that sees 60 degrees across a square image.
DEFAULT_FOV_DEG = 60.0
# Distance over reach at which a ball fits into the shorter side of a 16:9 image of that field of view.
DISTANCE_PER_REACH = 2.4
# Half of an object's mass lies farther from its middle than this share of its reach.
OBJECT_SHARE = 0.25
# Of more points every n-th is looked at: their middle and reach are found as well, and viewers open sooner.
MAX_POINTS = 30_000
AXIS_COSINE = 0.985  # 10 degrees.


@dataclass(frozen=True)
class Surround:
    """A scene seen from around.

    Attributes:
        focus: Point to look at, world. [3]
        up: Unit vector. [3]
        distance: From the focus to the cameras, horizontally.
        height: Of the cameras above the focus, along up.
        focal_ratio: Focal length over the geometric mean of width and height.
        heading: Unit vector, horizontal, from the focus to where a path starts. [3]
        arc_deg: Angle around the focus, seen from above, from which there are views.
    """

    focus: Tensor
    up: Tensor
    distance: float
    height: float
    focal_ratio: float
    heading: Tensor
    arc_deg: float = 360.0

    def horizontal(self) -> tuple[Tensor, Tensor]:
        """Unit vectors along the heading and, seen from above, 90 degrees to its left. [3], [3]"""
        return self.heading, torch.linalg.cross(self.up, self.heading)


def from_cameras(cameras: Cameras, up: tuple[float, float, float] | None = None) -> Surround:
    """The surround of posed views: the point nearest to all lines of sight, the common up of the images.

    Args:
        cameras: At least one view.
        up: World direction to take instead.
    """
    cameras = cameras.to(dtype=torch.float64)
    direction = _unit(up) if up is not None else _common_up(cameras)
    centers, forwards = cameras.centers(), cameras.viewmats[:, 2, :3]
    focus = _nearest_to_lines(centers, forwards)
    offsets = centers - focus
    heights = offsets @ direction
    flat = offsets - heights[:, None] * direction
    sizes = cameras.sizes.to(torch.float64)
    focal = (cameras.Ks[:, 0, 0] * cameras.Ks[:, 1, 1]).sqrt() / sizes.prod(dim=1).sqrt()
    return Surround(
        focus=focus,
        up=direction,
        distance=max(float(flat.norm(dim=1).median()), 1e-6),
        height=float(heights.median()),
        focal_ratio=float(focal.median()),
        heading=_heading(flat[0], direction),
        arc_deg=_arc_deg(flat, direction),
    )


def from_points(points: ScenePoints, up: tuple[float, float, float] | None = None) -> Surround:
    """The surround of a bare scene: its opaque middle, and a distance from which most of it is seen.

    Args:
        points: Of the scene, possibly with far and faint outliers.
        up: World direction that is up; None takes -y.
    """
    direction = _unit(up if up is not None else DEFAULT_UP)
    focal_ratio = 0.5 / float(torch.tan(torch.deg2rad(torch.tensor(DEFAULT_FOV_DEG / 2))))
    if len(points.positions) == 0:
        return Surround(
            torch.zeros(3, dtype=torch.float64), direction, 1.0, 0.3, focal_ratio, _heading(None, direction)
        )
    points = _sample(points)
    middle, low, high, reach = _extent(points)
    # An object fits whole into the image. Of a scene with a background only the dense middle does.
    stands_free = is_object(points)
    focus = (low + high) / 2 if stands_free else middle
    if not stands_free:
        means, weights = points.positions.double().cpu(), points.weights.double().cpu()
        reach = float(_weighted_quantile((means - middle).norm(dim=1), weights, 0.6))
    distance = max(DISTANCE_PER_REACH * reach, 1e-6)
    return Surround(focus, direction, distance, 0.3 * distance, focal_ratio, _heading(None, direction))


def is_object(points: ScenePoints) -> bool:
    """Whether a scene stands free, to be seen from all around; otherwise far matter lies around a dense middle."""
    if len(points.positions) == 0:
        return False
    middle, _, _, reach = _extent(points)
    means, weights = points.positions.double().cpu(), points.weights.double().cpu()
    return float(_weighted_quantile((means - middle).norm(dim=1), weights, 0.5)) > OBJECT_SHARE * reach


def _extent(points: ScenePoints) -> tuple[Tensor, Tensor, Tensor, float]:
    """Median [3], bounds without outliers [3], [3], and how far matter reaches from their middle."""
    means, weights = points.positions.double().cpu(), points.weights.double().cpu()
    low, high = (torch.stack([_weighted_quantile(c, weights, q) for c in means.unbind(dim=1)]) for q in (0.03, 0.97))
    middle = torch.stack([_weighted_quantile(c, weights, 0.5) for c in means.unbind(dim=1)])
    reach = float(_weighted_quantile((means - (low + high) / 2).norm(dim=1), weights, 0.97))
    return middle, low, high, reach


def _sample(points: ScenePoints) -> ScenePoints:
    stride = max(1, -(-len(points.positions) // MAX_POINTS))
    return ScenePoints(points.positions[::stride], points.weights[::stride])


def up_axis(cameras: Cameras) -> tuple[float, float, float]:
    """World direction that is up in most images: an axis of the frame where one lies within 10 degrees of it, as frames
    are usually made. Unit length."""
    up = _common_up(cameras.to(dtype=torch.float64))
    axis = torch.nn.functional.one_hot(up.abs().argmax(), 3) * up.sign() + 0.0
    x, y, z = (axis if float(up @ axis) > AXIS_COSINE else up).tolist()
    return x, y, z


def _common_up(cameras: Cameras) -> Tensor:  # [3]
    """Images are usually level: their right vectors span the horizontal plane, whose normal is up."""
    rights, ups = cameras.viewmats[:, 0, :3], -cameras.viewmats[:, 1, :3]
    mean_up = ups.mean(dim=0)
    values, vectors = torch.linalg.eigh(rights.T @ rights / len(cameras))
    # Views in a row share one right vector and fix no plane: then the mean of the images' ups has to do.
    if values[1] < 0.02 or float(mean_up.norm()) < 1e-6:
        return _unit_tensor(mean_up) if float(mean_up.norm()) >= 1e-6 else _unit(DEFAULT_UP)
    normal = vectors[:, 0]
    normal = normal if float(normal @ mean_up) >= 0 else -normal
    # Photos taken with a tilted phone are level in no direction: believe the plane only where the ups agree.
    return normal if float(normal @ _unit_tensor(mean_up)) > 0.7 else _unit_tensor(mean_up)


def _nearest_to_lines(centers: Tensor, forwards: Tensor) -> Tensor:  # [C, 3], [C, 3] -> [3]
    """Least squares: minimise the sum of |(I - f f^T)(x - c)|^2, held near the cameras where lines are parallel."""
    projectors = torch.eye(3, dtype=centers.dtype) - forwards[:, :, None] * forwards[:, None, :]
    spread = float((centers - centers.mean(dim=0)).norm(dim=1).mean())
    ahead = centers.mean(dim=0) + forwards.mean(dim=0) * max(3 * spread, 1.0 if spread < 1e-9 else 0.0)
    # A weak pull to the point ahead decides where parallel lines leave it open.
    pull = 1e-5 * torch.eye(3, dtype=centers.dtype)
    left = projectors.mean(dim=0) + pull
    right = (projectors @ centers[:, :, None]).mean(dim=0)[:, 0] + pull @ ahead
    focus = torch.linalg.solve(left, right)
    is_in_front = ((focus - centers) * forwards).sum(dim=1) > 0
    return focus if float(is_in_front.double().mean()) > 0.5 else ahead


def _heading(flat: Tensor | None, up: Tensor) -> Tensor:  # [3], [3] -> [3]
    """Unit vector along `flat`, or any horizontal one where that is none."""
    if flat is None or float(flat.norm()) < 1e-9:
        axis = torch.eye(3, dtype=torch.float64)[int(up.abs().argmin())]
        flat = axis - (axis @ up) * up
    return _unit_tensor(flat)


def _arc_deg(flat: Tensor, up: Tensor) -> float:  # [C, 3], [3]
    """The full circle less the widest gap between neighbouring views."""
    ahead = _heading(flat[0], up)
    angles = torch.atan2(flat @ torch.linalg.cross(up, ahead), flat @ ahead).sort().values
    gaps = torch.cat([angles.diff(), angles[:1] + 2 * torch.pi - angles[-1:]])
    return float(torch.rad2deg(2 * torch.pi - gaps.max()))


def _weighted_quantile(values: Tensor, weights: Tensor, share: float) -> Tensor:  # [N], [N] -> scalar
    order = values.argsort()
    cumulative = weights[order].cumsum(dim=0)
    index = int(torch.searchsorted(cumulative, share * cumulative[-1]))
    return values[order[min(index, len(order) - 1)]]


def _unit(vector: tuple[float, float, float]) -> Tensor:
    return _unit_tensor(torch.tensor(vector, dtype=torch.float64))


def _unit_tensor(vector: Tensor) -> Tensor:
    length = float(vector.norm())
    if not length > 0:
        raise ValueError(f"up: expected a direction, got {vector.tolist()}")
    return vector / length
