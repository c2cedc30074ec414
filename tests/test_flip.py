"""FLIP: its bounds and the values its definition fixes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import F64
from torch import Tensor

from scene3d.ops.flip import PIXELS_PER_DEGREE, flip, flip_map

# Mean of the authors' tool (flip-evaluator 1.7, LDR, default viewing conditions) for `checkered` against itself
# shifted by 3 pixels, float32.
PUBLISHED_TOOL_MEAN = 0.3866436


def constant(rgb: tuple[float, float, float]) -> Tensor:
    return torch.tensor(rgb, dtype=F64).expand(12, 15, 3)


def random_image(seed: int) -> Tensor:
    return torch.rand(24, 30, 3, generator=torch.Generator().manual_seed(seed), dtype=F64)


def checkered() -> Tensor:
    y, x = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    return torch.stack([x / 80, y / 60, ((x // 8 + y // 8) % 2).float()], dim=2).to(F64)


@given(seed=st.integers(0, 1000))
def test_equal_images_differ_by_nothing(seed: int) -> None:
    assert not flip_map(random_image(seed), random_image(seed)).any()


@given(seed=st.integers(0, 1000), gain=st.floats(0, 1))
def test_values_lie_between_0_and_1(seed: int, gain: float) -> None:
    values = flip_map(random_image(seed), gain * random_image(seed + 1))
    assert values.min() >= 0
    assert values.max() <= 1


@given(seed=st.integers(0, 1000))
def test_reference_and_test_may_change_places(seed: int) -> None:
    a, b = random_image(seed), random_image(seed + 1)
    torch.testing.assert_close(flip_map(a, b), flip_map(b, a), rtol=0, atol=1e-9)


def test_green_against_blue_is_the_largest_difference() -> None:
    assert flip(constant((0, 1, 0)), constant((0, 0, 1))).item() == pytest.approx(1.0, abs=1e-9)


def test_black_against_white_follows_from_the_definition() -> None:
    # L* differs by 100. The largest difference, of green and blue in CIELAB after the Hunt adjustment:
    green, blue = (87.7347, -86.1827, 83.1793), (32.2970, 79.1875, -107.8602)
    (la, aa, ba), (lb, ab, bb) = ((l, 0.01 * l * a, 0.01 * l * b) for l, a, b in (green, blue))
    largest = (la - lb + math.hypot(aa - ab, ba - bb)) ** 0.7
    expected = 0.95 + (100**0.7 - 0.4 * largest) / (0.6 * largest) * 0.05
    assert flip(constant((0, 0, 0)), constant((1, 1, 1))).item() == pytest.approx(expected, abs=1e-4)


def test_the_mean_is_that_of_the_published_tool() -> None:
    found = flip(checkered(), checkered().roll(3, dims=1)).item()
    # The tool computes in float32 and rounds its kernels.
    assert found == pytest.approx(PUBLISHED_TOOL_MEAN, abs=1e-4)


def test_an_edge_that_is_missing_counts_more_than_its_colour() -> None:
    flat = constant((0.5, 0.5, 0.5)).clone()
    edge = flat.clone()
    edge[:, 7] = 0.8
    soft = flat + (edge - flat).mean(dim=1, keepdim=True)
    assert flip_map(flat, edge)[6, 7] > 2 * flip_map(flat, soft)[6, 7]


def test_fine_noise_counts_less_from_farther_away() -> None:
    a = random_image(0)
    noise = a + 0.2 * (random_image(1) - 0.5)
    assert flip_map(a, noise, 2 * PIXELS_PER_DEGREE).mean() < flip_map(a, noise).mean()


def test_a_mask_selects_pixels() -> None:
    a, b = random_image(0), random_image(1)
    mask = torch.zeros(24, 30, dtype=torch.bool)
    mask[3:9, 4:20] = True
    assert flip(a, b, mask).item() == pytest.approx(flip_map(a, b)[3:9, 4:20].mean().item())


def test_values_outside_of_0_to_1_are_clamped() -> None:
    assert flip(constant((1, 1, 1)), constant((1.5, 2, 1))).item() == 0


def test_sizes_that_differ_are_named() -> None:
    with pytest.raises(ValueError, match=r"test: expected shape \[H, W, 3\], got \[24, 29, 3\] where H=24, W=30"):
        flip(random_image(0), random_image(1)[:, :29])
