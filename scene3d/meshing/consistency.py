"""Consistency: depths that other views confirm. Floaters and guesses behind windows are seen through by others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.errors import BackendUnavailable
from scene3d.meshing.fusion import DepthImage

try:
    from scene3d import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]


@dataclass(frozen=True)
class ConsistencySettings:
    """When a depth is believed.

    Attributes:
        n_neighbors: Views asked about each view, the nearest ones.
        tolerance: Depths agree to within this share of the depth.
        min_agree: Views that must agree; 0 = believe all.
    """

    n_neighbors: int = 8
    tolerance: float = 0.01
    min_agree: int = 2

    def __post_init__(self) -> None:
        if self.n_neighbors < 0 or self.min_agree < 0:
            raise ValueError(f"n_neighbors, min_agree: expected 0 or more, got {self.n_neighbors} and {self.min_agree}")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance: expected above 0, got {self.tolerance}")


def keep_consistent(
    images: Sequence[DepthImage],
    cameras: Cameras,
    settings: ConsistencySettings,
    on_view: Callable[[], None] = lambda: None,
) -> tuple[DepthImage, ...]:
    """The images without the depths that too few neighbours confirm, or that more of them see through.

    Captures with fewer neighbours than min_agree need the agreement of all that there are.
    """
    if settings.min_agree == 0 or len(images) < 2:
        return tuple(images)
    if _cpu is None:
        raise BackendUnavailable("cpu", "the native module is not built", "Install with its native code: pip install .")
    nearest = neighbor_views(cameras, settings.n_neighbors)
    depths = [torch.where(image.is_known(), image.depth, 0.0).contiguous() for image in images]
    viewmats, Ks = cameras.viewmats.double().contiguous(), cameras.Ks.double().contiguous()
    result = []
    for i, image in enumerate(images):
        agree, against = (torch.zeros(image.depth.shape, dtype=torch.int32) for _ in range(2))
        for j in nearest[i].tolist():
            _cpu.ask_view(
                viewmats[i], Ks[i], depths[i], viewmats[j], Ks[j], depths[j], settings.tolerance, agree, against
            )
        believed = (agree >= min(settings.min_agree, len(nearest[i]))) & (agree > against)
        result.append(DepthImage(torch.where(believed, depths[i], 0.0), torch.where(believed, image.weight, 0.0)))
        on_view()
    return tuple(result)


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
