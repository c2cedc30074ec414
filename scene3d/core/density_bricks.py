"""Density baked for images: see render.field_bricks, which makes it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class DensityBricks:
    """Features of density at the nodes of the voxels that hold something, in bricks of 4x4x4 voxels.

    Attributes:
        voxels: Along x y z.
        words: Of each brick, the voxels that are looked at, as ops.occupancy.pack_bits; x runs fastest. [W] int64
        free: How many bricks away, along the axis where that is farthest, the next one is that is not empty; at most
            MAX_FREE. [W] uint8
        table: Of each word twice the number of its brick, and 1 where a part of that is not occupied; -1: none.
            [W] int32
        values: Feature plus shift at 5x5x5 nodes, x fastest, padded. [B, 128]
        cells: The occupancy of the field as words, see ops.occupancy.pack_bits.
        made_from: What else counts, as it was: numbers by value, all else by identity.
    """

    voxels: tuple[int, int, int]
    words: Tensor
    free: Tensor
    table: Tensor
    values: Tensor
    cells: tuple[Tensor, Tensor] | tuple[None, None]
    made_from: tuple[object, ...]

    def is_made_from(self, parts: tuple[object, ...]) -> bool:
        """Whether these are the very tensors and the same numbers that the bricks were made from."""
        return len(parts) == len(self.made_from) and all(
            a == b if isinstance(a, int | float) else a is b for a, b in zip(parts, self.made_from, strict=True)
        )
