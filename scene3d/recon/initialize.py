"""First Gaussians of a fit: from structure-from-motion points, or from random points where there are none."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture
from scene3d.core.gaussians import SH_COUNTS, Gaussians
from scene3d.ops import sh
from scene3d.ops.knn import mean_neighbor_distance
from scene3d.ops.threads import single_threaded_torch
from scene3d.recon.far_points import far_points
from scene3d.recon.photos import PhotoStore
from scene3d.recon.scene_frame import focus_point, look_up_photo

OPACITY = 0.1
MIN_POINTS = 100  # With fewer points than this, random ones are added.
RANDOM_POINTS = 20_000
HULL_VIEWS = 24
HULL_ROUNDS = 4
HULL_CANDIDATES = 10  # Per point wanted.
HULL_ALPHA = 0.1
HULL_SLACK = 0.05  # Fraction of views that may see a point outside of the silhouette: poses and mattes have errors.
NEAREST_DEPTH, FARTHEST_DEPTH = 0.3, 4.0  # Of random points, in distances of the camera from the middle of the scene.


def initialize(capture: Capture, seed: int, sh_degree: int = 0) -> Gaussians:
    """First Gaussians for a capture, in its frame: its points if it has enough of them, else random ones; and points on
    a large sphere where the photos show something far.

    The same capture and seed give the same Gaussians.
    """
    generator = torch.Generator().manual_seed(seed)
    with single_threaded_torch():
        points, colors = usable_points(capture)
        if len(points) < MIN_POINTS:
            more, more_colors = random_points(capture, RANDOM_POINTS, generator)
            points, colors = torch.cat([points, more]), torch.cat([colors, more_colors])
        near = from_points(points, colors, generator, sh_degree)
        far = from_points(*far_points(capture), generator, sh_degree)
        both = zip(near.params().items(), far.params().values(), strict=True)
        return Gaussians(**{name: torch.cat([a, b]) for (name, a), b in both})


def usable_points(capture: Capture) -> tuple[Tensor, Tensor]:
    """Finite, distinct points of a capture [P, 3] and their colours 0 to 1 [P, 3], in their order."""
    points, colors = capture.points.float(), capture.point_colors.float() / 255
    if len(colors) != len(points):
        colors = torch.full_like(points, 0.5)
    finite = points.isfinite().all(dim=1).nonzero()[:, 0]
    points, colors = points[finite], colors[finite]
    _, group = torch.unique(points, dim=0, return_inverse=True)
    first = torch.full((int(group.max()) + 1 if len(group) else 0,), len(points))
    first = first.scatter_reduce(0, group, torch.arange(len(points)), "amin").sort().values
    return points[first], colors[first]


def from_points(points: Tensor, colors: Tensor, generator: torch.Generator, sh_degree: int = 0) -> Gaussians:
    """One round, faint Gaussian per point, as large as the distance of its neighbours.

    Args:
        points: Scene units. [P, 3]
        colors: sRGB, 0 to 1. [P, 3]
        generator: Of the rotations.
        sh_degree: Coefficients beyond degree 0 are zero.
    """
    n = len(points)
    distances = mean_neighbor_distance(points) if n > 1 else torch.ones(n)
    # Lonely outliers would start as fog over the whole scene.
    ceiling = 10 * distances.median() if n else torch.tensor(1.0)
    log_scales = distances.clamp(min=1e-7 * float(ceiling) + 1e-12, max=float(ceiling)).log()
    return Gaussians(
        means=points.clone(),
        quats=torch.randn(n, 4, generator=generator),
        log_scales=log_scales[:, None].repeat(1, 3),
        opacity_logits=torch.full((n,), math.log(OPACITY / (1 - OPACITY))),
        sh0=sh.from_rgb(colors)[:, None, :],
        shN=torch.zeros(n, SH_COUNTS[sh_degree] - 1, 3),
    )


def random_points(capture: Capture, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random points where the training cameras look [n, 3], and grey or photo colours [n, 3].

    With alpha, points are kept inside of the silhouettes (the visual hull); otherwise they are spread along random
    pixel rays, evenly in log depth.
    """
    cameras = capture.cameras.select(capture.train or range(len(capture)))
    center = focus_point(cameras)
    if capture.has_alpha:
        found = _hull_points(capture, center, n, generator)
        if len(found[0]) >= min(n, MIN_POINTS):
            return found
    return _ray_points(cameras, center, n, generator), torch.rand(n, 3, generator=generator)


def _ray_points(cameras: Cameras, center: Tensor, n: int, generator: torch.Generator) -> Tensor:  # [n, 3]
    view = torch.randint(len(cameras), (n,), generator=generator)
    pixel = torch.rand(n, 2, generator=generator) * cameras.sizes[view].float()
    Ks = cameras.Ks[view].float()
    slopes = (pixel - Ks[:, :2, 2]) / torch.stack([Ks[:, 0, 0], Ks[:, 1, 1]], dim=1)
    rays = torch.cat([slopes, torch.ones(n, 1)], dim=1)
    distance = (cameras.centers().float()[view] - center).norm(dim=1).clamp(min=1e-6)
    span = math.log(FARTHEST_DEPTH / NEAREST_DEPTH)
    depth = distance * NEAREST_DEPTH * (span * torch.rand(n, generator=generator)).exp()
    points_in_cam = rays * depth[:, None]
    viewmats = cameras.viewmats[view].float()
    rotated = (points_in_cam - viewmats[:, :3, 3])[:, None, :] * viewmats[:, :3, :3].transpose(1, 2)
    return rotated.sum(dim=2)


def _hull_points(capture: Capture, center: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    store = PhotoStore(capture)
    train = capture.train or tuple(range(len(capture)))
    views = [train[i] for i in torch.linspace(0, len(train) - 1, min(HULL_VIEWS, len(train))).long().tolist()]
    cameras = capture.cameras.select(views)
    # Half the diagonal of what the widest camera sees at the middle of the scene bounds the hull.
    reach = (cameras.sizes.float() / 2).norm(dim=1) / cameras.Ks[:, 0, 0].float()
    radius = ((cameras.centers().float() - center).norm(dim=1) * reach).max()
    low, high = center - radius, center + radius
    points, colors = center.new_zeros(0, 3), center.new_zeros(0, 3)
    # A subject may fill a thousandth of that cube: every round looks in the box of what the one before has found.
    for _ in range(HULL_ROUNDS):
        candidates = low + (high - low) * torch.rand(HULL_CANDIDATES * n, 3, generator=generator)
        points, colors = _inside_silhouettes(store, views, candidates)
        if len(points) == 0 or len(points) >= n:
            break
        margin = 0.05 * (high - low)
        low, high = points.amin(dim=0) - margin, points.amax(dim=0) + margin
    return points[:n], colors[:n]


def _inside_silhouettes(store: PhotoStore, views: list[int], candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Those of the candidates that most photos see inside of the silhouette, and their mean colours there."""
    n_seen, n_inside = torch.zeros(len(candidates)), torch.zeros(len(candidates))
    colors = torch.zeros(len(candidates), 3)
    for view in views:
        seen, rgb, alpha = look_up_photo(store, view, candidates)
        inside = seen & (alpha > HULL_ALPHA)
        n_seen += seen
        n_inside += inside
        colors += torch.where(inside[:, None], rgb / alpha.clamp(min=HULL_ALPHA)[:, None], torch.zeros(1))
    rows = ((n_seen > 0.5 * len(views)) & (n_inside >= (1 - HULL_SLACK) * n_seen)).nonzero()[:, 0]
    return candidates[rows], (colors[rows] / n_inside[rows, None].clamp(min=1)).clamp(0, 1)
