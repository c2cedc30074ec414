"""Depth fusion: depth images of many views averaged into one truncated signed distance (Curless and Levoy 1996)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.checks import Dims
from scene3d.core.errors import BackendUnavailable
from scene3d.meshing.block_grid import KEY_LIMIT, SIDE, VOXELS, BlockGrid, pack, unpack
from scene3d.ops.depth_edges import is_thin, nearness_of
from scene3d.ops.pinhole import from_pixels
from scene3d.ops.threads import single_threaded_torch

try:
    from scene3d import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]

# Of a voxel: distance and two weights. The extraction needs about as much as the first two again.
BYTES_PER_VOXEL = (3 + 2) * 4
# The lattice is moved by this share of a voxel: planes of round coordinates would otherwise run exactly through its
# points, where the sign is that of rounding.
LATTICE_SHIFT = 0.37
# Of that weight, as much must be of looks that end near a point inside: other looks only passed before it.
NEAR_SHARE = 0.25
# Looks that end on lines narrower than so many pixels count so many times as much.
LINE_PIXELS, LINE_WEIGHT = 3, 3.0
# Voxels per pixel footprint: smaller ones store noise, larger ones lose detail.
VOXEL_PER_FOOTPRINT = 1.6


@dataclass(frozen=True)
class DepthImage:
    """One view of a surface.

    Attributes:
        depth: z in the camera; 0 or not finite = nothing known. [H, W] float32
        weight: Trust in each pixel, 0 = none. [H, W] float32
    """

    depth: Tensor
    weight: Tensor

    def __post_init__(self) -> None:
        dims = Dims()
        dims.check("depth", self.depth, "H W", torch.float32)
        dims.check("weight", self.weight, "H W", torch.float32)

    def is_known(self) -> Tensor:
        """[H, W] bool"""
        return self.depth.isfinite() & (self.depth > 0) & (self.weight > 0)


@dataclass(frozen=True)
class FusionSettings:
    """How to fuse.

    Attributes:
        voxel_size: Distance of lattice points, scene units.
        truncation_voxels: Distances are kept up to this many voxels, at most 4.
        min_weight: Points seen with less weight in all are unknown.
        max_bytes: Memory to take at most.
    """

    voxel_size: float
    truncation_voxels: float = 4.0
    min_weight: float = 1.0
    max_bytes: int = 2 << 30

    def __post_init__(self) -> None:
        if not 0 < self.voxel_size < float("inf"):
            raise ValueError(f"voxel_size: expected a length above 0, got {self.voxel_size}")
        if not 1 <= self.truncation_voxels <= 4:
            raise ValueError(f"truncation_voxels: expected 1 to 4, got {self.truncation_voxels}")
        if not 0 <= self.min_weight < float("inf"):
            raise ValueError(f"min_weight: expected 0 or more, got {self.min_weight}")


def fuse(images: Sequence[DepthImage], cameras: Cameras, settings: FusionSettings) -> BlockGrid:
    """Average depth images into signed distances, positive where rays passed, in units of the truncation.

    Args:
        images: One per camera, of its size.
        cameras: The views.
        settings: How.

    Raises:
        ValueError: no image knows any depth, or the voxels are so small that memory does not suffice.
        BackendUnavailable: the native module is missing.
    """
    if _cpu is None:
        raise BackendUnavailable("cpu", "the native module is not built", "Install with its native code: pip install .")
    _check_sizes(images, cameras)
    origin = torch.full((3,), LATTICE_SHIFT * settings.voxel_size, dtype=torch.float64)
    blocks = blocks_near(images, cameras, origin, settings)
    distance = torch.zeros(len(blocks), VOXELS)
    weight, near = torch.zeros(len(blocks), VOXELS), torch.zeros(len(blocks), VOXELS)
    truncation = settings.truncation_voxels * settings.voxel_size
    for i, image in enumerate(images):
        known = image.is_known()
        depth, trust = (torch.where(known, value, 0.0).contiguous() for value in (image.depth, image.weight))
        clear, trust = _thin_parts(depth, trust)
        viewmat, K = (value[i].double().contiguous() for value in (cameras.viewmats, cameras.Ks))
        _cpu.integrate_depth(
            blocks, origin, settings.voxel_size, truncation, viewmat, K, depth, clear, trust, distance, weight, near
        )
    # Thin sheets would swell backwards else, as far as distances are kept, where no view looks past them.
    is_inside = near >= NEAR_SHARE * settings.min_weight
    distance[(weight < settings.min_weight) | ((distance < 0) & ~is_inside)] = torch.nan
    return BlockGrid(blocks, distance.reshape(-1, SIDE, SIDE, SIDE), origin, settings.voxel_size)


def _thin_parts(depth: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """What lines of a pixel or two need in order not to be carved away by looks past them, which are a pixel off.

    Returns:
        Up to which depth what a pixel shows is surely free, and weights, larger on such lines. Each [H, W]
    """
    is_line = is_thin(depth, LINE_PIXELS)
    near = nearness_of(depth)
    beside = torch.nn.functional.max_pool2d(torch.where(is_line, near, 0.0)[None], 3, 1, 1)[0]
    nearest = torch.maximum(near, beside)
    return nearness_of(nearest).contiguous(), torch.where(
        is_line, (LINE_WEIGHT * weight).clamp_max(1.0), weight
    ).contiguous()


def blocks_near(
    images: Sequence[DepthImage], cameras: Cameras, origin: Tensor, settings: FusionSettings
) -> Tensor:  # [B, 3] int32
    """Blocks within half a block of a surface point: half a block is 4 voxels, the largest truncation.

    Raises:
        ValueError: no image knows any depth, or the voxels are so small that memory does not suffice.
    """
    half = settings.voxel_size * SIDE / 2
    found = [torch.zeros(0, dtype=torch.int64)]
    with single_threaded_torch():
        for i, image in enumerate(images):
            cells = ((world_points(image, cameras, i) - origin) / half).floor()
            if len(cells) and float(cells.abs().max()) >= KEY_LIMIT / 4:
                reach = float(cells.abs().max()) * half
                raise ValueError(_too_small(settings.voxel_size, reach * 8 / KEY_LIMIT / (SIDE / 2), None))
            found.append(pack(cells).unique())
        keys = torch.cat(found).unique()
    if len(keys) == 0:
        raise ValueError(NOTHING_SEEN)
    _check_memory(keys, settings)
    steps = torch.tensor([-1, 0, 1])
    around = torch.cartesian_prod(steps, steps, steps)
    cells = unpack(keys)
    blocks = [pack((cells + step).div(2, rounding_mode="floor")).unique() for step in around]
    return unpack(torch.cat(blocks).unique()).int().contiguous()


def suggest_voxel_size(images: Sequence[DepthImage], cameras: Cameras) -> float:
    """The voxel size that suits the resolution of the images.

    Raises:
        ValueError: no image knows any depth.
    """
    footprints = [
        image.depth[image.is_known()] / float(cameras.Ks[i, :2, :2].diagonal().mean()) for i, image in enumerate(images)
    ]
    found = torch.cat(footprints)
    if len(found) == 0:
        raise ValueError(NOTHING_SEEN)
    return VOXEL_PER_FOOTPRINT * float(found.median())


NOTHING_SEEN = (
    "depth: expected a surface in some view, got none. The scene is empty, transparent, or lies behind the cameras: "
    "look at it with scene3d render --mode alpha"
)


def _check_sizes(images: Sequence[DepthImage], cameras: Cameras) -> None:
    if len(images) != len(cameras):
        raise ValueError(f"images: expected {len(cameras)}, one per camera, got {len(images)}")
    for i, image in enumerate(images):
        if tuple(image.depth.shape) != (cameras.height(i), cameras.width(i)):
            expected = [cameras.height(i), cameras.width(i)]
            raise ValueError(f"images: expected the size of camera {i}, {expected}, got {list(image.depth.shape)}")


def _check_memory(keys: Tensor, settings: FusionSettings) -> None:
    """Refuse before anything is allocated. A surface fills about half as many blocks as half-blocks."""
    wanted = _forecast_bytes(len(keys))
    if wanted <= settings.max_bytes:
        return
    voxel_size, cells = settings.voxel_size, unpack(keys)
    # Eight cells around the origin stay eight, however large they are.
    while _forecast_bytes(len(cells)) > settings.max_bytes and len(cells) > 8:
        voxel_size *= 2
        cells = unpack(pack(cells.div(2, rounding_mode="floor")).unique())
    raise ValueError(_too_small(settings.voxel_size, voxel_size, (wanted, settings.max_bytes)))


def _forecast_bytes(n_half_blocks: int) -> int:
    return n_half_blocks * VOXELS * BYTES_PER_VOXEL // 2


def _too_small(voxel_size: float, better: float, n_bytes: tuple[int, int] | None) -> str:
    why = "would need more points than can be numbered"
    if n_bytes is not None:
        why = f"would take {n_bytes[0] / 2**30:.1f} GB, allowed are {n_bytes[1] / 2**30:.1f}"
    return f"voxel_size: {voxel_size:.4g} {why}. Use {better:.4g} or more, or crop the scene (--far)"


def world_points(image: DepthImage, cameras: Cameras, i: int) -> Tensor:
    """Places of the known pixels of view i, row by row. [P, 3] float64"""
    y, x = image.is_known().nonzero(as_tuple=True)
    z = image.depth[y, x].double()
    return from_pixels(x, y, z, cameras.viewmats[i], cameras.Ks[i])
