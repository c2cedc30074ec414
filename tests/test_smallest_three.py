"""Quaternions as their three smaller components."""

from __future__ import annotations

import torch
from hypothesis import given
from strategies import unit_quats
from torch import Tensor

from scene3d.ops import smallest_three


@given(unit_quats())
def test_decoding_gives_the_rotation_back(quat: Tensor) -> None:
    small, largest = smallest_three.encode(quat[None])
    back = smallest_three.decode(small, largest)[0]
    torch.testing.assert_close(back * torch.sign((back * quat).sum()), quat)


@given(unit_quats())
def test_small_components_fill_plus_minus_one(quat: Tensor) -> None:
    small, _ = smallest_three.encode(quat[None] * 7)
    assert float(small.abs().max()) <= 1 + 1e-12


def test_values_outside_of_the_sphere_decode_to_finite_numbers() -> None:
    assert smallest_three.decode(torch.ones(1, 3), torch.tensor([2])).isfinite().all()
