"""Time the 2D-grid sorter and measure how alike neighbours come out, beside random order, Morton order and plain PLAS.

Features are those of trained Gaussians (14 numbers, each of unit variance) or, without a scene, made ones. Prints one
table: mean Euclidean distance of neighbours in the grid, seconds. Plain PLAS is the published algorithm as the paper
states it (Morgenstern et al. 2024, section 3.2), in torch; it takes minutes from 30,000 items on.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from scene3d.io.registry import read_scene
from scene3d.ops import morton
from scene3d.ops.grid_sort import GridSortSettings, grid_sort, grid_width, neighbor_distance
from scene3d.ops.threads import set_threads

PERMUTATIONS = torch.tensor(list(itertools.permutations(range(4))))


@dataclass(frozen=True)
class Config:
    scene: Annotated[Path | None, tyro.conf.arg(metavar="SCENE")] = None
    """Scene whose Gaussians are sorted."""
    count: int | None = None
    """Items: the first of the scene, or its Gaussians again with noise where there are fewer."""
    passes: tuple[int, ...] = (4, 16)
    """Passes per blur of our sorter, one row each."""
    plain: bool = False
    """Also run the published algorithm."""
    threads: int | None = None
    """Of our sorter; None takes all cores."""


def main(config: Config) -> None:
    set_threads(config.threads)
    features = _features(config)
    n, width = len(features), grid_width(len(features))
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    rows: list[tuple[str, Callable[[], Tensor]]] = [
        ("random order", lambda: shuffled),
        ("Morton order of positions", lambda: morton.order(features[:, :3])),
    ]
    for passes in config.passes:
        settings = GridSortSettings(passes=passes)
        rows.append((f"grid_sort, {passes} passes", lambda s=settings: grid_sort(features, settings=s)))
    if config.plain:
        rows.append(("plain PLAS", lambda: plain_plas(features, width)))
    print(f"{n:,} items of {features.shape[1]} numbers, {width} cells a row")
    print(f"{'order':28}{'neighbour distance':>20}{'wall s':>10}{'CPU s':>10}")
    for name, run in rows:
        began, cpu = time.perf_counter(), time.process_time()
        order = run()
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
        print(
            f"{name:28}{neighbor_distance(features, order, width):20.4f}{seconds:10.2f}{cpu_seconds:10.2f}", flush=True
        )


def plain_plas(features: Tensor, width: int) -> Tensor:
    """The published algorithm: blocks of a randomly rolled grid, groups of four anywhere in a block, until it rests.

    Only whole rows are sorted; the rest keeps its place.
    """
    height = len(features) // width
    n = height * width
    generator = torch.Generator().manual_seed(0)
    grid = torch.randperm(n, generator=generator).view(height, width)
    radius = max(height, width) / 2 - 1
    while radius >= 1:
        size = min(max(2 * int(radius) + 2, 16), height, width) // 2 * 2
        target = _blurred(features[grid], int(radius))
        for _ in range(4):
            grid, target = _rolled_pass(features, grid, target, size, generator)
        radius *= 0.95
    return torch.cat([grid.reshape(-1), torch.arange(n, len(features))])


def _rolled_pass(
    features: Tensor, grid: Tensor, target: Tensor, size: int, g: torch.Generator
) -> tuple[Tensor, Tensor]:
    shift = (int(torch.randint(size, (), generator=g)), int(torch.randint(size, (), generator=g)))
    grid, target = torch.roll(grid, shift, (0, 1)), torch.roll(target, shift, (0, 1))
    n_down, n_across = grid.shape[0] // size, grid.shape[1] // size
    cells = torch.arange(grid.numel()).view(grid.shape)[: n_down * size, : n_across * size]
    blocks = cells.reshape(n_down, size, n_across, size).transpose(1, 2).reshape(-1, size * size)
    flat, goals = grid.reshape(-1).clone(), target.reshape(-1, features.shape[1])
    before = math.inf
    while True:
        order = torch.randperm(size * size, generator=g)
        groups = blocks[:, order].reshape(-1, 4)
        costs = torch.cdist(features[flat[groups]], goals[groups]).square()  # [G, item, place]
        sums = costs[:, PERMUTATIONS, torch.arange(4)].sum(dim=2)
        best = sums.min(dim=1)
        flat[groups] = flat[groups].gather(1, PERMUTATIONS[best.indices])
        total = float(best.values.sum())
        if total > before * (1 - 1e-4):
            break
        before = total
    back = (-shift[0], -shift[1])
    return torch.roll(flat.view(grid.shape), back, (0, 1)), torch.roll(target, back, (0, 1))


def _blurred(grid: Tensor, radius: int) -> Tensor:  # [H, W, D], Gaussian of 2 radius + 1 taps and as wide a deviation
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / (2 * radius + 1)) ** 2)
    picture = grid.permute(2, 0, 1)[:, None]
    for axis in (2, 3):
        pad = [0, 0, radius, radius] if axis == 2 else [radius, radius, 0, 0]
        padded = torch.nn.functional.pad(picture, pad, mode="reflect")
        kernel = (taps / taps.sum()).view(1, 1, -1, 1) if axis == 2 else (taps / taps.sum()).view(1, 1, 1, -1)
        picture = torch.nn.functional.conv2d(padded, kernel)
    return picture[:, 0].permute(1, 2, 0)


def _features(config: Config) -> Tensor:  # [N, 14]
    generator = torch.Generator().manual_seed(0)
    if config.scene is None:
        rows = torch.randn(config.count or 100_000, 14, generator=generator)
        rows[:, 3:6] = 0.3 * rows[:, 3:6] + rows[:, :3].sin()
    else:
        gaussians = read_scene(config.scene).splats()
        quats = torch.nn.functional.normalize(gaussians.quats, dim=1)
        quats = torch.where(quats[:, :1] < 0, -quats, quats)
        parts = [gaussians.means, gaussians.sh0[:, 0], gaussians.log_scales, quats, gaussians.opacities[:, None]]
        rows = torch.cat(parts, dim=1)
    rows = ((rows - rows.mean(dim=0)) / rows.std(dim=0)).clamp(-6, 6)
    count = config.count or len(rows)
    again = torch.arange(count) % len(rows)
    noise = 0.05 * torch.randn(count, rows.shape[1], generator=generator)
    return (rows[again] + (noise if count > len(rows) else 0)).contiguous()


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
