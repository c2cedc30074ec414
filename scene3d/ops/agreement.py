"""Agreement: what other views say of the depths of a view. Floaters and guesses behind windows are seen through."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.errors import BackendUnavailable

try:
    from scene3d import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]


def ask_views(
    depths: Sequence[Tensor], cameras: Cameras, view: int, others: Sequence[int], tolerance: float
) -> tuple[Tensor, Tensor]:
    """How many other views see a surface where one view has it, and how many see through that place.

    Args:
        depths: z in the camera of every view, 0 = unknown; contiguous. [H, W] float32
        cameras: The views.
        view: Which one.
        others: Which ones are asked.
        tolerance: Depths agree to within this share of the depth.

    Returns:
        Two counts, each [H, W] int32. A view that sees something in front of the place says nothing.

    Raises:
        BackendUnavailable: the native module is missing.
    """
    if _cpu is None:
        raise BackendUnavailable("cpu", "the native module is not built", "Install with its native code: pip install .")
    viewmats, Ks = cameras.viewmats.double().contiguous(), cameras.Ks.double().contiguous()
    agree, against = (torch.zeros(depths[view].shape, dtype=torch.int32) for _ in range(2))
    for other in others:
        there = (viewmats[other], Ks[other], depths[other])
        _cpu.ask_view(viewmats[view], Ks[view], depths[view], *there, tolerance, agree, against)
    return agree, against


def neighbor_views(cameras: Cameras, n: int) -> Tensor:
    """The nearest other views of every view, by distance and direction of sight. [C, min(n, C - 1)] int64"""
    centers = cameras.centers().double()
    forwards = cameras.viewmats[:, 2, :3].double()
    distances = torch.cdist(centers, centers)
    spread = distances[distances > 0].median() if bool((distances > 0).any()) else torch.tensor(1.0)
    turned = 1 - (forwards @ forwards.T).clamp(-1, 1)
    cost = distances / spread + 2 * turned
    cost.fill_diagonal_(torch.inf)
    return cost.topk(min(n, len(cameras) - 1), dim=1, largest=False).indices
