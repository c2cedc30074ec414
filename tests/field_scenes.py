"""Small random fields and rays for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.fields import (
    BASES,
    DIRECTION_TERMS,
    FACTORS,
    NETWORK_KINDS,
    Decoder,
    Field,
    LeafLevel,
    network_rows,
)
from scene3d.core.hash_grid import HashGrid
from scene3d.core.warp import Warp
from scene3d.ops.radial_bases import listed, shapes_of

N_BASES = 60
# The second does not reach all of the frame.
FRAME_BOXES = {
    "cube": torch.tensor([[-2.0, -2.0, -1.9], [2.0, 1.8, 2.0]]),
    "frustum": torch.tensor([[-1.1, -0.9, 0.0], [1.0, 1.2, 0.98]]),
}


def random_field(
    kind: str = "vm",
    nodes: tuple[int, int, int] = (9, 7, 12),
    ranks: tuple[int, int] = (16, 32),
    has_occupancy: bool = False,
    step: float = 0.05,
    warp: str | None = None,
) -> Field:
    """A foggy field in a box around the origin, float64.

    Args:
        kind: vm, cp, rbf, hash (its last levels share rows), mlp, trivec (two levels of cubes of different
            sizes) or cover (two shifted lattices).
        nodes: Of planes and lines.
        ranks: Of density and of colour.
        has_occupancy: Leave many cells empty.
        step: Distance of samples.
        warp: cube or frustum; None = the box lies in the world.
    """
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    levels: tuple[LeafLevel, ...] = ()
    grid = HashGrid(((3, 2, 4), (6, 5, 7), (9, 8, 11)), 7) if kind == "hash" else None
    if kind in NETWORK_KINDS:
        shapes = []
    elif kind in FACTORS:
        sizes = dict(zip("xyz", nodes, strict=True))
        shapes = [tuple(sizes[axis] for axis in reversed(name)) for name in FACTORS[kind] if name != BASES]
    else:
        second = (4, 6, 5) if kind == "cover" else (6, 10, 8)
        levels = (
            LeafLevel(torch.rand(3, 5, 4, generator=generator) < 0.7, 4),
            LeafLevel(torch.rand(*second, generator=generator) < 0.6, 3, kind == "cover"),
        )
        shapes = [(level.n_leaves, level.nodes) for level in levels for _ in range(3)]
    bases = None
    if kind == "rbf":
        spread = 0.1 * normal(N_BASES, 3, 3)
        reach = spread @ spread.mT + 0.01 * torch.eye(3, dtype=torch.float64)
        centers = torch.rand(N_BASES, 3, generator=generator, dtype=torch.float64)
        bases = listed(centers, shapes_of(reach).double(), (1.0, 8.0))
        shapes.append((N_BASES,))
    scale = 0.6 if kind in ("vm", "rbf") else 1.0
    density, color = (tuple(scale * normal(*shape, rank) for shape in shapes) for rank in ranks)
    if kind in NETWORK_KINDS:
        density, color = (
            tuple(_network_factor(name, rank, grid, generator) for name in FACTORS[kind]) for rank in ranks
        )
    n_features = ranks[1] * {"vm": 3, "rbf": 4, "trivec": 2, "cover": 2}.get(kind, 1)
    width = 16
    basis = 0.3 * normal(n_features, width)
    inputs = 5 * width + DIRECTION_TERMS
    weights = (0.2 * normal(inputs, 32), 0.3 * normal(32, 32), 0.5 * normal(32, 3))
    decoder = Decoder(basis, weights, (0.1 * normal(32), 0.1 * normal(32), 0.1 * normal(3)))
    box = torch.tensor([[-1.0, -0.8, -1.1], [0.9, 1.0, 1.2]], dtype=torch.float64)
    occupancy = torch.rand(21, 18, 37, generator=generator) < 0.2 if has_occupancy else None
    if occupancy is not None:
        occupancy[:9] = False
    name = kind if kind in FACTORS else "trivec"
    if warp is not None:
        box = FRAME_BOXES[warp].double()
    framed = None if warp is None else turned_warp(warp)
    return Field(name, box, density, color, decoder, 6.0, step, -2.0, occupancy, levels, bases, framed, grid=grid)


def _network_factor(name: str, rank: int, grid: HashGrid | None, generator: torch.Generator) -> Tensor:
    rows = network_rows(name, rank, grid)
    spread = 1.0 if name == "table" else (2 / rows) ** 0.5
    return spread * torch.randn(rows, rank, generator=generator, dtype=torch.float64)


def turned_warp(kind: str) -> Warp:
    """A warp that turns, scales and shifts, float64; its near region holds the origin."""
    generator = torch.Generator().manual_seed(3)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    shift = torch.tensor([0.1, -0.2, 0.1 if kind == "cube" else 1.6], dtype=torch.float64)
    return Warp(kind, torch.cat([1.25 * turn * turn.det().sign(), shift[:, None]], dim=1))


def random_rays(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Origins on a sphere around the box, directions to points in and around it, jitter; one ray along an axis."""
    generator = torch.Generator().manual_seed(11)
    origins = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    origins = 3 * origins / origins.norm(dim=1, keepdim=True)
    origins[1::5] *= 0.1
    targets = 1.2 * (2 * torch.rand(n, 3, generator=generator, dtype=torch.float64) - 1)
    directions = targets - origins
    directions[0] = torch.tensor([0.0, 0.0, 1.0])
    origins[0] = torch.tensor([0.1, 0.2, -3.0])
    directions = directions / directions.norm(dim=1, keepdim=True)
    return origins, directions, torch.rand(n, generator=generator, dtype=torch.float64)
