"""A painted wall, the plane z = 0.4 x, seen by five cameras: depth in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from tiny_capture import tiny_capture, tiny_scene

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.capture import Capture, Photo
from scene3d.render.planes import rays_of

WIDTH, HEIGHT = 96, 64
NORMAL = torch.tensor([0.4, 0.0, -1.0]) / math.hypot(1, 0.4)


def cameras_along(xs: tuple[float, ...]) -> Cameras:
    up = torch.tensor([0.0, -1.0, 0.0])
    viewmats = [look_at(torch.tensor([x, 0.2 * i - 0.3, -3.0]), torch.zeros(3), up) for i, x in enumerate(xs)]
    K = torch.tensor([[90.0, 0, WIDTH / 2], [0, 90, HEIGHT / 2], [0, 0, 1]])
    n = len(xs)
    return Cameras(torch.stack(viewmats), K.repeat(n, 1, 1), torch.tensor([[WIDTH, HEIGHT]]).repeat(n, 1))


def wall_depth(camera: Cameras) -> torch.Tensor:
    """Of the plane z = 0.4 x."""
    rays, eye = rays_of(camera, camera.Ks), camera.centers()[0]
    return (0.4 * eye[0] - eye[2]) / (rays[..., 2] - 0.4 * rays[..., 0])


def wall_photo(camera: Cameras) -> torch.Tensor:
    """What is painted on the wall, [H, W, 3] uint8."""
    points = camera.centers()[0] + rays_of(camera, camera.Ks) * wall_depth(camera)[..., None]
    x, y = points[..., 0], points[..., 1]
    value = 0.5 + 0.2 * (25 * x + 2 * (3 * y).sin()).sin() + 0.2 * (29 * y + 2 * (5 * x).cos()).cos()
    return (255 * value).round().to(torch.uint8)[..., None].expand(-1, -1, 3).contiguous()


def wall_capture() -> Capture:
    cameras = cameras_along((-0.9, -0.4, 0.0, 0.4, 0.9))
    photos = [Photo(wall_photo(cameras.select([i]))) for i in range(5)]
    base = tiny_capture(tiny_scene())
    return replace(base, cameras=cameras, train=(0, 1, 2, 3, 4), test=(), load=lambda i: photos[i])


def wall_points() -> torch.Tensor:
    """Rough ones: up to 5 % off."""
    generator = torch.Generator().manual_seed(3)
    xy = 3 * torch.rand(60, 2, generator=generator) - 1.5
    off = 0.15 * (2 * torch.rand(60, generator=generator) - 1)
    return torch.stack([xy[:, 0], xy[:, 1], 0.4 * xy[:, 0] + off], dim=1)
