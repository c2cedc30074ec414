"""Time the native kernels beside the rasterizer: loss, Adam, neighbours, noise; over sizes, threads, instruction sets.

Prints one table, milliseconds, the best and the median of each row's calls; torch's own operators run in the same
process on as many threads. Calls go through the Python functions, so their overhead is included. On a busy machine run
it with real-time priority: chrt -f 1 python tools/bench_native.py
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from scene3d import _cpu
from scene3d.ops.adam import adam_step_
from scene3d.ops.image import ssim
from scene3d.ops.knn import mean_neighbor_distance
from scene3d.ops.mcmc_noise import mcmc_noise_
from scene3d.render.loss import l1_ssim

SHAPES = ((3,), (4,), (3,), (), (1, 3), (15, 3))  # Of one Gaussian's parameters: 59 numbers.


@dataclass(frozen=True)
class Config:
    repeats: int = 20
    """Calls per row, after one for warming up."""
    threads: tuple[int, ...] = (1, 2)
    """Thread counts."""
    levels: bool = False
    """Also time the narrower instruction sets."""
    large: bool = False
    """Also time a 1080x1920 image and a million Gaussians."""
    out: Path | None = None
    """JSON file for the rows."""


@dataclass(frozen=True)
class Case:
    """A call and what torch offers for it, None where that has no sensible form."""

    name: str
    native: Callable[[], object]
    torch: Callable[[], object] | None


@dataclass(frozen=True)
class Row:
    """One line of the table, milliseconds."""

    case: str
    backend: str
    threads: int
    best: float
    median: float


def loss_case(height: int, width: int) -> Case:
    """Loss and gradient of one image."""
    rgb, target = torch.rand(height, width, 3).requires_grad_(), torch.rand(height, width, 3)

    def native() -> None:
        rgb.grad = None
        l1_ssim(rgb, target).backward()

    def composed() -> None:
        rgb.grad = None
        (0.8 * (rgb - target).abs().mean() + 0.2 * (1 - ssim(rgb, target))).backward()

    return Case(f"L1 + SSIM and gradient, {height}x{width}", native, composed)


def adam_case(n: int, visible_share: float) -> Case:
    """One step on the parameters of n Gaussians; torch has no rows to leave out and takes all."""
    params, grads, means, squares = ([torch.rand(n, *s) for s in SHAPES] for _ in range(4))
    visible = torch.rand(n) < visible_share
    twins = [p.clone().requires_grad_() for p in params]
    for twin, grad in zip(twins, grads, strict=True):
        twin.grad = grad
    optimizer = torch.optim.Adam(twins, lr=1e-3, eps=1e-15, fused=True)
    return Case(
        f"Adam, {n} Gaussians, {visible_share:.0%} visible",
        lambda: adam_step_(params, [*grads], means, squares, [1e-3] * len(SHAPES), 10, visible),
        optimizer.step,
    )


def knn_case(n: int) -> Case:
    """Initial sizes of n points of which most lie in clusters."""
    points = torch.randn(n, 3) * (torch.rand(n, 1) * 6 - 4).exp()
    return Case(
        f"3 nearest neighbours, {n} points",
        lambda: mean_neighbor_distance(points),
        (lambda: torch.cdist(points, points).topk(4, largest=False)) if n <= 10_000 else None,
    )


def noise_case(n: int, faint_share: float) -> Case:
    """MCMC noise on n Gaussians."""
    means, quats, log_scales = torch.randn(n, 3), torch.randn(n, 4), torch.randn(n, 3) - 4
    logits = torch.where(torch.rand(n) < faint_share, -6.0, 0.0)

    def composed() -> Tensor:
        w, x, y, z = torch.nn.functional.normalize(quats, dim=1).unbind(dim=1)
        columns = [
            torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], dim=1),
            torch.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)], dim=1),
            torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], dim=1),
        ]
        half = torch.stack(columns, dim=2) * log_scales.exp()[:, None, :]
        gate = torch.sigmoid(100 * (0.005 - logits.sigmoid()))
        shift = half @ (half.transpose(1, 2) @ torch.randn(n, 3, 1))
        return means.add_(shift[..., 0] * gate[:, None] * 1e-9)

    return Case(
        f"MCMC noise, {n} Gaussians, {faint_share:.0%} faint",
        lambda: mcmc_noise_(means, quats, log_scales, logits, 1e-9, 0, 1),
        composed,
    )


def cases(large: bool) -> list[Case]:
    found = [
        loss_case(270, 480),
        loss_case(540, 960),
        adam_case(31_800, 1.0),
        adam_case(31_800, 0.5),
        adam_case(100_000, 1.0),
        knn_case(10_000),
        knn_case(100_000),
        noise_case(100_000, 1.0),
        noise_case(100_000, 0.05),
    ]
    return found + ([loss_case(1080, 1920), adam_case(1_000_000, 1.0)] if large else [])


def milliseconds(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Best and median."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times), statistics.median(times)


def measure(case: Case, config: Config) -> list[Row]:
    rows = []
    for n_threads in config.threads:
        _cpu.set_threads(n_threads)
        for level in _cpu.simd_levels() if config.levels else _cpu.simd_levels()[:1]:
            _cpu.set_simd_level(level)
            rows.append(Row(case.name, level, n_threads, *milliseconds(case.native, config.repeats)))
        if case.torch is not None:
            _cpu.set_threads(1)  # The pool's threads would spin beside torch's.
            torch.set_num_threads(n_threads)
            rows.append(Row(case.name, "torch", n_threads, *milliseconds(case.torch, max(3, config.repeats // 4))))
            torch.set_num_threads(1)
    return rows


def run(config: Config) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"{'kernel':<46} {'backend':<8} {'threads':>7} {'best':>9} {'median':>9}")
    rows = []
    for case in cases(config.large):
        for row in measure(case, config):
            print(f"{row.case:<46} {row.backend:<8} {row.threads:>7} {row.best:>9.3f} {row.median:>9.3f}", flush=True)
            rows.append(row)
    if config.out is not None:
        config.out.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    run(tyro.cli(Config, description=__doc__))
