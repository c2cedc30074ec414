"""Lenses: closed forms, round trips, COLMAP's own numbers, and the cut of the undistorted view."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scene3d.ops.lens import Lens, distort, lens_from_colmap, max_radius, undistort
from scene3d.ops.undistort import coverage, is_covered, lens_view, nearest_index, resample

F64 = torch.float64
# Newton and bisection run until float64 has no more digits to give.
ROUND_TRIP_TOLERANCE = 1e-9
# The lens is interpolated linearly between every 4th pixel, for a focal length of 250 pixels.
GRID_TOLERANCE_PIXELS = 0.01
FOX = Lens(radial=(0.0578421, -0.0805099), tangential=(-0.000980296, 0.00015575))
WIDE = Lens(True, (0.05, -0.01, 0.002, -0.0005))
BARREL = Lens(radial=(-0.2, 0.05), tangential=(0.002, -0.003), rational=(0.01, 0.02, 0.001))
MODELS = [
    ("SIMPLE_PINHOLE", [90.0, 50, 40]),
    ("PINHOLE", [90.0, 91, 50, 40]),
    ("SIMPLE_RADIAL", [90.0, 50, 40, 0.1]),
    ("RADIAL", [90.0, 50, 40, 0.1, -0.05]),
    ("OPENCV", [90.0, 91, 50, 40, 0.1, -0.05, 0.01, -0.02]),
    ("FULL_OPENCV", [90.0, 91, 50, 40, 0.1, -0.05, 0.01, -0.02, 0.01, 0.05, 0.02, -0.01]),
    ("OPENCV_FISHEYE", [90.0, 91, 50, 40, 0.1, -0.05, 0.01, -0.002]),
    ("SIMPLE_RADIAL_FISHEYE", [90.0, 50, 40, 0.1]),
    ("RADIAL_FISHEYE", [90.0, 50, 40, 0.1, -0.05]),
]


def grid_points(limit, n=21):
    line = torch.linspace(-limit, limit, n, dtype=F64)
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)


def test_no_distortion_moves_nothing():
    points = grid_points(2)
    assert torch.equal(distort(points, Lens()), points)
    assert torch.equal(undistort(points, Lens()), points)


def test_a_fisheye_image_radius_is_the_angle():
    angles = torch.linspace(0, 1.3, 14, dtype=F64)
    rays = torch.stack([torch.tan(angles), torch.zeros_like(angles)], dim=-1)
    torch.testing.assert_close(distort(rays, Lens(True))[:, 0], angles)


def test_one_radial_coefficient_is_the_textbook_polynomial():
    point = torch.tensor([0.3, 0.4], dtype=F64)
    torch.testing.assert_close(distort(point, Lens(radial=(0.2,))), point * (1 + 0.2 * 0.25))


@pytest.mark.parametrize(("model", "params"), MODELS)
def test_every_model_agrees_with_colmap(model, params):
    pycolmap = pytest.importorskip("pycolmap")
    camera = pycolmap.Camera(model=model, width=100, height=80, params=params)
    points = grid_points(0.7).reshape(-1, 2)
    expected = camera.img_from_cam(torch.cat([points, torch.ones(len(points), 1, dtype=F64)], dim=1).numpy())
    lens, (fx, fy, cx, cy) = lens_from_colmap(model, params)
    found = distort(points, lens) * torch.tensor([fx, fy], dtype=F64) + torch.tensor([cx, cy], dtype=F64)
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-10, rtol=0)


def test_unknown_models_and_counts_are_refused():
    with pytest.raises(ValueError, match="camera model: expected one of SIMPLE_PINHOLE"):
        lens_from_colmap("FOV", [1, 2, 3, 4, 5])
    with pytest.raises(ValueError, match="got PINHOLE of 3"):
        lens_from_colmap("PINHOLE", [1, 2, 3])


@pytest.mark.parametrize("lens", [FOX, WIDE, BARREL, Lens(True)])
def test_undistort_inverts_distort(lens):
    rays = grid_points(0.7)
    assert (undistort(distort(rays, lens), lens) - rays).abs().max() < ROUND_TRIP_TOLERANCE


@given(
    st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=4),
    st.tuples(st.floats(-0.01, 0.01), st.floats(-0.01, 0.01)),
    st.booleans(),
)
def test_undistort_inverts_any_lens_well_inside_its_fold(radial, tangential, is_fisheye):
    lens = Lens(is_fisheye, tuple(radial), (0.0, 0.0) if is_fisheye else tangential)
    rays = grid_points(min(0.5, 0.4 * max_radius(lens)), n=7)
    assert (undistort(distort(rays, lens), lens) - rays).abs().max() < 1e-6


def test_the_fold_of_a_cubic_is_where_its_slope_is_zero():
    # r (1 - 0.3 r²) is steepest at 0 and flat at r = sqrt(1 / 0.9).
    assert max_radius(Lens(radial=(-0.3,))) == pytest.approx(math.sqrt(1 / 0.9), rel=2e-3)


def test_points_beyond_the_fold_come_back_finite():
    lens = Lens(radial=(-0.3,))
    rays = undistort(torch.tensor([[5.0, 5.0], [-100.0, 0.0]], dtype=F64), lens)
    assert rays.norm(dim=-1).tolist() == pytest.approx([max_radius(lens)] * 2)


@pytest.mark.parametrize("lens", [FOX, BARREL, WIDE])
def test_every_pixel_of_the_view_was_seen(lens):
    size = (200, 300)
    view = lens_view(lens, (250.0, 252.0), (104.0, 148.0), size)
    assert coverage(view, size).all()
    assert is_covered(view, size)


def test_the_view_is_about_the_one_colmap_cuts():
    pycolmap = pytest.importorskip("pycolmap")
    params = [1375.52, 1374.49, 554.558, 965.268, *FOX.radial, *FOX.tangential]
    camera = pycolmap.Camera(model="OPENCV", width=1080, height=1920, params=params)
    expected = pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), camera)
    view = lens_view(FOX, (1375.52, 1374.49), (554.558, 965.268), (1080, 1920))
    # COLMAP centres the cut on the principal point's share of the size; ours takes each side as far as it goes.
    assert abs(view.width - expected.width) <= 8
    assert abs(view.height - expected.height) <= 8


def test_the_view_of_a_wide_lens_stays_of_bounded_size():
    view = lens_view(Lens(True), (300.0, 300.0), (400.0, 300.0), (800, 600))
    assert view.width <= 1200
    assert view.height <= 900


def test_sides_are_multiples_of_what_they_are_reduced_by():
    view = lens_view(FOX, (1375.52, 1374.49), (554.558, 965.268), (1080, 1920), multiple=4)
    assert view.width % 4 == view.height % 4 == 0
    pinhole = lens_view(Lens(), (10.0, 10.0), (5.0, 5.0), (11, 13), multiple=4)
    assert (pinhole.x0, pinhole.y0, pinhole.width, pinhole.height) == (0, 0, 8, 12)


def test_a_lens_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="expected a distortion that leaves some of the 20x20 photo"):
        lens_view(Lens(), (10.0, 10.0), (5.0, 5.0), (20, 20), multiple=64)


def ramp(width, height):
    """A photo whose red is its x and whose green is its y, in pixels from the corner."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)], dim=-1)


