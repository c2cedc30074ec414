"""Cameras: C pinhole views. OpenCV axes (x right, y down, z forward); pixel (i, j) has its centre at (j+0.5, i+0.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.checks import Dims


@dataclass(frozen=True)
class Cameras:
    """C views.

    Attributes:
        viewmats: cam_from_world, rigid. [C, 4, 4]
        Ks: Intrinsics in pixels. [C, 3, 3]
        sizes: Width and height in pixels. [C, 2] int64
        names: File names or labels, C of them.
    """

    viewmats: Tensor
    Ks: Tensor
    sizes: Tensor
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        dims = Dims()
        dims.check("viewmats", self.viewmats, "C 4 4")
        dims.check("Ks", self.Ks, "C 3 3")
        dims.check("sizes", self.sizes, "C 2")
        if not self.names:
            object.__setattr__(self, "names", tuple(f"{i:05d}" for i in range(len(self))))
        if len(self.names) != len(self):
            raise ValueError(f"names: expected {len(self)} names, got {len(self.names)}")

    def __len__(self) -> int:
        return self.viewmats.shape[0]

    def width(self, i: int = 0) -> int:
        return int(self.sizes[i, 0])

    def height(self, i: int = 0) -> int:
        return int(self.sizes[i, 1])

    def select(self, index: Sequence[int]) -> Cameras:
        """Keep the views `index`, in that order."""
        rows = torch.as_tensor(list(index), dtype=torch.long)
        names = tuple(self.names[i] for i in index)
        return Cameras(self.viewmats[rows], self.Ks[rows], self.sizes[rows], names)

    def resized(self, sizes: Tensor) -> Cameras:
        """The same views sampled at other sizes [C, 2]; focal lengths and centres scale along."""
        ratio = sizes.to(self.Ks.dtype) / self.sizes.to(self.Ks.dtype)
        scale = torch.cat([ratio, torch.ones_like(ratio[:, :1])], dim=1)
        return Cameras(self.viewmats, self.Ks * scale[:, :, None], sizes, self.names)

    def centers(self) -> Tensor:
        """Camera positions in the world. [C, 3]"""
        rotations = self.viewmats[:, :3, :3]
        return -(rotations.transpose(1, 2) @ self.viewmats[:, :3, 3:])[:, :, 0]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Cameras:
        viewmats, Ks = (value.to(device=device, dtype=dtype) for value in (self.viewmats, self.Ks))
        return Cameras(viewmats, Ks, self.sizes, self.names)


def look_at(eye: Tensor, target: Tensor, up: Tensor) -> Tensor:
    """viewmat (cam_from_world) of a camera at `eye` that looks at `target`, with `up` upwards in the image.

    Args:
        eye: Camera position. [3]
        target: Point in the middle of the image, not equal to eye. [3]
        up: World direction, not parallel to the line of sight. [3]

    Returns:
        [4, 4], dtype of eye.
    """
    forward = torch.nn.functional.normalize(target - eye, dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=0)
    down = torch.linalg.cross(forward, right)
    viewmat = torch.eye(4, dtype=eye.dtype)
    viewmat[:3, :3] = torch.stack([right, down, forward])
    viewmat[:3, 3] = -viewmat[:3, :3] @ eye
    return viewmat
