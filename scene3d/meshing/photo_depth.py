"""Photo depth: depth of a scene, bettered where photos show the same from elsewhere on planes near it.

Fits leave surfaces where the colours of all views suit best: up to a pixel behind what bulges, for splats reach beyond
silhouettes, and more where light is mirrored. Patches of photos know better, where there is something to be seen on
them; planes that others confirm are made even by votes of those around, and what lies between them moves along. Thin
parts are left to the scene. Done twice, the second time from a mesh of what came of the first: it is nearer, has fewer
holes, and tells which photos really see a place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Photo
from scene3d.meshing.depth_guess import DepthGuess
from scene3d.meshing.depth_views import SurfaceViews, ViewSettings, depth_image
from scene3d.meshing.fusion import DepthImage, world_points
from scene3d.ops.agreement import ask_views
from scene3d.ops.depth_edges import is_thin, near_edges, near_thin, without_specks
from scene3d.ops.pinhole import in_image, to_pixels
from scene3d.ops.plane_match import GreyPhotos, depth_of

# Rounds in which planes that others confirm are made even, how far apart those of one surface pass, share of the depth,
# and the weight of planes that are not confirmed.
N_VOTES, APART, UNSURE = 4, 0.003, 0.05
# Depths that photos give are believed where two others agree to within this share of the depth.
TOLERANCE = 0.003
MIN_AGREE = 2
# Edges so near to thin things, pixels, show two surfaces in a patch.
NEAR_THIN = 1
# Patches less alike than this show nothing: 1 is what chance gives.
MAX_COST = 0.8
# Weight of the scene's own depth where photos say nothing, and near edges.
OWN_WEIGHT, EDGE_WEIGHT = 0.2, 0.5
# Own depths farther behind a place that photos of others show, share of the depth, are those of mirror images.
HIDDEN = 0.02
# Own depths are moved by less than this share of themselves. What is known in a square of pixels counts 1 / LITTLE
# times as much for it as what is known around, by the share of pixels.
MOST_MOVED, LITTLE = 0.03, 0.05
# Of the looks that a surface needs, as many are enough: what few views show must not be lost.
LEAST_SHARE = 0.1


def better_depths(
    views: SurfaceViews, photos: Sequence[Photo], guess: DepthGuess, on_view: Callable[[], None] = lambda: None
) -> tuple[DepthImage, ...]:
    """The depths of the views, as far as photos confirm better ones by those, else their own with less weight.

    Args:
        views: Of the scene, from where the photos were taken.
        photos: One per view. What their masks or their transparency hide says nothing.
        guess: What to begin with.
        on_view: Called after each view.

    Raises:
        ValueError: a photo has another size than its view.
    """
    cameras = views.cameras
    grey, shown = grey_photos(photos, cameras), [_shown(photo) for photo in photos]
    planes = []
    for i, start in enumerate(guess.planes):
        better, cost = grey.match(i, guess.partners[i], start, guess.search)
        speaks, where = (start[0] > 0) & (cost < MAX_COST), shown[i]
        planes.append(torch.where(speaks if where is None else speaks & where, better, 0.0))
        on_view()
    trusts = [torch.where(depth > 0, 1.0, UNSURE) for depth in _agreed(planes, cameras, guess.asked)]
    even = [grey.vote(i, planes[i], trust, N_VOTES, APART) for i, trust in enumerate(trusts)]
    agreed = _agreed(even, cameras, guess.asked)
    result = []
    for i, own in enumerate(views.depths):
        front = nearest_places(agreed, cameras, i, guess.partners[i])
        edge = near_edges(without_specks(own.depth))
        mixed = _mixed(own.depth, edge, depth_of(guess.planes[i])) if guess.has_edges else edge
        result.append(_bettered(own, edge, mixed, agreed[i], front, cameras.select([i])))
    return tuple(result)


def _mixed(own: Tensor, edge: Tensor, guess: Tensor) -> Tensor:
    """Where a patch shows two surfaces, or not the one that is there. [H, W] bool

    That is near edges of what is thin in both depths: mirror images make edges of their own in one of them. And where
    the guess has lost something thin: what it shows instead lies behind, and all patches around agree on that. Mirror
    images that it left out lie behind it.
    """
    lost = is_thin(own) & (own < (1 - HIDDEN) * guess)
    return (edge & near_thin(own, NEAR_THIN) & near_thin(guess, NEAR_THIN)) | lost


def _bettered(
    own: DepthImage, edge: Tensor, mixed: Tensor, agreed: Tensor, front: Tensor, camera: Cameras
) -> DepthImage:
    """What photos confirm, else the own depth, moved as they say of places around; where they are mixed as it is."""
    sure = torch.where(mixed, 0.0, agreed)
    seen = depth_image(sure, torch.ones_like(sure), camera, ViewSettings())
    hidden = (front > 0) & (front < (1 - HIDDEN) * own.depth)
    # Lines and dots of what is hidden are where silhouettes in other views are a pixel off.
    hidden = torch.nn.functional.max_pool2d((~hidden).float()[None, None], 3, 1, 1)[0, 0] == 0
    weight = own.weight * torch.where(edge, EDGE_WEIGHT, torch.where(hidden, 0.0, OWN_WEIGHT))
    depth = torch.where(mixed, own.depth, moved_along(own.depth, torch.where(edge, 0.0, sure)))
    better = seen.is_known()
    seen_weight = torch.where(edge, EDGE_WEIGHT, 1.0) * seen.weight
    return DepthImage(torch.where(better, seen.depth, depth), torch.where(better, seen_weight, weight))


def grey_photos(photos: Sequence[Photo], cameras: Cameras) -> GreyPhotos:
    """Photos as they are compared; what their masks or their transparency hide is not.

    Raises:
        ValueError: a photo has another size than its view.
    """
    _check_sizes(photos, cameras)
    return GreyPhotos((_colors(photo) for photo in photos), cameras, [_shown(photo) for photo in photos])


def _check_sizes(photos: Sequence[Photo], cameras: Cameras) -> None:
    for i, photo in enumerate(photos):
        height, width = photo.rgb.shape[:2]
        if (height, width) != (cameras.height(i), cameras.width(i)):
            size = f"{cameras.width(i)}x{cameras.height(i)}"
            raise ValueError(f"photos: expected {size} pixels as of view {i}, got {width}x{height}")


def _agreed(planes: Sequence[Tensor], cameras: Cameras, partners: Sequence[list[int]]) -> list[Tensor]:
    """Depths of all views that others confirm, 0 elsewhere. Each [H, W]"""
    depths = [depth_of(p).contiguous() for p in planes]
    result = []
    for i, depth in enumerate(depths):
        agree, against = ask_views(depths, cameras, i, partners[i], TOLERANCE)
        confirmed = (agree >= min(MIN_AGREE, max(len(partners[i]), 1))) & (agree > against)
        result.append(torch.where(confirmed, depth, 0.0))
    return result


def moved_along(depth: Tensor, sure: Tensor) -> Tensor:
    """A depth image, moved as the sure depths around say: by the same share of the depth, the nearest count most.

    Args:
        depth: 0 = unknown. [H, W]
        sure: 0 = unknown. [H, W]

    Returns:
        `depth` farther than MOST_MOVED from all sure ones is left alone. [H, W]
    """
    share = torch.where((depth > 0) & (sure > 0), sure / depth.clamp_min(1e-9) - 1, MOST_MOVED)
    near = (share.abs() < MOST_MOVED).float()
    sums, counts = [(share * near)[None, None]], [near[None, None]]
    while min(sums[-1].shape[2:]) > 1:
        for pyramid in (sums, counts):
            pyramid.append(torch.nn.functional.avg_pool2d(pyramid[-1], 2, ceil_mode=True))
    moved = torch.zeros_like(sums[-1])
    for total, count in zip(reversed(sums), reversed(counts), strict=True):
        wider = torch.nn.functional.interpolate(moved, total.shape[2:], mode="bilinear", align_corners=False)
        moved = (total + LITTLE * wider) / (count + LITTLE)
    return depth * (1 + moved[0, 0])


def _colors(photo: Photo) -> Tensor:  # [H, W, 3], 0 to 1, on black
    colors = photo.rgb.float() / 255
    return colors if photo.alpha is None else colors * (photo.alpha[..., None].float() / 255)


def _shown(photo: Photo) -> Tensor | None:
    """Where a photo shows the scene, None = everywhere. [H, W] bool"""
    parts = [value > 127 for value in (photo.alpha, photo.mask) if value is not None]
    return torch.stack(parts).all(dim=0) if parts else None


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
