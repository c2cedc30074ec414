"""Time the rasterizer: forward and backward over scenes, threads and instruction sets, beside the torch reference.

Prints one table; every row comes from the same run, so ratios hold on a noisy machine. Times are medians over views.
`raster` is sorting, binning and blending; `total` adds projection, colour and Python's share.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.io.registry import read_scene
from scene3d.render import cpu, reference
from scene3d.render.types import RasterSettings, Render

FOCAL = 2000.0  # Long: the random ellipses then look as drawn.


@dataclass(frozen=True)
class Config:
    splats: Path | None = None
    """Folder with fox.ply and fox-cameras.json, to time a trained scene in its own cameras."""
    repeats: int = 12
    """Calls per row, after two for warming up."""
    threads: tuple[int, ...] = (1, 2)
    """Thread counts."""
    levels: bool = False
    """Also time the narrower instruction sets."""
    with_reference: bool = True
    """Also time the torch reference, on a small scene: it meets every pixel with every Gaussian."""
    out: Path | None = None
    """JSON file for the rows."""


@dataclass(frozen=True)
class Case:
    """A scene and its views."""

    name: str
    gaussians: Gaussians
    cameras: Cameras


@dataclass(frozen=True)
class Row:
    """One line of the table, milliseconds."""

    case: str
    backend: str
    threads: int
    forward: float
    backward: float
    raster_forward: float
    raster_both: float
    project: float
    reduce: float


def random_case(n: int, width: int, height: int, median: float = 2.4, seed: int = 0) -> Case:
    """Ellipses with log-normal sizes (pixels), uniform places and depths, opacities as in trained scenes."""
    g = torch.Generator().manual_seed(seed)
    uniform = torch.rand(n, 3, generator=g)
    normal = torch.randn(n, 4, generator=g)
    depths = 1 + 9 * uniform[:, 2]
    per_pixel = depths / FOCAL
    x, y = (uniform[:, 0] - 0.5) * (width + 20), (uniform[:, 1] - 0.5) * (height + 20)
    major = (normal[:, 0] * 0.7).exp() * median
    minor = major * (-(normal[:, 1] * 0.8).abs()).exp()
    turn = torch.rand(n, generator=g) * torch.pi / 2
    zeros = torch.zeros(n)
    gaussians = Gaussians(
        torch.stack([x * per_pixel, y * per_pixel, depths], dim=1),
        torch.stack([turn.cos(), zeros, zeros, turn.sin()], dim=1),
        torch.stack([major * per_pixel, minor * per_pixel, 1e-3 * per_pixel], dim=1).log(),
        normal[:, 2] * 2 - 0.5,
        (torch.rand(n, 1, 3, generator=g) - 0.5) / 0.2820948,
        torch.zeros(n, 15, 3),
    )
    K = torch.tensor([[FOCAL, 0.0, width / 2], [0.0, FOCAL, height / 2], [0.0, 0.0, 1.0]])
    return Case(
        f"random {n // 1000}k {width}x{height}",
        gaussians,
        Cameras(torch.eye(4)[None], K[None], torch.tensor([[width, height]])),
    )


def trained_case(folder: Path) -> Case:
    """fox.ply in the cameras of fox-cameras.json (layout of the original code: camera-to-world, OpenCV axes)."""
    gaussians = read_scene(folder / "fox.ply").payload
    viewmats, Ks, sizes = [], [], []
    for camera in json.loads((folder / "fox-cameras.json").read_text()):
        world_from_cam = torch.tensor(camera["rotation"], dtype=torch.float64)
        viewmat = torch.eye(4, dtype=torch.float64)
        viewmat[:3, :3] = world_from_cam.T
        viewmat[:3, 3] = -world_from_cam.T @ torch.tensor(camera["position"], dtype=torch.float64)
        width, height = camera["width"], camera["height"]
        viewmats.append(viewmat)
        Ks.append(torch.tensor([[camera["fx"], 0, width / 2], [0, camera["fy"], height / 2], [0, 0, 1.0]]))
        sizes.append([width, height])
    cameras = Cameras(torch.stack(viewmats).float(), torch.stack(Ks).float(), torch.tensor(sizes))
    return Case(f"fox {len(gaussians) / 1000:.1f}k {sizes[0][0]}x{sizes[0][1]}", gaussians, cameras)


def time_native(case: Case, backend: str, threads: int, repeats: int) -> Row:
    """Median times of the native backend."""
    cpu.native().set_threads(threads)
    calls, inner = [], []
    for forward, backward, _ in _timed_calls(case, cpu.rasterize_arrays, repeats):
        calls.append((forward, backward))
        inner.append(cpu.native().last_times())
    median = {name: statistics.median(row[name] for row in inner) for name in inner[0]}
    raster_forward = median["list"] + median["sort"] + median["bin"] + median["blend"]
    return Row(
        case.name,
        backend,
        threads,
        statistics.median(c[0] for c in calls),
        statistics.median(c[1] for c in calls),
        raster_forward,
        raster_forward + median["blend backward"] + median["sum pairs"],
        median["project"],
        median["reduce"],
    )


def time_reference(case: Case, threads: int, repeats: int) -> Row:
    """Median times of the torch reference."""
    torch.set_num_threads(threads)
    calls = [(f, b) for f, b, _ in _timed_calls(case, reference.rasterize_arrays, repeats)]
    forward, backward = (statistics.median(c[k] for c in calls) for k in (0, 1))
    return Row(case.name, "torch", torch.get_num_threads(), forward, backward, forward, forward + backward, 0.0, 0.0)


def _timed_calls(
    case: Case, render: Callable[[Gaussians, Cameras, RasterSettings], Render], repeats: int
) -> Iterator[tuple[float, float, Render]]:
    leaves = case.gaussians.map(lambda value: value.clone().requires_grad_())
    v_rgb = torch.randn(1, case.cameras.height(), case.cameras.width(), 3, generator=torch.Generator().manual_seed(1))
    for i in range(repeats + 2):
        view = case.cameras.select([i % len(case.cameras)])
        start = time.perf_counter()
        out = render(leaves, view, RasterSettings())
        middle = time.perf_counter()
        out.rgb.backward(v_rgb * 1e-3)
        end = time.perf_counter()
        for value in leaves.params().values():
            value.grad = None
        if i >= 2:
            yield (middle - start) * 1e3, (end - middle) * 1e3, out


def format_table(rows: list[Row]) -> str:
    """The rows as text."""
    head = f"{'scene':24}{'backend':9}{'thr':>4}{'raster fwd':>12}{'fwd+bwd':>9}{'project':>9}{'reduce':>8}"
    head += f"{'total fwd+bwd':>15}"
    lines = [head, "-" * len(head)]
    for r in rows:
        lines.append(
            f"{r.case:24}{r.backend:9}{r.threads:4}{r.raster_forward:12.2f}{r.raster_both:9.2f}"
            f"{r.project:9.2f}{r.reduce:8.2f}{r.forward + r.backward:15.2f}"
        )
    return "\n".join(lines)


def main(config: Config) -> None:
    """Run the benchmark."""
    torch.set_num_threads(1)  # its idle workers spin, and would take the cores of the native ones
    cases = [random_case(100_000, 960, 540), random_case(100_000, 480, 270, 1.2), random_case(10_000, 480, 270)]
    if config.splats is not None:
        cases.insert(0, trained_case(config.splats))
    levels = cpu._cpu.simd_levels() if config.levels else [cpu._cpu.simd_level()]
    rows = []
    for case in cases:
        for level in levels:
            cpu._cpu.set_simd_level(level)
            rows += [time_native(case, level, threads, config.repeats) for threads in config.threads]
    if config.with_reference:
        small = random_case(2_000, 240, 135)
        cpu._cpu.set_simd_level(levels[0])
        rows += [
            time_native(small, levels[0], max(config.threads), config.repeats),
            time_reference(small, max(config.threads), 3),
        ]
    print(format_table(rows))
    if config.out is not None:
        config.out.write_text(json.dumps([row.__dict__ for row in rows], indent=1))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
