"""Where a field is: its box, and the cells that silhouettes leave for it."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from scene3d.core.capture import Capture
from scene3d.core.errors import CaptureError
from scene3d.ops.occupancy import cell_centers, dilate
from scene3d.ops.rays import camera_rays
from scene3d.recon.initialize import HULL_ALPHA, HULL_SLACK, MIN_POINTS, random_points, usable_points
from scene3d.recon.photos import PhotoStore
from scene3d.recon.scene_frame import look_up_photo

N_POINTS = 20_000
MARGIN = 0.05  # Of the size of the box, on every side.
OUTLIERS = 0.01  # Share of the points that may lie outside of the box, on every side of every axis.
HULL_CELLS = 64
HULL_VIEWS = 48
# Photos that must agree on some cell.
LEAST_VIEWS = 3
# Rays along each side of a photo that look for a given box.
RAYS_A_SIDE = 24

logger = logging.getLogger(__name__)


def find_box(capture: Capture, seed: int) -> Tensor:
    """A box around the subject: its visual hull where photos have alpha, else most of the points. [2, 3]

    Raises:
        CaptureError: nothing tells where the subject is.
    """
    points = usable_points(capture)[0]
    share = OUTLIERS
    if capture.has_alpha or len(points) < MIN_POINTS:
        points = random_points(capture, N_POINTS, torch.Generator().manual_seed(seed))[0]
        share = 0.0 if capture.has_alpha else 0.1
    if len(points) == 0:
        raise CaptureError(capture.source, "no points to place the box of the field", "Give --box")
    low = torch.quantile(points, share, dim=0)
    high = torch.quantile(points, 1 - share, dim=0)
    size = (high - low).amax().clamp_min(1e-6)
    margin = MARGIN * size
    return torch.stack([low - margin, high + margin])


def given_box(numbers: tuple[float, ...]) -> Tensor:
    """The box x0 y0 z0 x1 y1 z1. [2, 3]

    Raises:
        ValueError: it has no volume.
    """
    box = torch.tensor(numbers, dtype=torch.float32).reshape(2, 3)
    if not bool((box[1] > box[0]).all() and box.isfinite().all()):
        raise ValueError(f"box: expected x0 y0 z0 x1 y1 z1 with each first below its second, got {list(numbers)}")
    return box


def check_is_seen(box: Tensor, capture: Capture) -> None:
    """Check that some ray of the training photos meets a box.

    Raises:
        CaptureError: none does.
    """
    cameras = capture.cameras.select(capture.train).to(dtype=torch.float32)
    share = (torch.arange(RAYS_A_SIDE) + 0.5) / RAYS_A_SIDE
    rows, columns = (v.reshape(-1) for v in torch.meshgrid(share, share, indexing="ij"))
    views = torch.arange(len(cameras)).repeat_interleave(len(rows))
    sizes = cameras.sizes[views]
    n = len(cameras)
    origins, directions = camera_rays(cameras, views, columns.repeat(n) * sizes[:, 0], rows.repeat(n) * sizes[:, 1])
    crossings = torch.stack([(corner - origins) / directions for corner in box])
    enters, leaves = crossings.amin(dim=0).amax(dim=1), crossings.amax(dim=0).amin(dim=1)
    if not bool(((leaves > 0) & (enters <= leaves)).any()):
        raise CaptureError(capture.source, "no photo looks at the box of the field", "Check --field.box and the poses")


def hull_cells(capture: Capture, box: Tensor) -> Tensor | None:
    """Cells of the box that may hold something, from silhouettes; None where photos have no alpha. [Z, Y, X] bool

    Raises:
        CaptureError: no cell lies inside of the silhouettes.
    """
    if not capture.has_alpha:
        return None
    size = box[1] - box[0]
    shape = (size / size.amax() * HULL_CELLS).round().clamp_min(4).long().tolist()
    centers = cell_centers((shape[2], shape[1], shape[0]), box)
    points, store = centers.reshape(-1, 3), PhotoStore(capture)
    train = capture.train
    views = [train[i] for i in torch.linspace(0, len(train) - 1, min(HULL_VIEWS, len(train))).long().tolist()]
    n_seen, n_inside = torch.zeros(len(points)), torch.zeros(len(points))
    for view in views:
        seen, _, alpha = look_up_photo(store, view, points)
        n_seen += seen
        n_inside += seen & (alpha > HULL_ALPHA)
    is_inside = n_inside >= (1 - HULL_SLACK) * n_seen
    cells = ((n_seen == 0) | is_inside).reshape(centers.shape[:3])
    # What hardly any photo shows may hold something, but not all of it.
    if not bool((is_inside & (n_seen >= min(LEAST_VIEWS, len(views)))).any()):
        raise CaptureError(
            capture.source, "the box of the field lies outside of all silhouettes", "Check --box and the poses"
        )
    # Photos are looked up at the centres of cells: what is thinner than a cell may lie between them.
    return dilate(cells)
