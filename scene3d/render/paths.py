"""Camera paths: orbit, ellipse, spiral and a smooth flight through given views. All give float32 Cameras, one size."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras, look_at
from scene3d.ops import quaternions
from scene3d.render.surround import Surround

# Points evaluated between two key views, to walk along the curve at constant speed.
FINE_STEPS = 24


@dataclass(frozen=True)
class Shot:
    """How a path is filmed.

    Attributes:
        width: Pixels.
        height: Pixels.
        n_frames: Views along the path.
    """

    width: int
    height: int
    n_frames: int

    def __post_init__(self) -> None:
        for name in ("width", "height", "n_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")


def orbit(surround: Surround, shot: Shot, elevation_deg: float | None = None, turns: float = 1.0) -> Cameras:
    """A turntable: once around the focus at one height. The last frame stops one step before the first: it loops.

    Args:
        surround: Focus, up and distance.
        shot: Size and number of frames.
        elevation_deg: Of the cameras above the focus; None takes the height of the surround.
        turns: Full circles; negative turns the other way.
    """
    reach = math.hypot(surround.distance, surround.height)
    elevation = math.atan2(surround.height, surround.distance) if elevation_deg is None else math.radians(elevation_deg)
    # Straight above, "up" would no longer tell how to hold the camera.
    elevation = max(-math.radians(89), min(math.radians(89), elevation))
    ahead, left = surround.horizontal()
    angles = 2 * math.pi * turns * torch.arange(shot.n_frames, dtype=torch.float64)[:, None] / shot.n_frames
    flat = angles.cos() * ahead + angles.sin() * left
    eyes = surround.focus + reach * (math.cos(elevation) * flat + math.sin(elevation) * surround.up)
    return _looking(eyes, surround, shot)


def ellipse(views: Cameras, surround: Surround, shot: Shot) -> Cameras:
    """Around the focus on the ellipse that fits where the views were taken; heights rise and fall within theirs.

    Half axes are the 90 % quantiles of the distances (as in Barron et al. 2022, appendix), so the path keeps to where
    the scene was seen.
    """
    offsets = views.centers().double() - surround.focus
    heights = offsets @ surround.up
    flat = offsets - heights[:, None] * surround.up
    # Principal directions of the ground plan.
    axes = torch.linalg.svd(flat, full_matrices=False)[2][:2] if len(views) >= 2 else torch.stack(surround.horizontal())
    first = axes[0]
    second = torch.linalg.cross(surround.up, first)
    half = [max(float((flat @ axis).abs().quantile(0.9)), 0.25 * surround.distance) for axis in (first, second)]
    low, high = (float(heights.quantile(q)) for q in (0.25, 0.75))
    angles = 2 * math.pi * torch.arange(shot.n_frames, dtype=torch.float64)[:, None] / shot.n_frames
    lift = low + (high - low) * (0.5 + 0.5 * angles.cos())
    eyes = surround.focus + half[0] * angles.cos() * first + half[1] * angles.sin() * second + lift * surround.up
    return _looking(eyes, surround, shot)


def spiral(views: Cameras, surround: Surround, shot: Shot, turns: float = 2.0) -> Cameras:
    """Small circles around the mean view, nearer and farther, for scenes seen from one side (Mildenhall 2019)."""
    centers = views.centers().double()
    middle = centers.mean(dim=0)
    forward = torch.nn.functional.normalize(surround.focus - middle, dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, surround.up), dim=0)
    frame = torch.stack([right, torch.linalg.cross(right, forward), forward])
    distance = float((surround.focus - middle).norm())
    radii = ((centers - middle) @ frame.T).abs().quantile(0.8, dim=0)
    radii = radii.clamp(max=0.5 * distance).maximum(torch.tensor([0.05, 0.05, 0.02], dtype=torch.float64) * distance)
    angles = 2 * math.pi * turns * torch.arange(shot.n_frames, dtype=torch.float64) / shot.n_frames
    local = torch.stack([angles.cos(), -angles.sin(), -(angles / turns).sin()], dim=1) * radii
    return _looking(middle + local @ frame, surround, shot)


def through(
    views: Cameras, shot: Shot, max_keys: int = 40, is_closed: bool = False, keep_order: bool = False
) -> Cameras:
    """A smooth flight through the views: a spline of positions, slerp of rotations, constant speed.

    Args:
        views: Key views, at least one; more than max_keys are thinned evenly.
        shot: Size and number of frames.
        max_keys: Most views kept as keys; fewer give a calmer path.
        is_closed: Return to the first view at the end.
        keep_order: Visit views as given, also where another order would be far shorter.
    """
    views = views.to(dtype=torch.float64)
    views = views if keep_order else views.select(tour(views))
    n_keys = min(len(views), max(max_keys, 1))
    keys = views.select([round(i * (len(views) - 1) / max(n_keys - 1, 1)) for i in range(n_keys)])
    if is_closed and n_keys > 2:
        keys = keys.select([*range(n_keys), 0])
    focal_ratio = _focal_ratio(views)
    if len(keys) == 1:
        return _assemble(keys.viewmats.repeat(shot.n_frames, 1, 1), focal_ratio, shot)
    times = _even_times(keys, shot.n_frames, is_closed and n_keys > 2)
    positions = _spline(keys.centers(), times, is_closed and n_keys > 2)
    rotations = quaternions.to_rotmat(_turn(quaternions.from_rotmat(keys.viewmats[:, :3, :3]), times))
    viewmats = torch.eye(4, dtype=torch.float64).repeat(shot.n_frames, 1, 1)
    viewmats[:, :3, :3] = rotations
    viewmats[:, :3, 3] = -(rotations @ positions[:, :, None])[:, :, 0]
    return _assemble(viewmats, focal_ratio, shot)


def tour(views: Cameras) -> list[int]:
    """An order in which to visit views: as given, or nearest next where that is far shorter (unordered photos)."""
    centers = views.centers()
    gaps = torch.cdist(centers, centers)
    order, left = [0], set(range(1, len(views)))
    while left:
        candidates = sorted(left)
        order.append(candidates[int(gaps[order[-1], candidates].argmin())])
        left.remove(order[-1])
    given = float(gaps.diagonal(offset=1).sum()) if len(views) > 1 else 0.0
    found = float(sum(gaps[a, b] for a, b in itertools.pairwise(order)))
    return order if found < 0.5 * given else list(range(len(views)))


def _looking(eyes: Tensor, surround: Surround, shot: Shot) -> Cameras:  # [F, 3]
    viewmats = torch.stack([look_at(eye, surround.focus, surround.up) for eye in eyes])
    return _assemble(viewmats, surround.focal_ratio, shot)


def _assemble(viewmats: Tensor, focal_ratio: float, shot: Shot) -> Cameras:  # [F, 4, 4]
    focal = focal_ratio * math.sqrt(shot.width * shot.height)
    K = torch.tensor([[focal, 0, shot.width / 2], [0, focal, shot.height / 2], [0, 0, 1]])
    sizes = torch.tensor([[shot.width, shot.height]]).repeat(len(viewmats), 1)
    return Cameras(viewmats.float(), K.repeat(len(viewmats), 1, 1), sizes)


def _focal_ratio(views: Cameras) -> float:
    focal = (views.Ks[:, 0, 0] * views.Ks[:, 1, 1]).sqrt()
    return float((focal / views.sizes.to(focal.dtype).prod(dim=1).sqrt()).median())


def _even_times(keys: Cameras, n_frames: int, is_closed: bool) -> Tensor:
    """Spline parameters at equal steps of travelled length, where turning counts as well as moving. [F]"""
    fine = torch.linspace(0, len(keys) - 1, (len(keys) - 1) * FINE_STEPS + 1, dtype=torch.float64)
    moves = _spline(keys.centers(), fine, is_closed).diff(dim=0).norm(dim=1)
    quats = _turn(quaternions.from_rotmat(keys.viewmats[:, :3, :3]), fine)
    turns = 2 * torch.acos((quats[1:] * quats[:-1]).sum(dim=1).abs().clamp(max=1.0))
    # Turning takes time too: as if it were half as long as the way, whatever the units of the scene.
    steps = sum(weight * part / part.sum().clamp_min(1e-12) for weight, part in ((1.0, moves), (0.5, turns)))
    assert isinstance(steps, Tensor)
    travelled = torch.cat([torch.zeros(1, dtype=torch.float64), steps.cumsum(dim=0)])
    if float(travelled[-1]) <= 1e-9:
        return torch.zeros(n_frames, dtype=torch.float64)
    stops = n_frames if is_closed else max(n_frames - 1, 1)
    wanted = torch.arange(n_frames, dtype=torch.float64) / stops * travelled[-1]
    right = torch.searchsorted(travelled, wanted).clamp(1, len(travelled) - 1)
    before, after = travelled[right - 1], travelled[right]
    share = ((wanted - before) / (after - before).clamp_min(1e-12)).clamp(0, 1)
    return fine[right - 1] + share * (fine[right] - fine[right - 1])


def _spline(points: Tensor, times: Tensor, is_closed: bool) -> Tensor:  # [M, 3], [F] in 0..M-1 -> [F, 3]
    """Catmull-Rom: passes through every point with the slope between its neighbours."""
    before = points[-2:-1] if is_closed else 2 * points[:1] - points[1:2]
    after = points[1:2] if is_closed else 2 * points[-1:] - points[-2:-1]
    padded = torch.cat([before, points, after])
    index = times.floor().long().clamp(0, len(points) - 2)
    t = (times - index)[:, None]
    p0, p1, p2, p3 = (padded[index + i] for i in range(4))
    return 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)


def _turn(quats: Tensor, times: Tensor) -> Tensor:  # [M, 4], [F] -> [F, 4]
    index = times.floor().long().clamp(0, len(quats) - 2)
    return quaternions.slerp(quats[index], quats[index + 1], times - index)
