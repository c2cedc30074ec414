"""Similarity transforms (Sim3: scale, rotation, translation) of points, cameras and Gaussians."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.checks import Dims
from scene3d.core.gaussians import Gaussians
from scene3d.ops import quaternions, sh


@dataclass(frozen=True)
class Sim3:
    """x_target = scale * rotation @ x_source + translation. Named target_from_source.

    Attributes:
        rotation: Proper rotation. [3, 3]
        translation: In target units. [3]
        scale: Target units per source unit, positive.
    """

    rotation: Tensor
    translation: Tensor
    scale: float = 1.0

    def __post_init__(self) -> None:
        dims = Dims()
        dims.check("rotation", self.rotation, "3 3")
        dims.check("translation", self.translation, "3")
        if not self.scale > 0:
            raise ValueError(f"scale: expected a positive number, got {self.scale}")

    def inverse(self) -> Sim3:
        """source_from_target."""
        back = self.rotation.T
        return Sim3(back, -(back @ self.translation) / self.scale, 1.0 / self.scale)

    def compose(self, first: Sim3) -> Sim3:
        """The transform `first`, then this one: a_from_b.compose(b_from_c) is a_from_c."""
        translation = self.scale * (self.rotation @ first.translation) + self.translation
        return Sim3(self.rotation @ first.rotation, translation, self.scale * first.scale)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Sim3:
        return Sim3(self.rotation.to(device, dtype), self.translation.to(device, dtype), self.scale)


def identity(dtype: torch.dtype = torch.float64) -> Sim3:
    """The transform that changes nothing."""
    return Sim3(torch.eye(3, dtype=dtype), torch.zeros(3, dtype=dtype))


def transform_points(points: Tensor, target_from_source: Sim3) -> Tensor:
    """Move points.

    Args:
        points: In the source frame. [..., 3]
        target_from_source: Where to.

    Returns:
        In the target frame, dtype and device of points. [..., 3]

    Differentiable in points.
    """
    sim3 = target_from_source.to(points.device, points.dtype)
    return sim3.scale * (points @ sim3.rotation.T) + sim3.translation


def transform_gaussians(gaussians: Gaussians, target_from_source: Sim3) -> Gaussians:
    """Move Gaussians, their colours turning along: a camera moved by `transform_cameras` sees the same image.

    Args:
        gaussians: In the source frame.
        target_from_source: Where to.

    Differentiable in every tensor of gaussians.
    """
    turn = quaternions.from_rotmat(target_from_source.rotation.to(torch.float64))
    return Gaussians(
        means=transform_points(gaussians.means, target_from_source),
        quats=quaternions.multiply(turn.to(gaussians.device, gaussians.dtype), gaussians.quats),
        log_scales=gaussians.log_scales + torch.tensor(target_from_source.scale, dtype=torch.float64).log().item(),
        opacity_logits=gaussians.opacity_logits,
        sh0=gaussians.sh0,
        shN=sh.rotate(gaussians.shN, target_from_source.rotation.to(torch.float64)),
    )


def transform_cameras(cameras: Cameras, target_from_source: Sim3) -> Cameras:
    """Move cameras. Their frames are measured in target units after that, so depths grow by the scale.

    From s x_cam = R_cam R^T (x_target - t) + s t_cam: both poses stay rigid.

    Args:
        cameras: Views of the source frame.
        target_from_source: Where to.

    Differentiable in cameras.viewmats.
    """
    viewmats = cameras.viewmats
    sim3 = target_from_source.to(viewmats.device, viewmats.dtype)
    rotations = viewmats[:, :3, :3] @ sim3.rotation.T
    translations = sim3.scale * viewmats[:, :3, 3] - rotations @ sim3.translation
    top = torch.cat([rotations, translations[:, :, None]], dim=2)
    return Cameras(torch.cat([top, viewmats[:, 3:]], dim=1), cameras.Ks, cameras.sizes, cameras.names)
