"""Spherical harmonics: orthonormal, in the known order and signs, and turning with the scene."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import F64, rotations
from torch import Tensor

from scene3d.ops import sh

ROUNDING = 1e-12


def unit_directions(n: int, seed: int = 0) -> Tensor:
    dirs = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return dirs / dirs.norm(dim=1, keepdim=True)


def sphere_quadrature() -> tuple[Tensor, Tensor]:
    """Directions and weights that integrate polynomials of degree 6 exactly: Lebedev's idea, on a product grid."""
    # Gauss-Legendre of 4 nodes in z is exact to degree 7, 8 equal steps in longitude to degree 7.
    n_z = 4
    off = torch.tensor([i / math.sqrt(4 * i * i - 1) for i in range(1, n_z)], dtype=F64)
    z, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    weight_z = 2 * vectors[0].square()
    angle = torch.arange(8, dtype=F64) * (2 * math.pi / 8)
    ring = (1 - z * z).sqrt()
    x, y = ring[:, None] * angle.cos(), ring[:, None] * angle.sin()
    dirs = torch.stack([x, y, z[:, None].expand_as(x)], dim=-1).reshape(-1, 3)
    return dirs, (weight_z[:, None] * (2 * math.pi / 8)).expand_as(x).reshape(-1)


def test_basis_is_orthonormal_on_the_sphere() -> None:
    dirs, weights = sphere_quadrature()
    values = sh.basis(dirs, 3)
    gram = values.T @ (weights[:, None] * values)
    torch.testing.assert_close(gram, torch.eye(16, dtype=F64), rtol=0, atol=ROUNDING)


def test_basis_along_the_axes_has_its_known_values() -> None:
    along_z = sh.basis(torch.tensor([0.0, 0.0, 1.0], dtype=F64), 3)
    expected = torch.zeros(16, dtype=F64)
    # sqrt((2l+1) / 4 pi) at m = 0, nothing else, as for every set of spherical harmonics.
    for l in range(4):
        expected[l * l + l] = math.sqrt((2 * l + 1) / (4 * math.pi))
    torch.testing.assert_close(along_z, expected, rtol=0, atol=ROUNDING)


def test_signs_are_those_of_splat_files() -> None:
    third = math.sqrt(3 / (4 * math.pi))
    values = sh.basis(torch.eye(3, dtype=F64), 1)
    expected = torch.tensor([[0, 0, -third], [-third, 0, 0], [0, third, 0]], dtype=F64)
    torch.testing.assert_close(values[:, 1:], expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_lower_degrees_are_the_start_of_higher_ones(degree: int) -> None:
    dirs = unit_directions(10)
    assert torch.equal(sh.basis(dirs, degree), sh.basis(dirs, 3)[:, : (degree + 1) ** 2])


@pytest.mark.parametrize("degree", [-1, 4])
def test_other_degrees_are_refused(degree: int) -> None:
    with pytest.raises(ValueError, match=f"degree: expected 0 to 3, got {degree}"):
        sh.basis(unit_directions(1), degree)


def test_colours_are_clamped_at_black_only() -> None:
    sh0 = sh.from_rgb(torch.tensor([[[-0.4, 0.3, 1.7]]], dtype=F64))
    colors = sh.evaluate(sh0, torch.zeros(1, 0, 3, dtype=F64), unit_directions(1), 0)
    torch.testing.assert_close(colors, torch.tensor([[0.0, 0.3, 1.7]], dtype=F64))


@given(rotation=rotations(), seed=st.integers(0, 1000), degree=st.integers(0, 3))
def test_turned_coefficients_show_the_same_colour_in_the_turned_direction(
    rotation: Tensor, seed: int, degree: int
) -> None:
    shN = torch.randn(5, (degree + 1) ** 2 - 1, 3, generator=torch.Generator().manual_seed(seed), dtype=F64)
    sh0, dirs = torch.full((5, 1, 3), 3.0, dtype=F64), unit_directions(5, seed)
    before = sh.evaluate(sh0, shN, dirs, degree)
    after = sh.evaluate(sh0, sh.rotate(shN, rotation), dirs @ rotation.T, degree)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-10)


@given(rotation=rotations())
def test_band_rotations_are_orthogonal(rotation: Tensor) -> None:
    for matrix in sh.band_rotations(rotation, 3):
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix), dtype=F64), rtol=0, atol=1e-10)


@given(a=rotations(), b=rotations())
def test_band_rotations_follow_one_another(a: Tensor, b: Tensor) -> None:
    both = zip(sh.band_rotations(a, 3), sh.band_rotations(b, 3), sh.band_rotations(a @ b, 3), strict=True)
    for first, second, product in both:
        torch.testing.assert_close(first @ second, product, rtol=0, atol=1e-10)


def test_turning_keeps_float32() -> None:
    shN = torch.randn(2, 15, 3)
    assert sh.rotate(shN, torch.eye(3, dtype=F64)).dtype == torch.float32
    torch.testing.assert_close(sh.rotate(shN, torch.eye(3, dtype=F64)), shN)


def test_gradients_pass_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    sh0 = torch.rand(3, 1, 3, generator=generator, dtype=F64).add(1).requires_grad_()
    shN = (0.1 * torch.randn(3, 15, 3, generator=generator, dtype=F64)).requires_grad_()
    dirs = unit_directions(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b, d: sh.evaluate(a, b, d, 3), (sh0, shN, dirs))
