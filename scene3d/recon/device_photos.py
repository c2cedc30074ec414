"""Photos on the device of a fit: kept there while a budget lasts, streamed from the memory of the host beyond it."""

from __future__ import annotations

import torch

from scene3d.ops import cuda_call
from scene3d.recon.photos import Target
from scene3d.recon.step import View

SHARE = 0.125  # Of the memory that is free when the first photo comes.


class DevicePhotos:
    """Targets of one fit on one device.

    Args:
        device: Where they are wanted. On the CPU nothing is copied or kept.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._kept: dict[tuple[int, int], Target] = {}
        self._room: int | None = None  # Bytes.

    def target(self, view: View) -> Target:
        """The photo of a view. A photo of the same index and height is taken to be the same."""
        if self._device.type == "cpu":
            return view.target
        key = (view.index, view.target.rgb.shape[0])
        if key not in self._kept:
            moved = view.target.to(self._device)
            if not self._takes(moved):
                return moved
            self._kept[key] = moved
        return self._kept[key]

    def _takes(self, target: Target) -> bool:
        if self._room is None:
            self._room = int(SHARE * cuda_call.available_bytes(self._device))
        n_bytes = sum(v.nbytes for v in (target.rgb, target.alpha, target.weight) if v is not None)
        if n_bytes > self._room:
            return False
        self._room -= n_bytes
        return True
