"""Tensors as sums of products of vectors."""

from __future__ import annotations

import torch

from scene3d.ops.tensor_rank import fit_ranks


def product(vectors, basis):
    return torch.einsum("lxr,lyr,lzr,rf->lzyxf", *vectors, basis)


def test_tensors_of_low_rank_are_found_again():
    generator = torch.Generator().manual_seed(3)
    vectors = [torch.rand(7, 6, 2, generator=generator, dtype=torch.float64) + 0.2 for _ in range(3)]
    values = product(vectors, torch.ones(2, 1, dtype=torch.float64))
    cores = fit_ranks(values, 8, torch.ones(8, 1), generator)
    assert (product(cores.vectors, cores.basis) - values).norm() < 0.03 * values.norm()


def test_a_common_basis_is_found():
    generator = torch.Generator().manual_seed(4)
    vectors = [torch.rand(9, 5, 2, generator=generator, dtype=torch.float64) + 0.2 for _ in range(3)]
    values = product(vectors, torch.randn(2, 6, generator=generator, dtype=torch.float64))
    cores = fit_ranks(values, 6, None, generator)
    assert cores.basis.shape == (6, 6)
    assert (product(cores.vectors, cores.basis) - values).norm() < 0.1 * values.norm()


def test_tensors_of_zeros_give_finite_vectors():
    cores = fit_ranks(torch.zeros(2, 4, 4, 4, 1), 16, torch.ones(16, 1), torch.Generator().manual_seed(0))
    assert all(bool(v.isfinite().all()) for v in cores.vectors)
    assert product(cores.vectors, cores.basis).abs().max() < 1e-4
