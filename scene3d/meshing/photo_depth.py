"""Photo depth: depth of a scene, bettered where photos show the same from elsewhere on planes near it.

Fits leave surfaces where the colours of all views suit best, half a pixel off and more where light is mirrored. Patches
of photos know better, where there is something to be seen on them; edges and thin parts are left to the scene.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Photo
from scene3d.meshing.depth_views import SurfaceViews, ViewSettings, depth_image
from scene3d.meshing.fusion import DepthImage, world_points
from scene3d.ops.agreement import ask_views
from scene3d.ops.pinhole import in_image, to_pixels
from scene3d.ops.plane_match import GreyPhotos, Search, depth_of, partner_views, planes_of
from scene3d.ops.triangles import near_edges
from scene3d.render.planes import depth_normals

SEARCH = Search(4, 0.01, 0.3)
# Depths that photos give are believed where two others agree to within this share of the depth.
TOLERANCE = 0.003
MIN_AGREE = 2
# Patches less alike than this show nothing: 1 is what chance gives.
MAX_COST = 0.8
# Weight of the scene's own depth where photos say nothing, and near edges, where patches show two surfaces.
OWN_WEIGHT, EDGE_WEIGHT = 0.1, 0.5
# Own depths farther behind a place that photos of others show, share of the depth, are those of mirror images.
HIDDEN = 0.02
# Of the looks that a surface needs, as many are enough: what few views show must not be lost.
LEAST_SHARE = 0.1


def better_depths(
    views: SurfaceViews, photos: Sequence[Photo], on_view: Callable[[], None] = lambda: None
) -> tuple[DepthImage, ...]:
    """The depths of the views, as far as photos confirm better ones by those, else their own with less weight.

    Args:
        views: Of the scene, from where the photos were taken.
        photos: One per view. What their masks or their transparency hide says nothing.
        on_view: Called after each view.

    Raises:
        ValueError: a photo has another size than its view.
    """
    cameras = views.cameras
    for i, photo in enumerate(photos):
        height, width = photo.rgb.shape[:2]
        if (height, width) != (cameras.height(i), cameras.width(i)):
            size = f"{cameras.width(i)}x{cameras.height(i)}"
            raise ValueError(f"photos: expected {size} pixels as of view {i}, got {width}x{height}")
    starts = [torch.where(image.is_known(), image.depth, 0.0) for image in views.depths]
    partners = partner_views(cameras, torch.stack([_typical(depth) for depth in starts]))
    shown = [_shown(photo) for photo in photos]
    grey = GreyPhotos((_colors(photo) for photo in photos), cameras, shown)
    found = []
    for i, depth in enumerate(starts):
        camera = cameras.select([i])
        planes = planes_of(depth, depth_normals(depth, camera)[0], camera)
        better, cost = grey.match(i, partners[i], planes, SEARCH)
        known, where = (depth > 0) & (cost < MAX_COST), shown[i]
        known = known if where is None else known & where
        found.append(torch.where(known, depth_of(better), 0.0).contiguous())
        on_view()
    agreed = [_agreed(found, cameras, i, partners[i]) for i in range(len(cameras))]
    result = []
    for i, own in enumerate(views.depths):
        edge = near_edges(without_specks(own.depth))
        seen = depth_image(torch.where(edge, 0.0, agreed[i]), (~edge).float(), cameras.select([i]), ViewSettings())
        front = nearest_places(agreed, cameras, i, partners[i])
        hidden = (front > 0) & (front < (1 - HIDDEN) * own.depth)
        weight = own.weight * torch.where(edge, EDGE_WEIGHT, torch.where(hidden, 0.0, OWN_WEIGHT))
        better = seen.is_known()
        result.append(DepthImage(torch.where(better, seen.depth, own.depth), torch.where(better, seen.weight, weight)))
    return tuple(result)


def _colors(photo: Photo) -> Tensor:  # [H, W, 3], 0 to 1, on black
    colors = photo.rgb.float() / 255
    return colors if photo.alpha is None else colors * (photo.alpha[..., None].float() / 255)


def _shown(photo: Photo) -> Tensor | None:
    """Where a photo shows the scene, None = everywhere. [H, W] bool"""
    parts = [value > 127 for value in (photo.alpha, photo.mask) if value is not None]
    return torch.stack(parts).all(dim=0) if parts else None


def _agreed(found: list[Tensor], cameras: Cameras, i: int, partners: list[int]) -> Tensor:
    """Depths of view i that others confirm, 0 elsewhere. [H, W]"""
    agree, against = ask_views(found, cameras, i, partners, TOLERANCE)
    return torch.where((agree >= min(MIN_AGREE, max(len(partners), 1))) & (agree > against), found[i], 0.0)


def nearest_places(depths: Sequence[Tensor], cameras: Cameras, i: int, others: Sequence[int]) -> Tensor:
    """Depth in view i of the nearest place that other views see within each of its pixels, 0 = none. [H, W]"""
    height, width = cameras.height(i), cameras.width(i)
    near = torch.zeros(height * width, dtype=torch.float64)
    for other in others:
        image = DepthImage(depths[other], torch.ones_like(depths[other]))
        pixels, z = to_pixels(world_points(image, cameras, other), cameras.viewmats[i], cameras.Ks[i])
        inside = in_image(pixels, z, width, height)
        column, row = pixels[inside].long().unbind(dim=1)
        near.scatter_reduce_(0, row * width + column, 1 / z[inside], "amax")
    return torch.where(near > 0, 1 / near, 0.0).float().reshape(height, width)


def without_specks(depth: Tensor) -> Tensor:
    """A depth image without pixels and lines nearer or farther than all around: noise is not an edge. [H, W]"""
    near = torch.where(depth > 0, 1 / depth, 0.0)[None, None]
    # Closing, then opening, by 3x3.
    near = -_dilated(-_dilated(near))
    near = _dilated(-_dilated(-near))[0, 0]
    return torch.where(near > 0, 1 / near, 0.0)


def _dilated(image: Tensor) -> Tensor:
    return torch.nn.functional.max_pool2d(image, 3, 1, 1)


def _typical(depth: Tensor) -> Tensor:
    known = depth[depth > 0]
    return known.double().median() if len(known) else torch.tensor(1.0, dtype=torch.float64)
