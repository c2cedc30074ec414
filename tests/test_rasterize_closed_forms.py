"""Images whose pixels can be written down: one Gaussian, layers, walls, normals, background."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import Target
from strategies import F64, front_camera, one_gaussian

from scene3d.core.gaussians import Gaussians, cat
from scene3d.ops import sh
from scene3d.render.types import RasterSettings

MIDDLE = 16  # Of the 33 pixels of front_camera.
ALL = RasterSettings(with_depth=True, with_normals=True)


def layers(opacity: float, n: int) -> Gaussians:
    return cat([one_gaussian(mean=(0.0, 0.0, 2.0 + i), opacity=opacity) for i in range(n)])


def expected_profile(xx: float, xy: float, yy: float, opacity: float) -> torch.Tensor:  # [33, 33]
    axis = torch.arange(33, dtype=F64) + 0.5 - 16.5
    dy, dx = torch.meshgrid(axis, axis, indexing="ij")
    squares = (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / (xx * yy - xy * xy)
    alpha = opacity * torch.exp(-0.5 * squares)
    return torch.where(alpha >= 1 / 255, alpha, torch.zeros_like(alpha))


def assert_profile(alpha: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    # Pixels on the contour of 1/255 may fall on either side of it by rounding.
    clear = (expected - 1 / 255).abs() > 1e-6
    torch.testing.assert_close(alpha[0, :, :, 0][clear], expected[clear], rtol=0, atol=tolerance)


def test_round_gaussian_has_its_profile(target: Target) -> None:
    render = target.render(one_gaussian(scales=(0.3, 0.3, 0.3), opacity=0.8), front_camera())
    variance = (40 * 0.3 / 4) ** 2 + 0.3
    assert_profile(render.alpha, expected_profile(variance, 0.0, variance, 0.8), target.tolerance)


def test_turned_gaussian_has_its_profile(target: Target) -> None:
    angle = math.radians(30)
    quat = (math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2))
    render = target.render(one_gaussian(scales=(0.5, 0.1, 0.2), opacity=0.9, quat=quat), front_camera())
    long, short = (40 * 0.5 / 4) ** 2, (40 * 0.1 / 4) ** 2
    cos, sin = math.cos(angle), math.sin(angle)
    xx, yy = long * cos**2 + short * sin**2 + 0.3, long * sin**2 + short * cos**2 + 0.3
    assert_profile(render.alpha, expected_profile(xx, (long - short) * cos * sin, yy, 0.9), target.tolerance)


def test_eps2d_is_added_to_the_variance(target: Target) -> None:
    gaussian = one_gaussian(scales=(0.01, 0.01, 0.01), opacity=0.9)
    render = target.render(gaussian, front_camera(), RasterSettings(eps2d=2.0))
    variance = (40 * 0.01 / 4) ** 2 + 2.0
    assert_profile(render.alpha, expected_profile(variance, 0.0, variance, 0.9), target.tolerance)


def test_antialiased_peak_is_lowered_by_the_area_ratio(target: Target) -> None:
    gaussian = one_gaussian(scales=(0.1, 0.1, 0.1), opacity=0.8)
    render = target.render(gaussian, front_camera(), RasterSettings(antialiased=True))
    variance = (40 * 0.1 / 4) ** 2
    expected = 0.8 * variance / (variance + 0.3)
    assert render.alpha[0, MIDDLE, MIDDLE, 0].item() == pytest.approx(expected, abs=target.tolerance)


def test_colour_is_weighted_by_alpha(target: Target) -> None:
    render = target.render(one_gaussian(opacity=0.8, rgb=(0.9, 0.5, 0.2)), front_camera())
    expected = 0.8 * torch.tensor([0.9, 0.5, 0.2], dtype=F64)
    torch.testing.assert_close(render.rgb[0, MIDDLE, MIDDLE], expected, rtol=0, atol=target.tolerance)


def test_two_layers_blend_front_to_back(target: Target) -> None:
    far = one_gaussian(mean=(0, 0, 6), opacity=0.7, rgb=(0.0, 1.0, 0.0))
    near = one_gaussian(mean=(0, 0, 3), opacity=0.6, rgb=(1.0, 0.0, 0.0))
    render = target.render(cat([far, near]), front_camera())
    expected = torch.tensor([0.6, 0.4 * 0.7, 0.0], dtype=F64)
    torch.testing.assert_close(render.rgb[0, MIDDLE, MIDDLE], expected, rtol=0, atol=target.tolerance)


def test_equal_depths_blend_in_the_order_of_the_index(target: Target) -> None:
    first = one_gaussian(opacity=0.6, rgb=(1.0, 0.0, 0.0))
    second = one_gaussian(opacity=0.6, rgb=(0.0, 1.0, 0.0))
    render = target.render(cat([first, second]), front_camera())
    expected = torch.tensor([0.6, 0.4 * 0.6, 0.0], dtype=F64)
    torch.testing.assert_close(render.rgb[0, MIDDLE, MIDDLE], expected, rtol=0, atol=target.tolerance)


@pytest.mark.parametrize(("opacity", "n"), [(0.5, 1), (0.5, 6), (0.1, 40), (0.9, 3)])
def test_n_layers_leave_the_power_of_one_layer(target: Target, opacity: float, n: int) -> None:
    render = target.render(layers(opacity, n), front_camera())
    expected = 1 - (1 - opacity) ** n
    assert render.alpha[0, MIDDLE, MIDDLE, 0].item() == pytest.approx(expected, abs=target.tolerance)


def test_blending_stops_when_nothing_shines_through(target: Target) -> None:
    alpha = target.render(layers(0.9, 200), front_camera()).alpha[0, MIDDLE, MIDDLE, 0].item()
    assert 1 - 1.0001e-4 <= alpha <= 1 + target.tolerance


def test_alpha_of_one_gaussian_is_capped(target: Target) -> None:
    gaussian = one_gaussian()
    opaque = Gaussians(**{**gaussian.params(), "opacity_logits": torch.full((1,), 40.0, dtype=F64)})
    render = target.render(opaque, front_camera())
    assert render.alpha.max().item() == pytest.approx(0.999, abs=target.tolerance)


def test_wall_has_its_depth_wherever_it_is_seen(target: Target) -> None:
    render = target.render(one_gaussian(mean=(0, 0, 3.5), scales=(2, 2, 0.01), opacity=0.99), front_camera(), ALL)
    assert render.depth is not None
    is_seen = render.alpha > 0
    torch.testing.assert_close(render.depth[is_seen], torch.full_like(render.depth[is_seen], 3.5), rtol=1e-6, atol=0)
    assert (render.depth[~is_seen] == 0).all()


def test_depth_is_the_weighted_mean(target: Target) -> None:
    scene = cat([one_gaussian(mean=(0, 0, 2.0), opacity=0.5), one_gaussian(mean=(0, 0, 6.0), opacity=0.8)])
    render = target.render(scene, front_camera(), ALL)
    assert render.depth is not None
    expected = (0.5 * 2 + 0.5 * 0.8 * 6) / (0.5 + 0.5 * 0.8)
    assert render.depth[0, MIDDLE, MIDDLE, 0].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("opacities", "expected"), [((0.6, 0.9), 2.0), ((0.4, 0.9), 6.0), ((0.2, 0.2), 0.0)])
def test_median_depth_is_where_half_of_the_light_is_gone(
    target: Target, opacities: tuple[float, float], expected: float
) -> None:
    near, far = one_gaussian(mean=(0, 0, 2), opacity=opacities[0]), one_gaussian(mean=(0, 0, 6), opacity=opacities[1])
    median = target.render(cat([near, far]), front_camera(), ALL).median_depth
    if median is None:
        pytest.skip(f"backend {target.name} has no median depth")
    assert median[0, MIDDLE, MIDDLE, 0].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("angle_deg", [0.0, 30.0, -70.0, 170.0])
def test_normal_of_a_disc_faces_the_camera(target: Target, angle_deg: float) -> None:
    angle = math.radians(angle_deg)
    quat = (math.cos(angle / 2), math.sin(angle / 2), 0.0, 0.0)
    render = target.render(one_gaussian(scales=(1, 1, 0.01), opacity=0.75, quat=quat), front_camera(), ALL)
    assert render.normals is not None
    axis = torch.tensor([0.0, -math.sin(angle), math.cos(angle)], dtype=F64)
    expected = -0.75 * axis * axis[2].sign()
    torch.testing.assert_close(render.normals[0, MIDDLE, MIDDLE], expected, rtol=0, atol=target.tolerance)


def test_images_not_asked_for_are_none(target: Target) -> None:
    render = target.render(one_gaussian(), front_camera())
    assert render.depth is None
    assert render.median_depth is None
    assert render.normals is None


def test_background_enters_affinely(target: Target) -> None:
    background = (0.3, 0.6, 0.9)
    black = target.render(one_gaussian(), front_camera())
    render = target.render(one_gaussian(), front_camera(), RasterSettings(background=background))
    expected = black.rgb + (1 - black.alpha) * torch.tensor(background, dtype=F64)
    torch.testing.assert_close(render.rgb, expected, rtol=0, atol=target.tolerance)


def test_colour_depends_on_the_direction_from_the_camera(target: Target) -> None:
    gaussian = one_gaussian(mean=(0, 0, 4), opacity=0.8, rgb=(0.5, 0.5, 0.5))
    shN = torch.zeros(1, 3, 3, dtype=F64)
    shN[0, 1] = torch.tensor([0.3, -0.2, 0.1])  # The function sqrt(3 / 4 pi) z.
    scene = Gaussians(**{**gaussian.params(), "shN": shN})
    render = target.render(scene, front_camera())
    expected = 0.8 * (0.5 + math.sqrt(3 / (4 * math.pi)) * shN[0, 1])
    torch.testing.assert_close(render.rgb[0, MIDDLE, MIDDLE], expected, rtol=0, atol=target.tolerance)


def test_negative_colours_are_clamped_before_blending(target: Target) -> None:
    dark = one_gaussian(mean=(0, 0, 2), opacity=0.5, rgb=(-2.0, -2.0, -2.0))
    bright = one_gaussian(mean=(0, 0, 4), opacity=0.5, rgb=(1.0, 2.0, 0.5))
    render = target.render(cat([dark, bright]), front_camera())
    expected = torch.tensor([0.25, 0.5, 0.125], dtype=F64)
    torch.testing.assert_close(render.rgb[0, MIDDLE, MIDDLE], expected, rtol=0, atol=target.tolerance)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_lower_sh_degree_ignores_the_higher_coefficients(target: Target, degree: int) -> None:
    generator = torch.Generator().manual_seed(degree)
    shN = torch.randn(1, 15, 3, generator=generator, dtype=F64) * 0.1
    gaussian = one_gaussian(mean=(0.3, -0.2, 4))
    full = Gaussians(**{**gaussian.params(), "shN": shN})
    kept = Gaussians(**{**gaussian.params(), "shN": shN[:, : (degree + 1) ** 2 - 1]})
    a = target.render(full, front_camera(), RasterSettings(sh_degree=degree))
    b = target.render(kept, front_camera())
    torch.testing.assert_close(a.rgb, b.rgb, rtol=0, atol=target.tolerance)


def test_radius_reaches_the_contour_of_one_255th(target: Target) -> None:
    if target.name == "gsplat":
        pytest.skip("backend gsplat rounds radii up to whole pixels")
    radii = target.render(one_gaussian(opacity=0.8), front_camera()).stats.radii
    variance = (40 * 0.3 / 4) ** 2 + 0.3
    assert radii.item() == pytest.approx(math.sqrt(2 * math.log(0.8 * 255) * variance), rel=1e-4)


def test_colour_of_sh0_is_the_colour_given() -> None:
    rgb = torch.tensor([0.0, 0.25, 1.0], dtype=F64)
    torch.testing.assert_close(sh.to_rgb(sh.from_rgb(rgb)), rgb)
    assert pytest.approx(math.sqrt(1 / (4 * math.pi)), abs=1e-15) == sh.C0
