"""Quaternions against rotation matrices and against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from strategies import F64, numbers, unit_quats
from torch import Tensor

from scene3d.ops import covariance, quaternions

# Products of a few float64 numbers of size one.
ROUNDING = 1e-12


def turn_about_z(angle: float) -> Tensor:
    return torch.tensor([math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)], dtype=F64)


def angle_between(a: Tensor, b: Tensor) -> float:
    return 2 * math.acos(min(1.0, abs(torch.dot(a, b).item())))


@given(quat=unit_quats())
def test_matrices_are_proper_rotations(quat: Tensor) -> None:
    matrix = quaternions.to_rotmat(quat)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=F64), rtol=0, atol=ROUNDING)
    assert torch.linalg.det(matrix).item() == pytest.approx(1.0, abs=ROUNDING)


def test_a_turn_about_z_takes_x_to_y() -> None:
    x_turned = quaternions.to_rotmat(turn_about_z(math.pi / 2)) @ torch.tensor([1.0, 0.0, 0.0], dtype=F64)
    torch.testing.assert_close(x_turned, torch.tensor([0.0, 1.0, 0.0], dtype=F64), rtol=0, atol=ROUNDING)


@given(quat=unit_quats(), length=numbers(1e-30, 1e30), sign=numbers(-1, 1).filter(lambda x: abs(x) > 0.5))
def test_length_and_sign_do_not_change_the_matrix(quat: Tensor, length: float, sign: float) -> None:
    matrix = quaternions.to_rotmat(math.copysign(length, sign) * quat)
    torch.testing.assert_close(matrix, quaternions.to_rotmat(quat), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("length", [1e-38, 1e-30, 1.0, 1e30, 1e38])
def test_lengths_at_the_ends_of_float32_are_normalised(length: float) -> None:
    quat = quaternions.normalize(torch.tensor([length, -length, length, length], dtype=torch.float32))
    torch.testing.assert_close(quat, torch.tensor([0.5, -0.5, 0.5, 0.5]))


def test_the_zero_quaternion_stays_zero_with_zero_gradient() -> None:
    quat = torch.zeros(2, 4, dtype=F64, requires_grad=True)
    unit = quaternions.normalize(quat)
    assert not unit.any()
    unit.sum().backward()
    assert quat.grad is not None
    assert not quat.grad.any()


@given(quat=unit_quats())
def test_matrices_go_back_to_their_quaternion(quat: Tensor) -> None:
    back = quaternions.from_rotmat(quaternions.to_rotmat(quat))
    assert back[0] >= 0
    assert min((back - quat).norm(), (back + quat).norm()).item() < 1e-7
    torch.testing.assert_close(quaternions.to_rotmat(back), quaternions.to_rotmat(quat), rtol=0, atol=1e-10)


def test_from_rotmat_takes_any_leading_dimensions() -> None:
    quats = quaternions.normalize(torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=F64))
    back = quaternions.from_rotmat(quaternions.to_rotmat(quats))
    torch.testing.assert_close(back, torch.where(quats[..., :1] < 0, -quats, quats))


@given(a=unit_quats(), b=unit_quats())
def test_products_match_those_of_matrices(a: Tensor, b: Tensor) -> None:
    product = quaternions.to_rotmat(quaternions.multiply(a, b))
    expected = quaternions.to_rotmat(a) @ quaternions.to_rotmat(b)
    torch.testing.assert_close(product, expected, rtol=0, atol=ROUNDING)


@given(a=unit_quats(), b=unit_quats(), fraction=numbers(0, 1))
def test_slerp_divides_the_angle(a: Tensor, b: Tensor, fraction: float) -> None:
    middle = quaternions.slerp(a, b, fraction)
    whole = angle_between(a, b)
    assert middle.norm().item() == pytest.approx(1.0, abs=ROUNDING)
    assert angle_between(a, middle) == pytest.approx(fraction * whole, abs=1e-6)
    assert angle_between(middle, b) == pytest.approx((1 - fraction) * whole, abs=1e-6)


def test_slerp_between_turns_about_one_axis_turns_at_constant_speed() -> None:
    fractions = torch.linspace(0, 1, 5, dtype=F64)
    a, b = turn_about_z(0.2).expand(5, 4), -turn_about_z(1.0).expand(5, 4)
    found = quaternions.slerp(a, b, fractions)
    expected = torch.stack([turn_about_z(0.2 + 0.8 * float(f)) for f in fractions])
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)


def test_slerp_of_equal_rotations_stays_there() -> None:
    quat = turn_about_z(0.7)
    torch.testing.assert_close(quaternions.slerp(quat, quat, 0.3), quat, rtol=0, atol=ROUNDING)


def test_gradients_pass_gradcheck() -> None:
    quats = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(quaternions.normalize, (quats,))
    assert torch.autograd.gradcheck(quaternions.to_rotmat, (quats,))


@given(quat=unit_quats())
def test_covariances_have_the_squared_scales_along_the_axes(quat: Tensor) -> None:
    scales = torch.tensor([0.5, 2.0, 0.1], dtype=F64)
    covar = covariance.from_quats_scales(quat, scales)
    axes = quaternions.to_rotmat(quat)
    torch.testing.assert_close(covar @ axes, axes * scales.square(), rtol=0, atol=ROUNDING)


@given(quat=unit_quats())
def test_the_shortest_axis_is_the_column_of_the_smallest_scale(quat: Tensor) -> None:
    axis = covariance.shortest_axes(quat[None], torch.tensor([[0.5, 0.1, 2.0]], dtype=F64))[0]
    torch.testing.assert_close(axis, quaternions.to_rotmat(quat)[:, 1], rtol=0, atol=ROUNDING)
