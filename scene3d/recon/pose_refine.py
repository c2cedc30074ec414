"""Pose refinement: a small rigid motion per training camera, learnt through the gradient of its viewmat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.recon.exposure import adam_row_

LR_FINAL = 0.01  # Fraction of the first step size at the end of the run.


@dataclass
class PoseDeltas:
    """Motions of C cameras in their own frames, with Adam's moments.

    Attributes:
        deltas: Rotation vector in radians and translation in scene extents. [C, 6]
        extent: Scene extent, scene units.
    """

    deltas: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    counts: Tensor  # Steps per camera, for Adam's start. [C]
    extent: float

    @classmethod
    def start(cls, n_cameras: int, extent: float) -> PoseDeltas:
        deltas, exp_avg, exp_avg_sq = torch.zeros(3, n_cameras, 6).unbind()
        return cls(deltas, exp_avg, exp_avg_sq, torch.zeros(n_cameras), extent)

    def leaf(self, view: int) -> Tensor:
        """The motion of one camera, to be differentiated. [6]"""
        return self.deltas[view].clone().requires_grad_()

    def move(self, camera: Cameras, delta: Tensor) -> Cameras:
        """One camera after the motion `delta` [6]. Differentiable in delta."""
        viewmat = rigid_motion(delta, self.extent) @ camera.viewmats[0]
        return Cameras(viewmat[None], camera.Ks, camera.sizes, camera.names)

    def step(self, view: int, grad: Tensor, lr: float) -> None:
        """One step of Adam on the motion of one camera. grad [6]"""
        self.counts[view] += 1
        adam_row_(self.deltas[view], grad, self.exp_avg[view], self.exp_avg_sq[view], lr, int(self.counts[view]))

    def moved(self, cameras: Cameras) -> Cameras:
        """All cameras as refined."""
        motions = torch.stack([rigid_motion(delta, self.extent) for delta in self.deltas])
        return Cameras(motions.to(cameras.viewmats.dtype) @ cameras.viewmats, cameras.Ks, cameras.sizes, cameras.names)


def rigid_motion(delta: Tensor, extent: float) -> Tensor:
    """Rotation by the vector delta[:3], then translation by delta[3:] · extent. [4, 4]

    Args:
        delta: [6]
        extent: Scene units.

    Differentiable in delta.
    """
    x, y, z = delta[:3].unbind()
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
    motion = torch.zeros(4, 4, dtype=delta.dtype)
    motion[3, 3] = 1.0
    motion[:3, :3] = torch.linalg.matrix_exp(cross)
    motion[:3, 3] = delta[3:] * extent
    return motion
