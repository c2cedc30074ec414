"""Settings of a field fit: plain data. Lengths of time are fractions of the run, so schedules keep their shape.

The recipe is TensoRF's (Chen et al. 2022), shortened: coarse to fine grids, an occupancy mask that is tightened as the
field clears up, L1 on the factors of density, Adam that is started anew when the grid grows. Leaves (trivec) begin as a
coarse field of planes and lines: the first growth puts leaves around what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from scene3d.core.fields import HARMONIC_FEATURES, LANES, MAX_UNITS, NETWORK_KINDS, Coloring, FieldKind, Shading
from scene3d.core.hash_grid import MAX_HASH_LEVELS, MAX_ROW_BITS
from scene3d.recon.field_box import given_box
from scene3d.recon.settings import BackgroundName
from scene3d.render.field_march import MIN_TRANSMITTANCE, MIN_WEIGHT, MarchSettings

FieldPresetName = Literal["fast", "balanced", "best"]
SpaceName = Literal["auto", "box", "contracted", "ndc"]
LeavesName = Literal["one", "two", "cover"]
PlacingName = Literal["kmeans", "even"]
MAX_VOXELS = 640**3
OPEN_FIRST_VOXELS = 64**3
MAX_LEAF_NODES = 65
NETWORK_RATES: dict[FieldKind, float] = {"hash": 0.01, "mlp": 2e-3}
MAX_BASES = 1 << 18
HARMONIC_RATE = 0.01  # First step of the basis of harmonics, in fits to photos.


@dataclass(frozen=True)
class FieldFitSettings:
    """Everything that decides the result of a field fit, with the capture.

    Attributes:
        kind: How the field is factored.
        max_steps: Steps of the whole run.
        time_limit: Seconds after which the run ends; schedules then follow the clock where it is ahead of the steps.
        seed: Of every random number.
        batch_rays: Rays of one step.
        density_rank: Ranks of each mode of density, a multiple of 16.
        color_rank: Ranks of each mode of colour, a multiple of 16.
        n_features: Features that the decoder takes, a multiple of 16.
        hidden: Width of its hidden layers, a multiple of 16.
        decoder: deferred = a colour of each pixel, from the mean features of its ray; sample = of each sample.
        coloring: network = colours from features and direction by a network; harmonics = features are spherical
            harmonics of each channel, 48 of them. These learn what Gaussians show several times as fast.
        first_voxels: Nodes of the first grid, all in all.
        last_voxels: Nodes of the last grid; of leaves, as many as there would be if they filled the box.
        grow_at: Fractions of the run at which the grid grows; of trivec, the first makes the leaves; of rbf,
            the last makes the bases.
        step_in_voxels: Distance of samples, in voxels of the grid as it is.
        least_weight: Samples of less weight have no colour while the field is fitted, and rays end at twice that light.
        leaves: one = cubes of one size; two = sizes of 1 and 2 added; cover = two shifted lattices, blended.
        leaf_nodes: Of each vector of a leaf in the end.
        bases: Radial bases of rbf.
        placing: kmeans = bases where the colours of opaque places change fastest, shaped like their clusters; even =
            round ones anywhere in occupied cells.
        waves: Greatest frequency of the sines that make channels of a basis, the least is 1; 0 = no sines.
        hash_levels: Of a hash grid.
        row_bits: Of hash: no level has more than 2^row_bits rows.
        mask_at: Fractions of the run at which empty cells are found anew.
        mask_after: Steps before which no cell is called empty: nothing has formed yet.
        keep_cells: Least share of the cells that stay occupied: the mask never empties the scene.
        lr_factors: First step size of planes and lines.
        lr_decoder: First step size of the decoder.
        lr_final: Last step sizes as a fraction of the first, reached exponentially.
        l1: Weight of the mean absolute factor of density, halved after the first mask.
        s3im: Weight of 1 - S3IM beside the squared error: structure of random pixels (Xie et al. 2023). 0 = none.
        distortion: Weight of how far density spreads along rays, in diagonals of the box (Barron et al. 2022).
        depth: Weight of the squared relative error of distances, where the capture has depth maps.
        tv: Weight of the mean squared difference of neighbouring nodes of density.
        box: Least and greatest corner, world; None finds one.
        space: Where the field lives: in a box, in all of space contracted around a near cube, or in the normalised
            device coordinates of cameras that look one way.
        near_radius: contracted: half of the side of the near cube, scene units; None finds one.
        background: auto = random colours where photos have alpha, and where the field has no bounds: then nothing
            must show through. Else black.
        eval_steps: Steps after which test views are measured, besides the last.
        checkpoint_every: Steps between checkpoints, 0 = only at the end.
        backend: auto and cpu run on the CPU, cuda on a GPU.
    """

    kind: FieldKind = "vm"
    max_steps: int = 10_000
    time_limit: float | None = None
    seed: int = 0
    batch_rays: int = 4096
    density_rank: int = 16
    color_rank: int = 48
    n_features: int = 32
    hidden: int = 64
    decoder: Shading = "deferred"
    coloring: Coloring = "network"
    first_voxels: int = 96**3
    last_voxels: int = 256**3
    grow_at: tuple[float, ...] = (0.05, 0.1, 0.16, 0.23)
    mask_at: tuple[float, ...] = (0.04, 0.09, 0.2, 0.4)
    mask_after: int = 150
    step_in_voxels: float = 0.5
    least_weight: float = MIN_WEIGHT
    leaves: LeavesName = "two"
    leaf_nodes: int = 9
    bases: int = 12_000
    placing: PlacingName = "kmeans"
    waves: float = 8.0
    hash_levels: int = 8
    row_bits: int = 16
    keep_cells: float = 0.001
    lr_factors: float = 0.02
    lr_decoder: float = 1e-3
    lr_final: float = 0.1
    l1: float = 8e-5
    s3im: float = 0.0
    distortion: float = 0.0
    depth: float = 0.1
    tv: float = 0.0
    box: tuple[float, float, float, float, float, float] | None = None
    space: SpaceName = "auto"
    near_radius: float | None = None
    background: BackgroundName = "auto"
    eval_steps: tuple[int, ...] = ()
    checkpoint_every: int = 2000
    backend: str = "auto"

    def __post_init__(self) -> None:
        for name in ("density_rank", "color_rank", "n_features", "hidden"):
            value = getattr(self, name)
            if value < LANES or value % LANES:
                raise ValueError(f"{name}: expected a multiple of {LANES}, got {value}")
        for name in ("max_steps", "batch_rays"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not 8 <= self.first_voxels <= self.last_voxels <= MAX_VOXELS:
            words = f"expected 8 <= first <= last <= {MAX_VOXELS}, got {self.first_voxels} and {self.last_voxels}"
            raise ValueError(f"first_voxels, last_voxels: {words}")
        for name in ("l1", "s3im", "distortion", "depth", "tv"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if not 0 < self.step_in_voxels <= 4:
            raise ValueError(f"step_in_voxels: expected more than 0 and at most 4, got {self.step_in_voxels}")
        if not 0 <= self.least_weight < 0.5:
            raise ValueError(f"least_weight: expected 0 or more and less than 0.5, got {self.least_weight}")
        if self.s3im > 0 and self.batch_rays < 16:
            raise ValueError(f"batch_rays: expected at least 16 with s3im, got {self.batch_rays}")
        if self.kind in ("trivec", "rbf") and not self.grow_at:
            raise ValueError("grow_at: expected at least one growth, which makes the leaves or the bases")
        self._check_network()
        if self.coloring == "harmonics" and self.n_features != HARMONIC_FEATURES:
            raise ValueError(f"n_features: expected {HARMONIC_FEATURES} of harmonics, got {self.n_features}")
        if not 1 <= self.bases <= MAX_BASES:
            raise ValueError(f"bases: expected 1 to {MAX_BASES}, got {self.bases}")
        if not (self.waves == 0 or 1 <= self.waves <= 1000):
            raise ValueError(f"waves: expected 0 or 1 to 1000, got {self.waves}")
        if not 2 <= self.leaf_nodes <= MAX_LEAF_NODES:
            raise ValueError(f"leaf_nodes: expected 2 to {MAX_LEAF_NODES}, got {self.leaf_nodes}")
        if self.box is not None:
            given_box(self.box)
        if self.box is not None and self.space not in ("auto", "box"):
            raise ValueError(f"box: a field in the space {self.space} has none, give one or the other")
        if self.near_radius is not None and not self.near_radius > 0:
            raise ValueError(f"near_radius: expected more than 0 scene units, got {self.near_radius}")
        if self.backend not in ("auto", "cpu", "cuda"):
            raise ValueError(f"backend: expected auto, cpu or cuda for a field, got {self.backend!r}")
        if self.time_limit is not None and not self.time_limit > 0:
            raise ValueError(f"time_limit: expected more than 0 seconds, got {self.time_limit}")
        if not 0 < self.keep_cells <= 1:
            raise ValueError(f"keep_cells: expected more than 0 and at most 1, got {self.keep_cells}")

    def march(self) -> MarchSettings:
        """How rays are sampled while the field is fitted."""
        light = MIN_TRANSMITTANCE if self.least_weight == MIN_WEIGHT else 2 * self.least_weight
        return MarchSettings(min_weight=self.least_weight, min_transmittance=light)

    def _check_network(self) -> None:
        if not (1 <= self.hash_levels <= MAX_HASH_LEVELS and 4 <= self.row_bits <= MAX_ROW_BITS):
            words = (
                f"expected 1 to {MAX_HASH_LEVELS} and 4 to {MAX_ROW_BITS}, got {self.hash_levels} and {self.row_bits}"
            )
            raise ValueError(f"hash_levels, row_bits: {words}")
        if self.kind not in NETWORK_KINDS:
            return
        if self.grow_at or self.first_voxels != self.last_voxels:
            raise ValueError(f"grow_at, first_voxels: the grid of {self.kind} does not grow, leave it as it is")
        if self.tv > 0:
            raise ValueError(f"tv: numbers of {self.kind} have no neighbours, expected 0, got {self.tv}")
        if max(self.density_rank, self.color_rank) > MAX_UNITS:
            words = f"expected at most {MAX_UNITS}, got {self.density_rank} and {self.color_rank}"
            raise ValueError(f"density_rank, color_rank: as units of {self.kind}: {words}")


def field_preset(name: FieldPresetName, kind: FieldKind, max_steps: int | None = None) -> FieldFitSettings:
    """The settings of a preset; max_steps replaces its number of steps, schedules follow."""
    steps = {"fast": 2500, "balanced": 8000, "best": 30_000}[name]
    voxels = {"fast": 160**3, "balanced": 220**3, "best": 300**3}[name]
    ranks = (96, 288) if kind == "cp" else (16, 48)
    if kind == "cp":
        voxels = round(voxels * 4)
    bases = {"fast": 12_000, "balanced": 20_000, "best": 36_000}[name]
    if kind == "rbf":
        # With the bases about as many numbers as vm has.
        voxels = round(voxels * 0.6)
    if kind == "trivec":
        return _leaf_preset(steps if max_steps is None else max_steps, round(voxels * 1.4))
    if kind in NETWORK_KINDS:
        return _network_preset(kind, steps if max_steps is None else max_steps, voxels)
    return FieldFitSettings(
        kind=kind,
        max_steps=steps if max_steps is None else max_steps,
        density_rank=ranks[0],
        color_rank=ranks[1],
        last_voxels=min(voxels, MAX_VOXELS),
        bases=bases,
        # TensoRF-CP is held by the product of three lines already.
        l1=1e-5 if kind == "cp" else 8e-5,
    )


def without_bounds(settings: FieldFitSettings) -> FieldFitSettings:
    """Settings of a preset, for a field that holds all that photos see: every ray goes through all of it."""
    is_network = settings.kind in NETWORK_KINDS
    return replace(
        settings,
        batch_rays=2048,
        # The near cube has an eighth of the nodes.
        first_voxels=settings.first_voxels if is_network else min(OPEN_FIRST_VOXELS, settings.last_voxels),
        last_voxels=settings.first_voxels if is_network else min(2 * settings.last_voxels, MAX_VOXELS),
        grow_at=() if is_network else (0.25, 0.45, 0.65),
        mask_at=(0.15, 0.25, 0.45, 0.65),
        step_in_voxels=1.0,
        lr_factors=settings.lr_factors if is_network else 0.03,
        lr_decoder=4e-3,
        # Without silhouettes, nothing but this clears the fog between cameras and things.
        distortion=0.03,
    )


def _network_preset(kind: FieldKind, max_steps: int, voxels: int) -> FieldFitSettings:
    units = (16, 48) if kind == "hash" else (64, 64)
    return FieldFitSettings(
        kind=kind,
        max_steps=max_steps,
        density_rank=units[0],
        color_rank=units[1],
        step_in_voxels=1.0,
        first_voxels=voxels,
        last_voxels=voxels,
        grow_at=(),
        lr_factors=NETWORK_RATES[kind],
        mask_after=80 if kind == "hash" else 150,
        # Small numbers in a network are no emptiness.
        l1=0.0,
    )


def _leaf_preset(max_steps: int, voxels: int) -> FieldFitSettings:
    return FieldFitSettings(
        kind="trivec",
        max_steps=max_steps,
        color_rank=32,
        n_features=16,
        # As good as 0.5, and twice as fast, in fits and in images.
        step_in_voxels=1.0,
        last_voxels=min(voxels, MAX_VOXELS),
        grow_at=(0.1, 0.2, 0.3),
        mask_at=(0.06, 0.095, 0.2, 0.4),
    )
