"""Consistency: only depths that other views confirm go into a surface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from scene3d.core.cameras import Cameras
from scene3d.meshing.fusion import DepthImage
from scene3d.ops.agreement import ask_views, neighbor_views


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
    nearest = neighbor_views(cameras, settings.n_neighbors)
    depths = [torch.where(image.is_known(), image.depth, 0.0).contiguous() for image in images]
    result = []
    for i, image in enumerate(images):
        agree, against = ask_views(depths, cameras, i, nearest[i].tolist(), settings.tolerance)
        believed = (agree >= min(settings.min_agree, len(nearest[i]))) & (agree > against)
        result.append(DepthImage(torch.where(believed, depths[i], 0.0), torch.where(believed, image.weight, 0.0)))
        on_view()
    return tuple(result)
