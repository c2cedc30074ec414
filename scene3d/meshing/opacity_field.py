"""Opacity of places: how much of the light of any camera would be stopped before it gets past them.

For splats: along the ray from each camera that has the place in its image, Gaussians gather opacity up to the place;
the least over all cameras counts, for what one camera sees through is empty (Yu et al. 2024, Gaussian Opacity Fields).
Nothing is projected, so the field is the same function of the place whatever the resolution. For radiance fields: what
a few cells of the field would stop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.checks import Dims
from scene3d.core.fields import Field
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.render import cpu
from scene3d.render.density import density_at
from scene3d.render.near import with_near
from scene3d.render.types import RasterSettings

# Places that some view sees through to this much are empty, whatever the others say.
ENOUGH = 0.02
# Cells over which a field gathers opacity: fitted surfaces are as thick, within one cell some never reach one half.
STRETCH = 4.0


@dataclass(frozen=True)
class PlaceOpacity:
    """What is known of P places.

    Attributes:
        opacity: Least over the views, 1 where no view looks. [P]
        n_views: Views that have the place in their image; those after the first that sees through it do not count. [P]
    """

    opacity: Tensor
    n_views: Tensor


@torch.no_grad()
def splat_opacity(
    gaussians: Gaussians,
    cameras: Cameras,
    places: Tensor,
    raster: RasterSettings = RasterSettings(),  # noqa: B008 - frozen
    on_view: Callable[[], None] = lambda: None,
    enough: float = ENOUGH,
) -> PlaceOpacity:
    """The opacity field of splats.

    Args:
        gaussians: float32, on the CPU.
        cameras: Views; sizes may differ.
        places: World. [P, 3] float32
        raster: Of it near, far, eps2d and antialiased count.
        on_view: Called after each view.
        enough: Places that some view sees through to this much are not looked at again.

    Raises:
        BackendUnavailable: the native module is not built.
    """
    Dims().check("places", places, "P 3", torch.float32)
    native = cpu.native()
    # Colours have no part in it.
    bare = [p.detach().float().contiguous() for p in (*list(gaussians.params().values())[:5], gaussians.shN[:, :0])]
    params = native.Params32(*bare)
    opacity, n_views = torch.ones(len(places)), torch.zeros(len(places), dtype=torch.int32)
    places = places.contiguous()
    raster = with_near(raster, gaussians.means, cameras)
    for i in range(len(cameras)):
        call = cpu.call_settings(cpu.pinhole(cameras, i), raster, 0)
        native.opacity_from_view(call, params, places, enough, opacity, n_views)
        on_view()
    return PlaceOpacity(opacity, n_views)


def field_opacity(field: Field, places: Tensor) -> Tensor:
    """What STRETCH cells like each place would stop: 1 - exp(-density * STRETCH * cell). [P]"""
    return 1 - torch.exp(-density_at(field, places.to(field.box.dtype)).float() * STRETCH * cell_size(field))


def cell_size(field: Field) -> float:
    """Mean side of the cells of a field, scene units; of one without bounds, of its near cells."""
    low, high = field.box.detach().double()
    size = float(((high - low) / (torch.tensor(field.resolution, dtype=torch.float64) - 1)).mean())
    return size if field.warp is None else size / field.warp.scale


def opacity_function(scene: Scene, cameras: Cameras, enough: float = ENOUGH) -> Callable[[Tensor], Tensor]:
    """From places [P, 3] to opacity [P]; NaN where no camera looks at splats.

    Args:
        scene: Splats or a field.
        cameras: Views of splats; the fewer neighbours follow each other, the faster.
        enough: Lower opacities need not be exact: a place that some view sees through to this much is done with.
    """
    if "splats" not in scene.capabilities:
        field = scene.field()
        return lambda places: field_opacity(field, places)
    gaussians = scene.splats()
    raster = RasterSettings(antialiased=scene.info.antialiased)

    def opacity(places: Tensor) -> Tensor:
        found = splat_opacity(gaussians, cameras, places, raster, enough=enough)
        return torch.where(found.n_views > 0, found.opacity, torch.nan)

    return opacity
