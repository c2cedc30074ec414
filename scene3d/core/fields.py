"""Field: a radiance field in a box, factored into planes and lines (TensoRF, Chen et al. 2022).

Density and features of colour are sums over modes and ranks of products of factors, each interpolated linearly
between nodes; the first and the last node lie on the faces of the box. Ranks are the last axis, a multiple of 16.
    vm: plane times the line across it, three modes. Factors: xy xz yz z y x.
    cp: product of three lines, one mode. Factors: x y z.
A plane ab is [n_b, n_a, R], a line [n, R].

density = density_scale softplus(feature + density_shift), per scene unit. A decoder makes a colour from the mean
feature along a ray (weights as in compositing) and the direction of the ray: one evaluation per pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from scene3d.core.checks import Dims

FieldKind = Literal["vm", "cp"]
LANES = 16
DIRECTION_TERMS = 16
FACTORS: dict[FieldKind, tuple[str, ...]] = {"vm": ("xy", "xz", "yz", "z", "y", "x"), "cp": ("x", "y", "z")}
AXES = "xyz"


@dataclass(frozen=True)
class Decoder:
    """Colour from features and direction: basis, two hidden layers, sigmoid.

    The first layer takes the basis' F features, their sines and cosines at frequencies 1 and 2, and the 16 spherical
    harmonics of the direction.

    Attributes:
        basis: Sums of products to features. [A, F]
        weights: Of the three layers. [5F + 16, H], [H, H], [H, 3]
        biases: [H], [H], [3]
    """

    basis: Tensor
    weights: tuple[Tensor, Tensor, Tensor]
    biases: tuple[Tensor, Tensor, Tensor]

    def __post_init__(self) -> None:
        dims = Dims()
        dims.check("basis", self.basis, "A F")
        inputs = 5 * self.basis.shape[1] + DIRECTION_TERMS
        for name, value, shape in zip(
            ("weights[0]", "weights[1]", "weights[2]", "biases[0]", "biases[1]", "biases[2]"),
            (*self.weights, *self.biases),
            (f"{inputs} H", "H G", "G 3", "H", "G", "3"),
            strict=True,
        ):
            dims.check(name, value, shape)
        for name, width in (("features", self.basis.shape[1]), ("hidden layers", self.weights[1].shape[0])):
            if width % LANES:
                raise ValueError(f"decoder: expected a multiple of {LANES} {name}, got {width}")

    def tensors(self) -> tuple[Tensor, ...]:
        """All parameters: basis, weights, biases."""
        return (self.basis, *self.weights, *self.biases)

    def map(self, function: Callable[[Tensor], Tensor]) -> Decoder:
        """Apply `function` to every parameter."""
        return decoder_of([function(value) for value in self.tensors()])


def decoder_of(tensors: list[Tensor]) -> Decoder:
    """The decoder whose `tensors()` these are."""
    basis, w0, w1, w2, b0, b1, b2 = tensors
    return Decoder(basis, (w0, w1, w2), (b0, b1, b2))


@dataclass(frozen=True)
class Field:
    """A radiance field.

    Attributes:
        kind: How it is factored.
        box: Least and greatest corner, world. [2, 3]
        density: Factors of density, in the order of FACTORS.
        color: Factors of the features of colour.
        decoder: From features to colour.
        density_scale: See above, 1 / scene unit.
        density_shift: See above.
        occupancy: Cells of the box that are not empty; None = all. [Z, Y, X] bool
        step: Distance of samples along a ray, scene units.
    """

    kind: FieldKind
    box: Tensor
    density: tuple[Tensor, ...]
    color: tuple[Tensor, ...]
    decoder: Decoder
    density_scale: float
    step: float
    density_shift: float = -10.0
    occupancy: Tensor | None = None

    def __post_init__(self) -> None:
        dims = Dims()
        dims.check("box", self.box, "2 3")
        names = FACTORS[self.kind]
        for label, factors, rank in (("density", self.density, "R"), ("color", self.color, "S")):
            if len(factors) != len(names):
                raise ValueError(f"{label}: expected {len(names)} factors, got {len(factors)}")
            for name, value in zip(names, factors, strict=True):
                dims.check(f"{label} {name}", value, f"{' '.join(reversed(name))} {rank}")
        self._check_numbers(dims)

    def _check_numbers(self, dims: Dims) -> None:
        ranks, nodes = (dims.sizes["R"], dims.sizes["S"]), [dims.sizes[axis] for axis in AXES]
        if any(rank % LANES or rank == 0 for rank in ranks):
            raise ValueError(f"ranks: expected multiples of {LANES}, got {ranks}")
        if min(nodes) < 2:
            raise ValueError(f"nodes: expected at least 2 along every axis, got {nodes}")
        if self.decoder.basis.shape[0] != self.n_features:
            raise ValueError(f"basis: expected {self.n_features} rows, got {self.decoder.basis.shape[0]}")
        low, high = self.box.tolist()
        if not all(a < b for a, b in zip(low, high, strict=True)):
            raise ValueError(f"box: expected a least corner below the greatest, got {low} and {high}")
        if not (self.step > 0 and self.density_scale > 0):
            raise ValueError(f"step, density_scale: expected positive, got {self.step} and {self.density_scale}")

    @property
    def resolution(self) -> tuple[int, int, int]:
        """Nodes along x, y, z."""
        factors = dict(zip(FACTORS[self.kind], self.density, strict=True))
        return factors["x"].shape[0], factors["y"].shape[0], factors["z"].shape[0]

    @property
    def ranks(self) -> tuple[int, int]:
        """Ranks of each mode, for density and for colour."""
        return self.density[0].shape[-1], self.color[0].shape[-1]

    @property
    def n_features(self) -> int:
        """Products that a ray sums: the modes' ranks side by side."""
        return self.ranks[1] * (3 if self.kind == "vm" else 1)

    @property
    def n_numbers(self) -> int:
        """Parameters in all."""
        return sum(value.numel() for value in (*self.factors(), *self.decoder.tensors()))

    @property
    def device(self) -> torch.device:
        return self.box.device

    @property
    def dtype(self) -> torch.dtype:
        return self.box.dtype

    def factors(self) -> tuple[Tensor, ...]:
        """Factors of density, then of colour."""
        return (*self.density, *self.color)

    def with_factors(self, factors: tuple[Tensor, ...]) -> Field:
        """The same with other values of `factors()`."""
        n = len(self.density)
        return replace(self, density=tuple(factors[:n]), color=tuple(factors[n:]))

    def map(self, function: Callable[[Tensor], Tensor]) -> Field:
        """Apply `function` to every parameter; box and occupancy stay."""
        return replace(
            self.with_factors(tuple(function(value) for value in self.factors())), decoder=self.decoder.map(function)
        )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Field:
        moved = self.map(lambda value: value.to(device=device, dtype=dtype))
        occupancy = None if self.occupancy is None else self.occupancy.to(device=device)
        return replace(moved, box=self.box.to(device=device, dtype=dtype), occupancy=occupancy)

    def detach(self) -> Field:
        return self.map(lambda value: value.detach())

    def is_finite(self) -> bool:
        """Whether every parameter is finite."""
        return all(bool(value.isfinite().all()) for value in (*self.factors(), *self.decoder.tensors()))
