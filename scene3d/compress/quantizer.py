"""Vector quantizers that are fitted while they are in use: residual stages, how gradients pass, how codes are learnt.

A vector is stored as one index a stage and restored as the sum of the codes they name (residual vector quantization);
one stage is plain vector quantization.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from scene3d.ops.kmeans import kmeans

# Products of points and codes held at once.
MAX_PRODUCTS = 1 << 24
Learning = Literal["means", "gradient", "simvq"]
Estimator = Literal["straight", "rotation"]


@dataclass(frozen=True)
class QuantizerSettings:
    """How a quantizer is fitted.

    Attributes:
        n_codes: Codes per stage.
        n_stages: Residual stages.
        learn: means = codes are the means of what they stand for (Compact3D, Navaneet et al. 2024); gradient = codes
            are parameters; simvq = codes are fixed and a linear map of all of them is learnt (SimVQ, Zhu et al. 2024),
            so that codes without a vector move along.
        estimator: straight = the gradient passes unchanged (Bengio et al. 2013); rotation = it turns with the vector
            (rotation trick, Fifty et al. 2024).
        n_iter: Iterations of k-means for the first codes.
    """

    n_codes: int = 4096
    n_stages: int = 1
    learn: Learning = "means"
    estimator: Estimator = "straight"
    n_iter: int = 10


class Quantizer(nn.Module):
    """Codes for rows of vectors, and which of them each row takes.

    Args:
        points: What to quantize first. [N, D]
        weights: How much each row counts for the first codes and for means. [N]
        settings: Sizes and how codes are learnt.
        seed: Of k-means.
    """

    indices: Tensor

    def __init__(self, points: Tensor, weights: Tensor, settings: QuantizerSettings, seed: int = 0) -> None:
        super().__init__()
        self.settings = settings
        self.weights = weights
        stages, indices = [], []
        residual = points.detach()
        for stage in range(settings.n_stages):
            codes, labels = kmeans(residual, settings.n_codes, weights, settings.n_iter, seed + stage)
            residual = residual - codes[labels]
            stages.append(nn.Parameter(codes, requires_grad=settings.learn == "gradient"))
            indices.append(labels)
        self.stages = nn.ParameterList(stages)
        self.maps = nn.ParameterList(
            [nn.Parameter(torch.eye(points.shape[1])) for _ in stages] if settings.learn == "simvq" else []
        )
        self.register_buffer("indices", torch.stack(indices))

    def codes(self) -> list[Tensor]:
        """The codes of every stage. S of [K, D]"""
        if self.settings.learn == "simvq":
            return [stage @ linear for stage, linear in zip(self.stages, self.maps, strict=True)]
        return list(self.stages)

    def restored(self) -> Tensor:
        """What the indices stand for. [N, D]"""
        parts = [codes[index] for codes, index in zip(self.codes(), self.indices, strict=True)]
        return torch.stack(parts).sum(dim=0)

    def forward(self, points: Tensor) -> Tensor:
        """The restored vectors, with gradients to the points and, where they are learnt by gradient, to the codes."""
        restored = self.restored()
        passed = pass_gradient(points, restored.detach(), self.settings.estimator)
        return passed if self.settings.learn == "means" else passed + (restored - restored.detach())

    @torch.no_grad()
    def assign(self, points: Tensor) -> None:
        """Let every row take its nearest codes, stage after stage."""
        residual = points.detach()
        for stage, codes in enumerate(self.codes()):
            self.indices[stage] = nearest_code(residual, codes)
            residual = residual - codes[self.indices[stage]]

    @torch.no_grad()
    def follow(self, points: Tensor) -> None:
        """Move codes to the means of what they stand for; nothing where they are learnt by gradient."""
        if self.settings.learn != "means":
            return
        parts = [codes[index] for codes, index in zip(self.stages, self.indices, strict=True)]
        for stage, codes in enumerate(self.stages):
            others = [part for i, part in enumerate(parts) if i != stage]
            residual = points.detach() - (torch.stack(others).sum(dim=0) if others else 0)
            codes.copy_(weighted_means(residual, self.weights, self.indices[stage], codes))
            parts[stage] = codes[self.indices[stage]]

    def bits(self) -> float:
        """Entropy of the indices, bits per row."""
        return sum(entropy_bits(index, len(codes)) for index, codes in zip(self.indices, self.stages, strict=True))

    def n_used(self) -> int:
        """Codes that stand for at least one row, over all stages."""
        return sum(len(index.unique()) for index in self.indices)


def pass_gradient(points: Tensor, restored: Tensor, estimator: Estimator) -> Tensor:
    """The value of `restored`, with a gradient to `points`.

    Args:
        points: [N, D]
        restored: No gradient is taken of it. [N, D]
        estimator: straight: d restored / d points = I. rotation: it is (|restored| / |points|) R, where R turns the
            direction of the point into that of the restored one: angles between gradient and vector are kept.

    Returns:
        [N, D]
    """
    if estimator == "straight":
        return points + (restored - points).detach()
    # R p = p - 2 w (w.p) + 2 q (p0.p) for unit vectors p0, q and w along p0 + q.
    length = points.detach().norm(dim=1, keepdim=True)
    target_length = restored.norm(dim=1, keepdim=True)
    unit = points.detach() / length.clamp_min(1e-12)
    target = restored / target_length.clamp_min(1e-12)
    between = unit + target
    between_length = between.norm(dim=1, keepdim=True)
    between = between / between_length.clamp_min(1e-12)
    turned = points - 2 * between * (between * points).sum(1, keepdim=True)
    turned = (turned + 2 * target * (unit * points).sum(1, keepdim=True)) * (target_length / length.clamp_min(1e-12))
    # Without a direction, or for opposite ones, there is no such turn.
    has_turn = (length > 1e-6) & (target_length > 1e-6) & (between_length > 1e-3)
    return torch.where(has_turn, turned, points + (restored - points).detach())


@torch.no_grad()
def nearest_code(points: Tensor, codes: Tensor) -> Tensor:
    """Index of the nearest code of every point. points [N, D], codes [K, D] -> [N] int64"""
    # |p - c|^2 is least where p.c - |c|^2 / 2 is most; a common offset would cost digits.
    offset = codes.mean(dim=0)
    rows, centers = points - offset, codes - offset
    half_squares = centers.square().sum(dim=1) / 2
    n_at_once = max(1, MAX_PRODUCTS // len(codes))
    parts = [(part @ centers.T - half_squares).argmax(dim=1) for part in rows.split(n_at_once)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)


def weighted_means(points: Tensor, weights: Tensor, labels: Tensor, fallback: Tensor) -> Tensor:
    """Means by label; rows of `fallback` [K, D] where no point has weight. points [N, D] -> [K, D]"""
    sums = torch.zeros_like(fallback).index_add_(0, labels, points * weights[:, None])
    masses = torch.zeros_like(fallback[:, 0]).index_add_(0, labels, weights)
    return torch.where(masses[:, None] > 0, sums / masses.clamp_min(1e-30)[:, None], fallback)


def entropy_bits(symbols: Tensor, n_symbols: int) -> float:
    """Order-0 entropy, bits per symbol; 0 for none."""
    counts = torch.bincount(symbols.reshape(-1), minlength=n_symbols).double()
    shares = counts[counts > 0] / max(float(counts.sum()), 1.0)
    return float(-(shares * shares.log2()).sum()) if len(shares) else 0.0
