"""Bake the density of a field into bricks, which makes images of it several times as fast.

Products of planes and lines, and of the vectors of leaves, are trilinear within each voxel: eight numbers say all about
density in it. Voxels whose greatest opacity along a step is below MIN_ALPHA are left out.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scene3d.core.density_bricks import DensityBricks
from scene3d.core.fields import Field
from scene3d.ops.occupancy import BLOCK, overlapping, pack_bits
from scene3d.render.field_cpu import NativeField, is_available

MIN_ALPHA = 1e-3
# Farther than so many bricks emptiness is not measured.
MAX_FREE = 16
NODES = BLOCK + 1
BRICK_SIZE = 128
BRICKS_AT_ONCE = 4096
# Nodes on the faces of a brick are looked up this far inside of it, voxels: at a seam of leaves the other side differs.
INSET = 1 / 64


def takes(field: Field) -> bool:
    """Whether a field can be baked: float32 on the CPU, linear along each axis within all its voxels, and shaded by
    pixels: of neighbouring samples bricks ask one for its features."""
    if not is_available() or field.device.type != "cpu" or field.dtype != torch.float32:
        return False
    if field.shading != "deferred" or field.bases is not None or field.has_network:
        return False
    if any(level.is_shifted for level in field.levels):
        return False
    # Leaves must end where bricks do, and coarse nodes lie among fine ones.
    voxels = tuple(n - 1 for n in field.resolution)
    counts = [tuple(edge * (level.nodes - 1) for edge in level.edges) for level in field.levels]
    return all(
        n % count == 0 and n // edge % BLOCK == 0
        for level, per_axis in zip(field.levels, counts, strict=True)
        for n, count, edge in zip(voxels, per_axis, level.edges, strict=True)
    )


@torch.no_grad()
def bake(field: Field) -> Field:
    """The field with bricks; as it is where it has some or cannot have any."""
    if field.bricks is not None or not takes(field):
        return field
    x, y, z = (n - 1 for n in field.resolution)
    shape = (z, y, x)
    inside, is_mixed = torch.ones(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    if field.occupancy is not None:
        inside, is_mixed = overlapping(field.occupancy, shape), overlapping(~field.occupancy, shape)
    blocks = (-(-z // BLOCK), -(-y // BLOCK), -(-x // BLOCK))
    is_seen, numbers, values = _look_up(field, pack_bits(inside)[0], blocks)
    taken = is_seen[:z, :y, :x] & inside
    words = pack_bits(taken)[0]
    table = torch.full((len(words),), -1, dtype=torch.int32)
    table[numbers] = 2 * torch.arange(len(numbers), dtype=torch.int32)
    table[numbers] += (pack_bits(is_mixed & taken)[0][numbers] != 0).int()
    free = _free_bricks((words != 0).reshape(blocks)).flatten()
    cells = (None, None) if field.occupancy is None else pack_bits(field.occupancy)
    return replace(field, bricks=DensityBricks((x, y, z), words, free, table, values, cells, field.density_parts()))


def _look_up(field: Field, words: Tensor, blocks: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Voxels that may be seen [Z, Y, X] bool, and the bricks with such: numbers of words, values at nodes."""
    numbers, native = words.nonzero()[:, 0], NativeField(field)
    z, y, x = numbers // (blocks[1] * blocks[2]), numbers // blocks[2] % blocks[1], numbers % blocks[2]
    corners = BLOCK * torch.stack([z, y, x], dim=1)
    taken = torch.zeros([BLOCK * n for n in blocks], dtype=torch.bool)
    kept, found = [numbers[:0]], [torch.zeros(0, BRICK_SIZE)]
    for part, part_numbers in zip(corners.split(BRICKS_AT_ONCE), numbers.split(BRICKS_AT_ONCE), strict=True):
        values = _node_values(native, field, part)
        is_seen = _voxels_seen(values, field).flatten(1)
        has_any = is_seen.any(dim=1)
        taken[(part[has_any, None] + _block_places()).unbind(dim=2)] = is_seen[has_any]
        kept.append(part_numbers[has_any])
        found.append(torch.nn.functional.pad(values[has_any].flatten(1), (0, BRICK_SIZE - NODES**3)))
    return taken, torch.cat(kept), torch.cat(found)


def _node_values(native: NativeField, field: Field, corners: Tensor) -> Tensor:  # [B, 3] z y x -> [B, 5, 5, 5]
    axis = torch.arange(NODES, dtype=torch.float64)
    axis[0], axis[-1] = INSET, BLOCK - INSET
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    nodes = corners.flip(1)[:, None] + torch.stack([x, y, z], dim=-1).reshape(1, -1, 3)
    voxels = torch.tensor(field.resolution) - 1
    low, size = field.box[0].double(), (field.box[1] - field.box[0]).double()
    # Beyond the last voxel bricks stand out of the box: what is there is never looked at.
    points = low + nodes.minimum(voxels.double()) / voxels * size
    found = native.density_features(points.float().reshape(-1, 3)).reshape(-1, NODES, NODES, NODES)
    found = found.double()
    # From INSET back to the face, along the line through the next node.
    for dim in (1, 2, 3):
        first, second, fourth, last = (found.select(dim, i) for i in (0, 1, NODES - 2, NODES - 1))
        first.copy_((first - INSET * second) / (1 - INSET))
        last.copy_((last - INSET * fourth) / (1 - INSET))
    return (found + field.density_shift).float()


def _voxels_seen(values: Tensor, field: Field) -> Tensor:  # [B, 5, 5, 5] -> [B, 4, 4, 4] bool
    greatest = torch.nn.functional.max_pool3d(values[:, None], kernel_size=2, stride=1)[:, 0]
    optical = torch.nn.functional.softplus(greatest) * (field.density_scale * field.step)
    return -torch.expm1(-optical) > MIN_ALPHA


def _free_bricks(is_taken: Tensor) -> Tensor:  # [Z, Y, X] bool -> uint8
    free, reached = torch.zeros(is_taken.shape, dtype=torch.uint8), is_taken.float()
    for _ in range(MAX_FREE):
        free += (reached == 0).byte()
        reached = torch.nn.functional.max_pool3d(reached[None], kernel_size=3, stride=1, padding=1)[0]
    return free


def _block_places() -> Tensor:  # [1, 64, 3] z y x
    return torch.cartesian_prod(*[torch.arange(BLOCK)] * 3)[None]