def exact_pixels(view, width, height):
    y, x = torch.meshgrid(torch.arange(height, dtype=F64), torch.arange(width, dtype=F64), indexing="ij")
    rays = torch.stack([(x + 0.5 + view.x0 - view.cx) / view.fx, (y + 0.5 + view.y0 - view.cy) / view.fy], dim=-1)
    return distort(rays, view.lens) * torch.tensor([view.fx, view.fy]) + torch.tensor([view.cx, view.cy])


@pytest.mark.parametrize("lens", [FOX, BARREL, WIDE])
def test_resampling_a_ramp_gives_the_lens_coordinates(lens):
    width, height = 203, 255
    view = lens_view(lens, (250.0, 252.0), (104.0, 128.0), (width, height))
    found = resample(ramp(width, height), view)[..., :2]
    expected = exact_pixels(view, view.width, view.height).to(torch.float32)
    inside = ((expected > 0.5) & (expected < torch.tensor([width - 0.5, height - 0.5]))).all(dim=-1)
    assert (found - expected)[inside].abs().max() < GRID_TOLERANCE_PIXELS


def test_bands_of_rows_fit_together(monkeypatch):
    view = lens_view(FOX, (250.0, 252.0), (104.0, 128.0), (203, 255))
    whole = resample(ramp(203, 255), view)
    monkeypatch.setattr("scene3d.ops.undistort.BAND_PIXELS", 16 * view.width)
    torch.testing.assert_close(resample(ramp(203, 255), view), whole, atol=1e-3, rtol=0)


def test_block_means_of_copied_pixels_are_nearly_unbiased():
    factor, size = 4, (400, 320)
    view = lens_view(FOX, (500.0, 500.0), (205.0, 158.0), size, factor)
    index = nearest_index(view, size, factor)
    copied = ramp(*size).view(-1, 3)[index.long()][..., :2]
    blocks = (view.height // factor, factor, view.width // factor, factor, 2)
    found = copied.reshape(blocks).mean(dim=(1, 3))
    expected = exact_pixels(view, view.width, view.height).reshape(blocks).mean(dim=(1, 3))
    error = (found - expected)[1:-1, 1:-1].abs().max()
    # Plain rounding is off by up to half a pixel; dither leaves half of a quarter.
    assert error < 0.5 / factor + GRID_TOLERANCE_PIXELS
