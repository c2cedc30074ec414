"""Pinhole: pixels of points and points of pixels are each other's inverses; nothing behind the camera is seen."""

from __future__ import annotations

import torch
from painted_wall import HEIGHT, WIDTH, cameras_along

from scene3d.ops.pinhole import from_pixels, in_image, to_pixels

# The matrices of the cameras are rotations to seven digits.
CLOSE = {"rtol": 1e-5, "atol": 1e-4}


def test_pixels_come_back_from_their_places():
    camera = cameras_along((0.7,)).to(dtype=torch.float64)
    viewmat, K = camera.viewmats[0], camera.Ks[0]
    row, column = (v.reshape(-1) for v in torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij"))
    z = torch.linspace(0.5, 9, HEIGHT * WIDTH, dtype=torch.float64)
    places = from_pixels(column, row, z, viewmat, K)
    pixels, again = to_pixels(places, viewmat, K)
    torch.testing.assert_close(again, z, **CLOSE)
    torch.testing.assert_close(pixels, torch.stack([column + 0.5, row + 0.5], dim=1).double(), **CLOSE)
    assert bool(in_image(pixels, again, WIDTH, HEIGHT).all())


def test_what_lies_behind_the_camera_or_beside_the_image_is_not_in_it():
    camera = cameras_along((0.0,))
    viewmat, K, eye = camera.viewmats[0], camera.Ks[0], camera.centers()[0]
    right, forward = viewmat[0, :3], viewmat[2, :3]
    points = torch.stack([eye + forward, eye - forward, eye, eye + forward + 9 * right])
    pixels, z = to_pixels(points, viewmat, K)
    assert bool(pixels.isfinite().all())
    assert in_image(pixels, z, WIDTH, HEIGHT).tolist() == [True, False, False, False]
    torch.testing.assert_close(pixels[0], K[:2, 2])


def test_pixels_are_differentiable_in_points_behind_the_camera_too():
    camera = cameras_along((0.3,)).to(dtype=torch.float64)
    points = torch.tensor([[0.1, 0.2, 0.3], [0.0, 0.1, -9.0]], dtype=torch.float64, requires_grad=True)

    def both(p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return to_pixels(p, camera.viewmats[0], camera.Ks[0])

    assert torch.autograd.gradcheck(both, points)
