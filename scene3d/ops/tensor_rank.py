"""Many small tensors as sums of products of vectors: alternating least squares, all tensors at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SWEEPS = 5
# Of the mean of the diagonal, so that ranks that are not needed do no harm.
RIDGE = 1e-2
TENSORS_AT_ONCE = 1024


@dataclass(frozen=True)
class Cores:
    """value[z, y, x, f] = sum over r of x[x, r] y[y, r] z[z, r] basis[r, f].

    Attributes:
        vectors: Along x, y and z. [L, D, R] each
        basis: Common to all tensors. [R, F]
    """

    vectors: tuple[Tensor, Tensor, Tensor]
    basis: Tensor


def fit_ranks(values: Tensor, rank: int, basis: Tensor | None, generator: torch.Generator) -> Cores:
    """Fit L tensors.

    Args:
        values: [L, D, D, D, F]; z, y, x.
        rank: R.
        basis: Fixed [R, F]; None finds one.
        generator: Of the first vectors.

    Kolda and Bader 2009, section 3.4 (canonical decomposition by alternating least squares).
    """
    n, nodes, features = len(values), values.shape[1], values.shape[-1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=values.dtype).to(values.device)

    vectors = [normal(n, nodes, rank) for _ in range(3)]
    common = normal(rank, features) / rank**0.5 if basis is None else basis.to(values.dtype)
    chunks = [slice(i, i + TENSORS_AT_ONCE) for i in range(0, n, TENSORS_AT_ONCE)]
    for _ in range(SWEEPS):
        for part in chunks:
            for axis, value in enumerate(_sweep(values[part], [v[part] for v in vectors], common)):
                vectors[axis][part] = value
        if basis is None:
            common = _basis(values, vectors, chunks)
    x, y, z = vectors
    return Cores((x, y, z), common)


def _sweep(values: Tensor, vectors: list[Tensor], basis: Tensor) -> list[Tensor]:
    """Each axis in turn, the others fixed."""
    mixed = values @ basis.T  # [L, Z, Y, X, R]
    x, y, z = vectors
    among = basis @ basis.T
    along_z = (mixed * z[:, :, None, None]).sum(dim=1)
    x = _solve((along_z * y[:, :, None]).sum(dim=1), _gram(y) * _gram(z) * among)
    y = _solve((along_z * x[:, None]).sum(dim=2), _gram(x) * _gram(z) * among)
    along_x = (mixed * x[:, None, None]).sum(dim=3)
    z = _solve((along_x * y[:, None]).sum(dim=2), _gram(x) * _gram(y) * among)
    # The three vectors of a rank equally long.
    lengths = [v.norm(dim=1, keepdim=True).clamp_min(1e-8) for v in (x, y, z)]
    mean = (lengths[0] * lengths[1] * lengths[2]) ** (1 / 3)
    return [v * (mean / length) for v, length in zip((x, y, z), lengths, strict=True)]


def _basis(values: Tensor, vectors: list[Tensor], chunks: list[slice]) -> Tensor:
    rank, features = vectors[0].shape[-1], values.shape[-1]
    gram, right = values.new_zeros(1, rank, rank), values.new_zeros(1, features, rank)
    for part in chunks:
        x, y, z = (v[part] for v in vectors)
        gram += (_gram(x) * _gram(y) * _gram(z)).sum(dim=0)
        products = z[:, :, None, None] * y[:, None, :, None] * x[:, None, None]
        right += values[part].reshape(-1, features).T @ products.reshape(-1, rank)
    return _solve(right, gram)[0].T.contiguous()


def _gram(v: Tensor) -> Tensor:  # [L, D, R] -> [L, R, R]
    return v.mT @ v


def _solve(right: Tensor, gram: Tensor) -> Tensor:
    """right [L, D, R] times the inverse of gram [L, R, R]."""
    diagonal = gram.diagonal(dim1=1, dim2=2).mean(dim=1)
    ridge = (RIDGE * diagonal + 1e-8)[:, None, None] * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + ridge, right.mT).mT
