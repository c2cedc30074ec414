"""Field: a radiance field in a box, factored into planes and lines (TensoRF, Chen et al. 2022) or into the vectors of
many small leaves (after Strivec, Gao et al. 2023), or planes and lines with radial bases (NeuRBF, Chen et al. 2023); or
a small network at every sample, of a hash grid (Müller et al. 2022) or of the position alone (Mildenhall et al. 2020).

Density and features of colour are sums over modes and ranks of products of factors, each interpolated linearly
between nodes; the first and the last node lie on the faces of the box. Ranks are the last axis, a multiple of 16.
    vm: plane times the line across it, three modes. Factors: xy xz yz z y x.
    cp: product of three lines, one mode. Factors: x y z.
    trivec: product of the three vectors of the leaf around a point, a mode per level. Factors: x0 y0 z0 x1 y1 z1.
    rbf: the modes of vm, and the sum of the channels of the bases around a point times their rows as a fourth.
    hash: the R units of a layer behind the features of a hash grid, one mode. Factors: table layer0.
    mlp: the R units of the last of four layers behind position and waves of it, one mode. Factors: layer0 ... layer3.
A plane ab is [n_b, n_a, R], a line [n, R], the vectors of all leaves along an axis [n_leaves, nodes, R], rows of bases
[n_bases, R]. A layer is [inputs + 1, R], its bias last; of units below 0 a hundredth passes. The features of density of
a network are its units, those of the second half taken negative.

density = density_scale softplus(feature + density_shift), per scene unit. A field without bounds has a warp (see
scene3d.core.warp): then box, step and density are meant in its frame. A decoder makes a colour from a feature and
the direction of a ray. Shading deferred: from the mean feature along the ray (weights as in compositing), one
evaluation per pixel. Shading sample: from that of each sample, and the colours are composited (TensoRF).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from scene3d.core.bases import RadialBases
from scene3d.core.checks import Dims
from scene3d.core.density_bricks import DensityBricks
from scene3d.core.hash_grid import HashGrid
from scene3d.core.shell import Shell
from scene3d.core.warp import Warp

FieldKind = Literal["vm", "cp", "trivec", "rbf", "hash", "mlp"]
Shading = Literal["deferred", "sample"]
SHADINGS: tuple[Shading, ...] = ("deferred", "sample")
# What makes colours of features: layers of a network, or spherical harmonics of the direction.
Coloring = Literal["network", "harmonics"]
LANES = 16
DIRECTION_TERMS = 16
# Of a decoder without a network: harmonics of each channel.
HARMONIC_FEATURES = 3 * DIRECTION_TERMS
# Of degree l they are divided by 1 + l: steps of a fit change the colour of a place more than how it shines.
HARMONIC_DIVISORS = (1, *[2] * 3, *[3] * 5, *[4] * 7)
BASES = "bases"
VM_FACTORS = ("xy", "xz", "yz", "z", "y", "x")
TABLE = "table"
LAYERS = ("layer0", "layer1", "layer2", "layer3")
FACTORS: dict[FieldKind, tuple[str, ...]] = {
    "vm": VM_FACTORS,
    "cp": ("x", "y", "z"),
    "rbf": (*VM_FACTORS, BASES),
    "hash": (TABLE, LAYERS[0]),
    "mlp": LAYERS,
}
NETWORK_KINDS: tuple[FieldKind, ...] = ("hash", "mlp")
# Of the position in mlp: sines and cosines of pi 2^k x for k below.
OCTAVES = 8
MAX_UNITS = 128
# In the order in which native code counts them.
FIELD_KINDS: tuple[FieldKind, ...] = ("vm", "cp", "trivec", "rbf", "hash", "mlp")
AXES = "xyz"
MAX_LEVELS = 2


@dataclass(frozen=True)
class Decoder:
    """Colour from features and direction: basis, two hidden layers, sigmoid; or harmonics.

    The first layer takes the basis' F features, their sines and cosines at frequencies 1 and 2, and the 16 spherical
    harmonics of the direction. Without layers, features are 16 coefficients of each channel: colour is 0.5 plus what
    they give with the harmonics of the direction, those of degree l divided by 1 + l.

    Attributes:
        basis: Sums of products to features. [A, F]
        weights: Of the three layers. [5F + 16, H], [H, H], [H, 3]; none of harmonics, F = 48.
        biases: [H], [H], [3]; none of harmonics.
    """

    basis: Tensor
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        dims = Dims()
        dims.check("basis", self.basis, "A F")
        if self.is_harmonic:
            if self.biases or self.basis.shape[1] != HARMONIC_FEATURES:
                words = f"expected {HARMONIC_FEATURES} features and no biases"
                raise ValueError(f"decoder: without layers {words}, got {self.basis.shape[1]} and {len(self.biases)}")
            return
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

    @property
    def is_harmonic(self) -> bool:
        """Whether features are coefficients of spherical harmonics, and no network follows."""
        return not self.weights

    def tensors(self) -> tuple[Tensor, ...]:
        """All parameters: basis, weights, biases."""
        return (self.basis, *self.weights, *self.biases)

    def map(self, function: Callable[[Tensor], Tensor]) -> Decoder:
        """Apply `function` to every parameter."""
        return decoder_of([function(value) for value in self.tensors()])


def decoder_of(tensors: list[Tensor]) -> Decoder:
    """The decoder whose `tensors()` these are."""
    n_layers = len(tensors) // 2
    return Decoder(tensors[0], tuple(tensors[1 : 1 + n_layers]), tuple(tensors[1 + n_layers :]))


@dataclass(frozen=True)
class LeafLevel:
    """Leaves on a lattice of cubes over the box of a field.

    Levels are added. Where the second is shifted by half a cube the two are a cover of one field instead: in each a
    leaf counts the less, the nearer a point is to its faces, so that seams show in neither.

    Attributes:
        taken: Cubes that hold a leaf; leaves are numbered in this order. [Z, Y, X] bool
        nodes: Of each vector of a leaf; the first and the last lie on its faces.
        is_shifted: The box begins, and ends, in the middle of a cube.
    """

    taken: Tensor
    nodes: int
    is_shifted: bool = False

    def __post_init__(self) -> None:
        Dims().check("taken", self.taken, "Z Y X", torch.bool)
        if self.nodes < 2:
            raise ValueError(f"nodes: expected at least 2 along a leaf, got {self.nodes}")
        if min(self.edges) < 1:
            raise ValueError(f"taken: expected a cube along every axis, got {list(self.taken.shape)}")

    @property
    def edges(self) -> tuple[int, int, int]:
        """Edges of cubes along the x, y and z of the box."""
        z, y, x = (n - self.is_shifted for n in self.taken.shape)
        return x, y, z

    @property
    def n_leaves(self) -> int:
        return int(self.taken.sum())

    def numbers(self) -> Tensor:
        """Number of the leaf in each cube, -1 where there is none. [Z, Y, X] int32"""
        count = self.taken.reshape(-1).cumsum(dim=0).reshape(self.taken.shape) - 1
        return torch.where(self.taken, count, -1).int()


@dataclass(frozen=True)
class Field:
    """A radiance field.

    Attributes:
        kind: How it is factored.
        box: Least and greatest corner, world. [2, 3]
        density: Factors of density, in the order of `names`.
        color: Factors of the features of colour.
        decoder: From features to colour.
        density_scale: See above, 1 / scene unit.
        density_shift: See above.
        occupancy: Cells of the box that are not empty; None = all. [Z, Y, X] bool
        step: Distance of samples along a ray, scene units.
        levels: Of trivec, one or two; no others have any.
        bases: Of rbf; no others have any.
        grid: Of hash; no others have any.
        warp: Of the world to the frame in which the box lies; None = the box lies in the world.
        shading: Whether the decoder makes a colour of each pixel or of each sample.
        bricks: Of the density, for images; with other density, box or step they fall away.
        shell: In which images look for matter; None = everywhere. Of a field in a box.
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
    levels: tuple[LeafLevel, ...] = ()
    bases: RadialBases | None = None
    warp: Warp | None = None
    shading: Shading = "deferred"
    bricks: DensityBricks | None = None
    shell: Shell | None = None
    grid: HashGrid | None = None

    def __post_init__(self) -> None:
        if self.bricks is not None and not self.bricks.is_made_from(self.density_parts()):
            object.__setattr__(self, "bricks", None)
        dims = Dims()
        dims.check("box", self.box, "2 3")
        self._check_levels()
        self._check_bases()
        self._check_grid()
        names = self.names
        for label, factors, rank in (("density", self.density, "R"), ("color", self.color, "S")):
            if len(factors) != len(names):
                raise ValueError(f"{label}: expected {len(names)} factors, got {len(factors)}")
            for name, value in zip(names, factors, strict=True):
                dims.check(f"{label} {name}", value, f"{self._shape_words(name, factors[0].shape[-1])} {rank}")
        self._check_numbers(dims)

    def _shape_words(self, name: str, rank: int) -> str:
        if self.kind in NETWORK_KINDS:
            return str(network_rows(name, rank, self.grid))
        if name == BASES:
            return str(0 if self.bases is None else len(self.bases))
        if self.kind != "trivec":
            return " ".join(reversed(name))
        level = self.levels[int(name[1])]
        return f"{level.n_leaves} {level.nodes}"

    def _check_levels(self) -> None:
        if self.kind not in FIELD_KINDS:
            raise ValueError(f"kind: expected one of {', '.join(FIELD_KINDS)}, got {self.kind!r}")
        if self.kind != "trivec":
            if self.levels:
                raise ValueError(f"levels: expected none of a field of the kind {self.kind}, got {len(self.levels)}")
        elif not 1 <= len(self.levels) <= MAX_LEVELS:
            raise ValueError(f"levels: expected 1 to {MAX_LEVELS}, got {len(self.levels)}")
        elif self.levels[0].is_shifted:
            raise ValueError("levels: expected the first not to be shifted")

    def _check_bases(self) -> None:
        if (self.bases is not None) != (self.kind == "rbf"):
            found = "none" if self.bases is None else f"{len(self.bases)}"
            raise ValueError(f"bases: expected some of a field of the kind rbf alone, got {found} of {self.kind}")
        if self.bases is not None and self.bases.n_dims != 3:
            raise ValueError("bases: expected three dimensions, got 2")

    def _check_grid(self) -> None:
        if (self.grid is not None) != (self.kind == "hash"):
            found = "none" if self.grid is None else "one"
            raise ValueError(f"grid: expected one of a field of the kind hash alone, got {found} of {self.kind}")

    def _check_numbers(self, dims: Dims) -> None:
        ranks, nodes = (dims.sizes["R"], dims.sizes["S"]), self.resolution
        if any(rank % LANES or rank == 0 for rank in ranks):
            raise ValueError(f"ranks: expected multiples of {LANES}, got {ranks}")
        if self.has_network and max(ranks) > MAX_UNITS:
            raise ValueError(f"ranks: expected at most {MAX_UNITS} units of a {self.kind} field, got {ranks}")
        if min(nodes) < 2:
            raise ValueError(f"nodes: expected at least 2 along every axis, got {list(nodes)}")
        if self.decoder.basis.shape[0] != self.n_features:
            raise ValueError(f"basis: expected {self.n_features} rows, got {self.decoder.basis.shape[0]}")
        low, high = self.box.tolist()
        if not all(a < b for a, b in zip(low, high, strict=True)):
            raise ValueError(f"box: expected a least corner below the greatest, got {low} and {high}")
        if not (self.step > 0 and self.density_scale > 0):
            raise ValueError(f"step, density_scale: expected positive, got {self.step} and {self.density_scale}")
        if self.shading not in SHADINGS:
            raise ValueError(f"shading: expected {' or '.join(SHADINGS)}, got {self.shading!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the factors of density, and of those of colour."""
        if self.kind == "trivec":
            return tuple(f"{axis}{level}" for level in range(len(self.levels)) for axis in AXES)
        return FACTORS[self.kind]

    @property
    def resolution(self) -> tuple[int, int, int]:
        """Nodes along x, y, z; of leaves as many as the finest level would have if all its cubes held one, of a hash
        grid the corners of the finest level, of mlp two for each of its shortest waves."""
        if self.grid is not None:
            nx, ny, nz = self.grid.cells[-1]
            return nx + 1, ny + 1, nz + 1
        if self.kind == "mlp":
            return (2**OCTAVES + 1,) * 3
        if self.kind == "trivec":
            finest = max(self.levels, key=lambda level: level.edges[0] * (level.nodes - 1))
            x, y, z = (n * (finest.nodes - 1) + 1 for n in finest.edges)
            return x, y, z
        factors = dict(zip(FACTORS[self.kind], self.density, strict=True))
        return factors["x"].shape[0], factors["y"].shape[0], factors["z"].shape[0]

    @property
    def has_network(self) -> bool:
        """Whether features come from a network at every sample, so that they are not linear between nodes."""
        return self.kind in NETWORK_KINDS

    @property
    def ranks(self) -> tuple[int, int]:
        """Ranks of each mode, for density and for colour."""
        return self.density[0].shape[-1], self.color[0].shape[-1]

    @property
    def n_features(self) -> int:
        """Products that a ray sums: the modes' ranks side by side."""
        return self.ranks[1] * self.n_modes

    @property
    def n_modes(self) -> int:
        """Modes whose products stand side by side."""
        return n_modes(self.kind, len(self.levels))

    @property
    def n_numbers(self) -> int:
        """Parameters in all, centres and shapes of bases among them."""
        places = () if self.bases is None else (self.bases.centers, self.bases.shapes)
        return sum(value.numel() for value in (*self.factors(), *self.decoder.tensors(), *places))

    @property
    def device(self) -> torch.device:
        return self.box.device

    @property
    def dtype(self) -> torch.dtype:
        return self.box.dtype

    def density_parts(self) -> tuple[object, ...]:
        """All that decides how dense the field is where, and where samples lie."""
        numbers = (self.density_scale, self.density_shift, self.step)
        others = (self.box, self.occupancy, self.bases, self.warp, self.grid)
        return (*self.density, *others, *numbers, *(level.taken for level in self.levels))

    def factors(self) -> tuple[Tensor, ...]:
        """Factors of density, then of colour."""
        return (*self.density, *self.color)

    def with_factors(self, factors: tuple[Tensor, ...]) -> Field:
        """The same with other values of `factors()`."""
        n = len(self.density)
        return replace(self, density=tuple(factors[:n]), color=tuple(factors[n:]))

    def map(self, function: Callable[[Tensor], Tensor]) -> Field:
        """Apply `function` to every factor and the decoder; box, occupancy and places of bases stay."""
        return replace(
            self.with_factors(tuple(function(value) for value in self.factors())), decoder=self.decoder.map(function)
        )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Field:
        moved = self.map(lambda value: value.to(device=device, dtype=dtype))
        occupancy = None if self.occupancy is None else self.occupancy.to(device=device)
        levels = tuple(replace(level, taken=level.taken.to(device=device)) for level in self.levels)
        bases = None if self.bases is None else self.bases.to(device, dtype)
        warp = None if self.warp is None else self.warp.to(device=device, dtype=dtype)
        box = self.box.to(device=device, dtype=dtype)
        return replace(moved, box=box, occupancy=occupancy, levels=levels, bases=bases, warp=warp)

    def detach(self) -> Field:
        return self.map(lambda value: value.detach())

    def is_finite(self) -> bool:
        """Whether every parameter is finite."""
        return all(bool(value.isfinite().all()) for value in (*self.factors(), *self.decoder.tensors()))


def n_modes(kind: FieldKind, n_levels: int) -> int:
    """Modes whose products stand side by side: three of vm, four of rbf, a level each of trivec, one of others."""
    return {"vm": 3, "rbf": 4, "trivec": n_levels}.get(kind, 1)


def network_rows(name: str, rank: int, grid: HashGrid | None) -> int:
    """Rows of a factor of a network of `rank` units; without a grid it is that of mlp."""
    if name == TABLE:
        return 0 if grid is None else grid.table_rows(rank)
    if name == LAYERS[0]:
        return 1 + (3 + 6 * OCTAVES if grid is None else grid.n_inputs)
    return 1 + rank
