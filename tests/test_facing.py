"""The cosine at which depth images see their surface: right on planes, there at edges, small on rims."""

from __future__ import annotations

import math

import pytest
import torch
from strategies import front_camera

from scene3d.ops.facing import facing_cosine
from scene3d.ops.pinhole import pixel_rays

CAMERA = front_camera(65, 49, 60.0).to(dtype=torch.float32)
X, Y = pixel_rays(CAMERA, torch.zeros(1))


def slanted(angle_deg: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth of a plane turned about the vertical, and its cosine."""
    normal = torch.tensor([math.sin(math.radians(angle_deg)), 0.0, -math.cos(math.radians(angle_deg))])
    rays = torch.stack([X, Y, torch.ones_like(X)], dim=2)
    return 4 * normal[2] / (rays @ normal), (rays @ normal).abs() / rays.norm(dim=2)


@pytest.mark.parametrize("angle_deg", [0, 30, 55])
def test_planes(angle_deg: float):
    depth, expected = slanted(angle_deg)
    found = facing_cosine(depth, CAMERA)
    torch.testing.assert_close(found[1:-1, 1:-1], expected[1:-1, 1:-1], rtol=1e-3, atol=1e-4)
    # Along the border one neighbour is missing: half.
    torch.testing.assert_close(found[0, 1:-1], expected[0, 1:-1] / 2, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("width", [1, 2])
def test_lines_are_seen(width: int):
    depth = torch.full((49, 65), 5.0)
    depth[:, 30 : 30 + width] = 3.0
    found = facing_cosine(depth, CAMERA)[5:-5, 30 : 30 + width]
    assert float(found.min()) > 0.45
    beside = facing_cosine(depth, CAMERA)[5:-5, [29, 30 + width]]
    assert float(beside.min()) > 0.4


def test_lines_over_nothing_are_seen():
    depth = torch.zeros(49, 65)
    depth[20] = 3.0
    found = facing_cosine(depth, CAMERA)
    assert float(found[20, 5:-5].min()) > 0.4
    assert float(found[:20].abs().max()) == 0


def test_the_rim_of_a_ball_is_steep():
    square, along = X * X + Y * Y + 1, torch.full_like(X, 4.0)
    root = along**2 - square * (16 - 1)
    depth = torch.where(root > 0, (along - root.clamp_min(0).sqrt()) / square, 0.0)
    found = facing_cosine(depth, CAMERA)
    is_rim = (depth > 0) & (torch.nn.functional.max_pool2d((depth == 0).float()[None], 3, 1, 1)[0] > 0)
    assert float(found[is_rim].mean()) < 0.25
    assert float(found[24, 32]) > 0.99
