"""A world frame a person expects: z up, the point the cameras look at in the origin, median camera distance 1.

Arrays in, arrays out; cameras have OpenCV axes (x right, y down, z forward).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Weight of the mean camera up against the rule "camera x axes are level". It decides only where the cameras all look
# the same way, so that their x axes leave the up direction open.
MEAN_UP_WEIGHT = 0.01
# A camera whose x axis is within 60 degrees of the vertical is held sideways and says nothing about the horizon.
LEVEL_SINE = 0.5
# Below this smallest eigenvalue the viewing axes are too parallel to meet in a point.
FOCUS_CONDITION = 0.01


@dataclass(frozen=True)
class Similarity:
    """target = scale * rotation @ source + translation.

    Attributes:
        scale: Factor on lengths.
        rotation: [3, 3]
        translation: [3]
    """

    scale: float
    rotation: Array
    translation: Array

    def matrix(self) -> Array:
        """[4, 4]"""
        matrix = np.eye(4)
        matrix[:3, :3] = self.scale * self.rotation
        matrix[:3, 3] = self.translation
        return matrix


def upright_frame(cam_from_world: Array, points: Array) -> Similarity:
    """Find the similarity that puts z up, the focus in the origin and the median camera at distance 1.

    Args:
        cam_from_world: Poses in the source frame. [C, 3, 4]
        points: Scene points in the source frame. [P, 3]

    Returns:
        upright_from_source.
    """
    rotations = cam_from_world[:, :, :3]
    centres = -np.einsum("cji,cj->ci", rotations, cam_from_world[:, :, 3])
    rotation = _rotation_to_z(up_direction(rotations))
    focus = focus_point(centres, rotations[:, 2], points)
    distance = float(np.median(np.linalg.norm(centres - focus, axis=1)))
    scale = 1.0 / distance if distance > 0 and np.isfinite(distance) else 1.0
    return Similarity(scale, rotation, -scale * (rotation @ focus))


def up_direction(cam_rotations: Array) -> Array:
    """Estimate the vertical from how cameras are held: x axes are level, y axes point down.

    Args:
        cam_rotations: World to camera; rows are the camera's axes in the world. [C, 3, 3]

    Returns:
        Unit vector. [3]
    """
    rights, ups = cam_rotations[:, 0], -cam_rotations[:, 1]
    up = _level_direction(rights, ups)
    level = np.abs(rights @ up) < LEVEL_SINE
    if 2 <= level.sum() < len(rights):
        up = _level_direction(rights[level], ups[level])
    return up


def focus_point(centres: Array, forwards: Array, points: Array) -> Array:
    """The point nearest to all viewing axes; the median scene point where axes are parallel or meet behind.

    Args:
        centres: Camera centres. [C, 3]
        forwards: Unit viewing directions. [C, 3]
        points: Scene points. [P, 3]

    Returns:
        A point. [3]
    """
    # argmin_x sum_i |(I - d_i d_i^T) (x - c_i)|^2
    across = np.eye(3) - forwards[:, :, None] * forwards[:, None, :]
    normal = across.mean(axis=0)
    if np.linalg.eigvalsh(normal)[0] > FOCUS_CONDITION:
        focus = np.linalg.solve(normal, np.einsum("cij,cj->i", across, centres) / len(centres))
        if np.mean(np.einsum("ci,ci->c", focus - centres, forwards) > 0) > 0.5:
            return focus
    if len(points) > 0:
        return np.median(points, axis=0)
    return centres.mean(axis=0)


def _level_direction(rights: Array, ups: Array) -> Array:
    mean_up = ups.mean(axis=0)
    matrix = rights.T @ rights / len(rights) - MEAN_UP_WEIGHT * np.outer(mean_up, mean_up)
    up = np.linalg.eigh(matrix)[1][:, 0]
    return up if up @ mean_up >= 0 else -up


def _rotation_to_z(up: Array) -> Array:
    # The x axis of the source frame keeps its heading as far as it can, so that the result is one rotation.
    helper = np.eye(3)[int(np.argmin(np.abs(up)))]
    x = np.cross(helper, up)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(up, x), up])
