"""Free views: as many cameras as wanted, all around an object, or among the cameras that a scene came with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras, look_at
from scene3d.render.surround import Surround

# Distances from an object, of that at which it fits into the image whole: photos of it are taken from nearer, too.
NEAREST, FARTHEST = 0.55, 1.0
# Where views look: around the focus, as a share of the distance.
AIM_SPREAD = 0.12
# Turns about the line of sight of two given views, and shares of the way between them.
N_NEIGHBORS = 4
EYE_JITTER = 0.05  # Of the distance between the two.


def views_around(surround: Surround, n: int, side: int, seed: int = 0) -> Cameras:
    """Square views from all directions, evenly spread, at varied distances.

    Args:
        surround: Of the object.
        n: How many.
        side: Pixels.
        seed: Of distances and aims.
    """
    generator = torch.Generator().manual_seed(seed)
    distance = math.hypot(surround.distance, surround.height)
    k = torch.arange(n, dtype=torch.float64)
    z = 1 - 2 * (k + 0.5) / n
    angle = k * math.pi * (3 - 5**0.5) + float(torch.rand(1, generator=generator)) * 2 * math.pi
    ring = (1 - z * z).sqrt()
    directions = torch.stack([ring * angle.cos(), ring * angle.sin(), z], dim=1)
    share = NEAREST + (FARTHEST - NEAREST) * torch.rand(n, generator=generator, dtype=torch.float64)
    aims = torch.randn(n, 3, generator=generator, dtype=torch.float64).clamp(-1.5, 1.5)
    targets = surround.focus + AIM_SPREAD * distance * aims
    eyes = surround.focus + distance * share[:, None] * directions
    # The spread of directions runs from pole to pole: mixed, so that any part of the list is spread, too.
    order = torch.randperm(n, generator=generator).tolist()
    viewmats = torch.stack([look_at(eyes[i], targets[i], _upright(targets[i] - eyes[i], surround.up)) for i in order])
    focal = surround.focal_ratio * side
    K = torch.tensor([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1]], dtype=torch.float64)
    return Cameras(viewmats, K.repeat(n, 1, 1), torch.full((n, 2), side)).to(dtype=torch.float32)


def views_among(cameras: Cameras, n: int, side: int, seed: int = 0) -> Cameras:
    """Views between neighbouring ones of those given, and a little beside.

    Args:
        cameras: At least one.
        n: How many.
        side: Longer side at most, pixels.
        seed: Of every choice.
    """
    generator = torch.Generator().manual_seed(seed)
    cameras = cameras.to(dtype=torch.float64)
    centers, axes, downs = cameras.centers(), cameras.viewmats[:, 2, :3], cameras.viewmats[:, 1, :3]
    # Neighbours are near and look the same way.
    scale = torch.cdist(centers, centers).median().clamp_min(1e-9)
    apart = torch.cdist(centers, centers) / scale + torch.cdist(axes, axes)
    nearest = apart.topk(min(N_NEIGHBORS + 1, len(cameras)), largest=False).indices
    first = torch.randint(len(cameras), (n,), generator=generator)
    second = nearest[first, torch.randint(nearest.shape[1], (n,), generator=generator)]
    t = torch.rand(n, 1, generator=generator, dtype=torch.float64)
    gap = (centers[second] - centers[first]).norm(dim=1, keepdim=True)
    jitter = EYE_JITTER * gap * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    eyes = torch.lerp(centers[first], centers[second], t) + jitter
    forwards, ups = torch.lerp(axes[first], axes[second], t), -torch.lerp(downs[first], downs[second], t)
    viewmats = torch.stack([look_at(eyes[i], eyes[i] + forwards[i], ups[i]) for i in range(n)])
    taken = Cameras(viewmats, cameras.Ks[first], cameras.sizes[first]).to(dtype=torch.float32)
    return smaller(taken, side)


def smaller(cameras: Cameras, side: int) -> Cameras:
    """The same views with a longer side of at most `side` pixels."""
    shrink = (side / cameras.sizes.amax(dim=1, keepdim=True).double()).clamp_max(1.0)
    return cameras.resized((cameras.sizes * shrink).round().long().clamp_min(1))


def _upright(forward: Tensor, up: Tensor) -> Tensor:  # [3], [3] -> [3]
    """Up, or any direction across where that is along the line of sight."""
    if float(torch.linalg.cross(forward, up).norm()) > 1e-3 * float(forward.norm()):
        return up
    axis = torch.zeros(3, dtype=up.dtype)
    axis[int(forward.abs().argmin())] = 1.0
    return axis
