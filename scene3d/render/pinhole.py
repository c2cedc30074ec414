"""A camera in plain numbers, and the numbers that native code takes for a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scene3d.core.cameras import Cameras
from scene3d.render.types import RasterSettings


@dataclass(frozen=True)
class Pinhole:
    """One camera in plain numbers.

    Attributes:
        viewmat: cam_from_world by rows, 16 numbers.
        K: Intrinsics by rows, 9 numbers, pixels.
        width: Pixels.
        height: Pixels.
    """

    viewmat: list[float]
    K: list[float]
    width: int
    height: int


def pinhole(cameras: Cameras, view: int = 0) -> Pinhole:
    """One of C cameras."""
    width, height = cameras.sizes[view].tolist()
    return Pinhole(cameras.viewmats[view].flatten().tolist(), cameras.Ks[view].flatten().tolist(), width, height)


def native_arguments(camera: Pinhole, settings: RasterSettings, degree: int) -> tuple[Any, ...]:
    """What the CallSettings of every native module begin with. `degree` is that of the spherical harmonics."""
    return (
        camera.viewmat,
        camera.K,
        camera.width,
        camera.height,
        degree,
        settings.near_z,
        settings.far,
        settings.eps2d,
        *settings.background,
        settings.antialiased,
        settings.with_depth or settings.with_normals,
        settings.absgrad,
    )
