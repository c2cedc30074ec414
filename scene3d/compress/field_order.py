"""Order the ranks of colour of a field by what they add to what is seen; find what a decoder makes of the first ones.

Which ranks matter is asked of the sums along rays of the views: one after the other, that rank comes next which brings
features that are predicted from those taken nearest to the features of all (orthogonal matching pursuit, Pati et al.
1993). A file that ends after some of them is then shown through the best linear map of what is there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.fields import BASES, Field, decoder_of
from scene3d.io.field_heads import Head
from scene3d.io.field_steps import group_of, mode_factors
from scene3d.ops.rays import camera_rays
from scene3d.render.field_cpu import NativeField

N_RAYS = 1 << 15
# Rays that meet less say nothing.
MIN_OPACITY = 0.05
# Of the mean of the diagonal.
RIDGE = 1e-6


@dataclass(frozen=True)
class OrderedField:
    """A field and what is shown of its first ranks.

    Attributes:
        field: Ranks of colour in falling order of what they add.
        heads: After each group of ranks but the last.
    """

    field: Field
    heads: tuple[Head, ...]


@dataclass(frozen=True)
class _Moments:
    """Of the mean products along rays, and a 1 behind them, weighted by opacity.

    Attributes:
        gram: [A + 1, A + 1] float64
        basis: From products to features. [A, F] float64
    """

    gram: Tensor
    basis: Tensor

    def to_features(self) -> Tensor:
        """Products by features. [A + 1, F]"""
        return self.gram[:, :-1] @ self.basis


@torch.no_grad()
def order_ranks(field: Field, views: Cameras) -> OrderedField:
    """Order the ranks of colour of a field.

    Args:
        field: Float32 on the CPU.
        views: Whose rays say what is seen.
    """
    if field.has_network:
        return OrderedField(field, ())
    moments = _moments(field, views)
    if not float(moments.gram[-1, -1]) > 0:
        return OrderedField(field, ())
    order, rank = _order(moments, field), field.ranks[1]
    colors = list(field.color)
    for mode, members in enumerate(mode_factors(field.kind, len(field.levels))):
        own = order[mode] - mode * rank
        for k in members:
            colors[k] = colors[k][..., own].contiguous()
    taken = torch.cat(list(order))
    decoder = decoder_of([field.decoder.basis[taken], *field.decoder.tensors()[1:]])
    group, heads = group_of(field.kind, rank), []
    for n in range(group, rank, group):
        heads.append(_head(moments, order[:, :n].reshape(-1), n, has_offset=not decoder.is_harmonic))
    return OrderedField(replace(field, color=tuple(colors), decoder=decoder), tuple(heads))


def _moments(field: Field, views: Cameras) -> _Moments:
    generator = torch.Generator().manual_seed(0)
    view = torch.randint(len(views), (N_RAYS,), generator=generator)
    place = torch.rand(N_RAYS, 2, generator=generator)
    columns, rows = (place * views.sizes[view]).long().unbind(dim=1)
    sums = NativeField(field).march(*camera_rays(views, view, columns, rows), None)
    features, weights = (sums.features, sums.opacity) if sums.rows is None else (sums.rows.features, sums.rows.weights)
    met = weights > (MIN_OPACITY if sums.rows is None else 0.0)
    weight = weights[met].double()
    means = features[met].double() / weight[:, None]
    values = torch.cat([means, torch.ones_like(weight)[:, None]], dim=1) * weight.sqrt()[:, None]
    return _Moments(values.T @ values, field.decoder.basis.double())


def _order(moments: _Moments, field: Field) -> Tensor:
    """Ranks of each mode in order, numbered among all. [M, R]"""
    rank, n_modes = field.ranks[1], field.n_modes
    gram, cross = moments.gram, moments.to_features()
    if not field.decoder.is_harmonic:
        # What the constant does not say: from here on, what no rank taken says.
        gram, cross = _without(gram, cross, -1)
    gram, cross = gram[:-1, :-1], cross[:-1]
    floor = RIDGE * float(gram.diagonal().mean()) + 1e-30
    taken: list[list[int]] = [[] for _ in range(n_modes)]
    is_left = torch.ones(n_modes, rank, dtype=torch.bool)
    fixed = field.names.index(BASES) - 3 if BASES in field.names else None
    for _ in range(rank):
        for _ in range(n_modes):
            gain = (cross.square().sum(dim=1) / (gram.diagonal() + floor)).reshape(n_modes, rank)
            behind = min(map(len, taken))
            is_open = is_left & torch.tensor([len(t) == behind for t in taken])[:, None]
            if fixed is not None:
                # Channels of bases differ in frequency: they keep their order, the lowest first.
                is_open[fixed] &= torch.arange(rank) == len(taken[fixed])
            best = int(torch.where(is_open, gain, -1.0).argmax())
            taken[best // rank].append(best)
            is_left[best // rank, best % rank] = False
            gram, cross = _without(gram, cross, best, floor)
    return torch.tensor(taken)


def _without(gram: Tensor, cross: Tensor, i: int, floor: float = 0.0) -> tuple[Tensor, Tensor]:
    """Moments of what number i does not predict."""
    column, size = gram[:, i], float(gram[i, i]) + floor
    return gram - column[:, None] * column / size, cross - column[:, None] * cross[i] / size


def _head(moments: _Moments, ranks: Tensor, n_ranks: int, has_offset: bool) -> Head:
    """The best map from the features of some ranks to those of all."""
    part = torch.zeros(len(moments.gram), moments.basis.shape[1] + 1, dtype=torch.float64)
    part[ranks, :-1] = moments.basis[ranks]
    part[-1, -1] = float(has_offset)
    gram = part.T @ moments.gram @ part
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    found = torch.linalg.solve(gram + ridge, part.T @ moments.to_features()).float()
    return Head(n_ranks, found[:-1].contiguous(), found[-1].contiguous())
