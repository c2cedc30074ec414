"""Which frame a field lives in: a box around an object, or a frame that holds all that photos see.

An object before nothing (photos with alpha) gets a box. Cameras that all look one way get normalised device
coordinates; all others a near cube around what they look at, and the rest of space contracted around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture
from scene3d.core.errors import CaptureError
from scene3d.core.warp import Warp
from scene3d.recon.field_box import check_is_seen, find_box, given_box
from scene3d.recon.field_settings import SpaceName
from scene3d.recon.initialize import MIN_POINTS, usable_points
from scene3d.recon.scene_frame import focus_point, scene_extent

FRAME_SIDE = 2.0  # Of the contracted frame: all of space lies between -2 and 2.
# The near cube holds this share of the points, measured from what cameras look at; without points it reaches so far
# in distances of the cameras.
NEAR_POINTS, NEAR_DISTANCE = 0.5, 0.4
# Cameras look one way where no pixel's ray leaves the common axis by more than this, in tangents.
MOST_TANGENT = 2.0
# Of points on either side of the frustum that may lie outside.
OUTLIERS = 0.01
NEAREST = 0.8  # The near plane, in the depth of the nearest points.
MARGIN = 0.05


@dataclass(frozen=True)
class Space:
    """Where a field lives.

    Attributes:
        box: Least and greatest corner, in the frame of the warp. [2, 3]
        warp: None = the box lies in the world.
        reason: Why, in a few words.
    """

    box: Tensor
    warp: Warp | None
    reason: str

    @property
    def is_frustum(self) -> bool:
        return self.warp is not None and self.warp.kind == "frustum"


def find_space(
    capture: Capture, wanted: SpaceName, box: tuple[float, ...] | None, near_radius: float | None, seed: int
) -> Space:
    """The frame of a field of a capture.

    Args:
        capture: Photos, cameras and points.
        wanted: auto chooses.
        box: Given by the user: the field lives in it.
        near_radius: Half of the side of the near cube, scene units; None finds one.
        seed: Of random points where a box must be found without any.

    Raises:
        CaptureError: the cameras do not look one way, where ndc was asked for, or no photo looks at the box.
        ValueError: a box without volume.
    """
    if box is not None:
        found = given_box(box)
        check_is_seen(found, capture)
        return Space(found, None, "a box, as given")
    cameras = capture.cameras.select(capture.train).to(dtype=torch.float32)
    if wanted == "box" or (wanted == "auto" and capture.has_alpha):
        return Space(
            find_box(capture, seed),
            None,
            "a box around the subject: photos have alpha" if capture.has_alpha else "a box",
        )
    points = usable_points(capture)[0]
    if wanted in ("auto", "ndc"):
        frustum = _frustum(cameras, points)
        if frustum is not None:
            return frustum
        if wanted == "ndc":
            problem = "the cameras do not all look one way from outside of what they see"
            raise CaptureError(capture.source, problem, "Use --field.space contracted")
    return _contracted(cameras, points, near_radius)


def _contracted(cameras: Cameras, points: Tensor, near_radius: float | None) -> Space:
    middle = focus_point(cameras)
    if near_radius is None:
        if len(points) >= MIN_POINTS:
            near_radius = float((points - middle).abs().amax(dim=1).quantile(NEAR_POINTS))
        else:
            near_radius = NEAR_DISTANCE * float((cameras.centers() - middle).norm(dim=1).median())
    scale = 1 / max(near_radius, 1e-6)
    matrix = torch.cat([scale * torch.eye(3), -scale * middle[:, None]], dim=1)
    box = torch.full((2, 3), FRAME_SIDE)
    box[0] = -FRAME_SIDE
    return Space(
        box, Warp("cube", matrix), f"all of space, contracted around a cube of {2 * near_radius:.3g} scene units"
    )


def _frustum(cameras: Cameras, points: Tensor) -> Space | None:
    """The frame of cameras that look one way; None where they do not, or nothing tells how near things are."""
    if len(points) < MIN_POINTS:
        return None
    axes = cameras.viewmats[:, :3, :3]  # rows: right, down, forward
    forward = torch.nn.functional.normalize(axes[:, 2].mean(dim=0), dim=0)
    down = axes[:, 1].mean(dim=0)
    down = torch.nn.functional.normalize(down - (down @ forward) * forward, dim=0)
    turn = torch.stack([torch.linalg.cross(down, forward), down, forward])
    rays = _corner_rays(cameras) @ turn.T
    if not bool((rays[:, 2] > 0).all()) or float((rays[:, :2].abs() / rays[:, 2:]).amax()) > MOST_TANGENT:
        return None
    centers = cameras.centers() @ turn.T
    # The frame begins behind the foremost camera: all stand in front of the near plane.
    start = torch.cat([centers[:, :2].median(dim=0).values, centers[:, 2].amin()[None]])
    depths = (points @ turn.T)[:, 2] - start[2]
    near = NEAREST * float(depths[depths > 0].quantile(OUTLIERS)) if bool((depths > 0).any()) else 0.0
    if near <= float(centers[:, 2].amax() - start[2]) or near < 0.1 * scene_extent(cameras):
        return None
    matrix = torch.cat([turn, -start[:, None]], dim=1) / near
    # Rays at the near plane, and where they end.
    reached = (
        centers[:, None]
        + rays.reshape(len(cameras), -1, 3)
        * ((start[2] + near - centers[:, 2])[:, None] / rays.reshape(len(cameras), -1, 3)[..., 2])[..., None]
    )
    seen = torch.cat([((reached - start) / near)[..., :2].reshape(-1, 2), rays[:, :2] / rays[:, 2:]])
    low, high = seen.amin(dim=0) - MARGIN, seen.amax(dim=0) + MARGIN
    box = torch.tensor([[float(low[0]), float(low[1]), 0.0], [float(high[0]), float(high[1]), 1.0]])
    return Space(
        box,
        Warp("frustum", matrix),
        f"normalised device coordinates: cameras look one way, from {near:.3g} scene units on",
    )


def _corner_rays(cameras: Cameras) -> Tensor:
    """Directions of the corners of all images in the world, depth 1 in the camera. [4 C, 3]"""
    size = cameras.sizes.float()
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    pixels = corners[None] * size[:, None]
    x = (pixels[..., 0] - cameras.Ks[:, 0, 2, None]) / cameras.Ks[:, 0, 0, None]
    y = (pixels[..., 1] - cameras.Ks[:, 1, 2, None]) / cameras.Ks[:, 1, 1, None]
    in_camera = torch.stack([x, y, torch.ones_like(x)], dim=2)
    return (in_camera @ cameras.viewmats[:, :3, :3]).reshape(-1, 3)
