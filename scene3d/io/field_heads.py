"""Heads: what a decoder makes of the features of fewer ranks, for files that end early.

Where the weakest ranks are missing, the features of the others are mixed so that they come as near to those of all as a
linear map can bring them: x becomes x mix + offset, then the network goes on as if nothing had happened. Harmonics have
no room for an offset: theirs is 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.core.fields import Decoder, Field, decoder_of

# Of numbers of heads, around those that change nothing.
HEAD_STEP = 1 / 64


@dataclass(frozen=True)
class Head:
    """What follows so many ranks of each mode.

    Attributes:
        n_ranks: That are there.
        mix: [F, F]
        offset: [F]
    """

    n_ranks: int
    mix: Tensor
    offset: Tensor

    def rows(self) -> Tensor:
        """As numbers that are small where the head changes little. [F + 1, F]"""
        return torch.cat([self.mix - torch.eye(len(self.mix)), self.offset[None]])


def head_of(n_ranks: int, rows: Tensor) -> Head:
    """The head whose `rows()` these are."""
    return Head(n_ranks, rows[:-1] + torch.eye(rows.shape[1]), rows[-1])


def with_head(field: Field, head: Head) -> Field:
    """The field as it is seen with its first ranks of colour alone."""
    ranks = torch.arange(field.ranks[1]).repeat(field.n_modes)
    basis = torch.where((ranks < head.n_ranks)[:, None], field.decoder.basis, 0.0)
    decoder = decoder_of([basis @ head.mix, *field.decoder.tensors()[1:]])
    return replace(field, decoder=shifted(decoder, head.offset))


def shifted(decoder: Decoder, offset: Tensor) -> Decoder:
    """The decoder of features that lack `offset`: as sin(x + c) = sin x cos c + cos x sin c, layers can make up."""
    if decoder.is_harmonic:
        return decoder
    width = decoder.basis.shape[1]
    first = decoder.weights[0].clone()
    x, sine, cosine, sine2, cosine2 = (first[k * width : (k + 1) * width] for k in range(5))
    bias = decoder.biases[0] + offset @ x
    for s, c, angle in ((sine, cosine, offset), (sine2, cosine2, 2 * offset)):
        sin, cos = angle.sin()[:, None], angle.cos()[:, None]
        # In place: views of `first`.
        turned = cos * s - sin * c, sin * s + cos * c
        s.copy_(turned[0]), c.copy_(turned[1])
    return replace(decoder, weights=(first, *decoder.weights[1:]), biases=(bias, *decoder.biases[1:]))
