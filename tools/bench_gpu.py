"""Check and time the CUDA backend on a GPU machine in one call: parity, compute-sanitizer, times beside gsplat, fits.

Parity (tools/gpu_parity.py): images and gradients of cuda, cpu and, where it is installed, gsplat; a native step of
fitting; rays through a field. Sanitizer: memcheck, racecheck and synccheck of tests/gpu's smallest cases. Times are
medians of CUDA events; all in one process, with the same scene and settings. `step` is render, L1 + SSIM, backward and
Adam: one native call for ours; for gsplat ours L1 + SSIM, torch's autograd and its fused Adam.

With --emulate the kernels run on the host, in tiny sizes: that tries this script, and its times mean nothing.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import tyro
from bench_raster import Case, random_case
from gpu_parity import Parity, compare_discs, compare_fields, compare_renders, compare_steps, sanitize, step_call
from torch import Tensor

from scene3d.core.errors import BackendUnavailable
from scene3d.core.fields import DIRECTION_TERMS, Decoder, Field
from scene3d.core.gaussians import Gaussians
from scene3d.io.atomic import write_text
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.ops import cuda_call
from scene3d.recon.fit import Hooks, LogLine, fit
from scene3d.recon.initialize import initialize
from scene3d.recon.presets import PresetName, preset_settings
from scene3d.render import backends, field_cuda
from scene3d.render.loss import l1_ssim
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings
from scene3d.report.environment import environment

LR = 1e-4
PRESETS: tuple[PresetName, ...] = ("fast", "balanced")


@dataclass(frozen=True)
class Config:
    counts: tuple[int, ...] = (100_000, 1_000_000, 5_000_000)
    """Gaussians of the timed scenes."""
    heights: tuple[int, ...] = (540, 1080)
    """Rows of the timed images, 16:9."""
    repeats: int = 30
    """Calls per time, after five for warming up."""
    captures: tuple[Path, ...] = ()
    """Folders with photos and poses to fit, with the preset fast and then with balanced."""
    data_factor: int = 2
    """Reduce the photos of captures by this whole number."""
    rays: int = 1 << 18
    """Rays a call through a field of 300^3 nodes; 0 = none."""
    sanitize: bool = True
    """Also run compute-sanitizer, where it is installed."""
    emulate: bool = False
    """Run the kernels on the host instead, in tiny sizes, to try this script. Needs scene3d._cuda_emulated."""
    out: Path | None = None
    """JSON file for all figures."""


@dataclass(frozen=True)
class Row:
    """Times in milliseconds, memory in GiB; nan where it did not fit."""

    case: str
    backend: str
    forward: float
    both: float
    step: float
    peak: float


@dataclass(frozen=True)
class Fit:
    """One fit: seconds, PSNR of the test views at its end, and the seconds after which half a dB was missing."""

    capture: str
    preset: str
    backend: str
    seconds: float
    n_steps: int
    n_gaussians: int
    psnr: float
    seconds_to_half_db: float
    curve: list[tuple[float, float]]


@dataclass(frozen=True)
class Sizes:
    """How large things are; tiny with --emulate."""

    parity: tuple[int, int, int]  # Gaussians, width, height
    field_nodes: int
    field_ranks: tuple[int, int]
    field_rays: int


FULL = Sizes((50_000, 480, 270), 300, (16, 48), 4096)
TINY = Sizes((150, 48, 32), 12, (16, 16), 24)


def scaled_case(n: int, height: int) -> Case:
    """A random scene whose pixels are covered as often as with 100,000 Gaussians at 960x540."""
    width = height * 16 // 9
    median = 2.4 * (100_000 / n * (width * height) / (960 * 540)) ** 0.5
    case = random_case(n, width, height, median)
    device = cuda_call.device_type()
    return replace(case, gaussians=case.gaussians.to(device), cameras=case.cameras.to(device))


def render_ours(leaves: Gaussians, case: Case) -> Tensor:
    """Image [1, H, W, 3] by our kernels."""
    return rasterize(leaves, case.cameras, RasterSettings(), "cuda").rgb


def render_gsplat(leaves: Gaussians, case: Case) -> Tensor:
    """Image [1, H, W, 3] by gsplat as its trainer calls it, activations included."""
    import gsplat

    return gsplat.rasterization(
        means=leaves.means,
        quats=leaves.quats,
        scales=leaves.log_scales.exp(),
        opacities=leaves.opacity_logits.sigmoid(),
        colors=torch.cat([leaves.sh0, leaves.shN], dim=1),
        viewmats=case.cameras.viewmats,
        Ks=case.cameras.Ks,
        width=case.cameras.width(),
        height=case.cameras.height(),
        sh_degree=3,
        packed=False,
    )[0]


def torch_adam(leaves: Gaussians) -> Callable[[], None]:
    """torch's fused Adam, as a call without arguments."""
    optimizer = torch.optim.Adam(list(leaves.params().values()), lr=LR, eps=1e-15, fused=True)

    def step() -> None:
        optimizer.step()

    return step


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """Median time of a call: on the device, or with --emulate on the host."""
    if cuda_call.device_type() == "cpu":
        began = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - began)
    times = []
    for i in range(repeats + 5):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        if i >= 5:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def our_step(case: Case, photo: Tensor) -> Callable[[], object]:
    """A native step on a photo that stays the same; the means do not move far in a hundred of them."""
    descent, state, stats, view, rates = step_call(case, "cuda", photo)
    return lambda: descent.step(state, stats, view, rates)


def gsplat_step(case: Case, leaves: Gaussians, photo: Tensor) -> Callable[[], object]:
    """gsplat's render with our loss, autograd and torch's fused Adam."""
    adam, target = torch_adam(leaves), photo.to(leaves.device)

    def step() -> None:
        forget(leaves)
        l1_ssim(render_gsplat(leaves, case)[0], target).backward()
        adam()

    return step


def forget(leaves: Gaussians) -> None:
    """Drop gradients."""
    for value in leaves.params().values():
        value.grad = None


def measure(case: Case, backend: str, repeats: int) -> Row:
    """Times of one backend on one scene."""
    render = render_ours if backend == "cuda" else render_gsplat
    leaves = case.gaussians.map(lambda value: value.clone().requires_grad_())
    photo = torch.randint(0, 256, (case.cameras.height(), case.cameras.width(), 3)).to(torch.uint8)
    v_rgb = torch.randn(1, *photo.shape, device=leaves.device) * 1e-3
    step = our_step(case, photo) if backend == "cuda" else gsplat_step(case, leaves, photo)

    def forward() -> None:
        with torch.no_grad():
            render(leaves, case)

    def both() -> None:
        forget(leaves)
        render(leaves, case).backward(v_rgb)

    has_gpu = leaves.device.type == "cuda"
    if has_gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        times = [milliseconds(call, repeats) for call in (forward, both, step)]
    except (torch.cuda.OutOfMemoryError, MemoryError):
        times = [float("nan")] * 3
    peak = torch.cuda.max_memory_allocated() / 2**30 if has_gpu else float("nan")
    if has_gpu:
        torch.cuda.empty_cache()
    return Row(case.name, backend, *times, peak)


def random_field(sizes: Sizes) -> Field:
    """A VM field on the CPU, half of whose cells are empty."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return 0.4 * torch.randn(*shape, generator=generator)

    nodes, hidden, width = sizes.field_nodes, 64, 32
    shapes = ((nodes, nodes), (nodes, nodes), (nodes, nodes), (nodes,), (nodes,), (nodes,))
    density, color = (tuple(normal(*shape, rank) for shape in shapes) for rank in sizes.field_ranks)
    layers = (normal(5 * width + DIRECTION_TERMS, hidden), normal(hidden, hidden), normal(hidden, 3))
    decoder = Decoder(normal(3 * sizes.field_ranks[1], width), layers, (normal(hidden), normal(hidden), normal(3)))
    box = torch.tensor([[-1.0] * 3, [1.0] * 3])
    cells = torch.rand(nodes // 4, nodes // 4, nodes // 4, generator=generator) < 0.5
    return Field("vm", box, density, color, decoder, 20.0, 2 / nodes, -3.0, cells)


def measure_field(scene: Field, n_rays: int, repeats: int) -> dict[str, float]:
    """Millions of rays a second through a field, without its network."""
    device = cuda_call.device_type()
    moved = scene.to(device)
    leaves = moved.with_factors(tuple(value.detach().requires_grad_() for value in moved.factors()))
    generator = torch.Generator().manual_seed(4)
    origins = torch.nn.functional.normalize(torch.randn(n_rays, 3, generator=generator), dim=1) * 3
    directions = torch.nn.functional.normalize(0.4 * torch.randn(n_rays, 3, generator=generator) - origins, dim=1)
    rays = origins.to(device), directions.to(device)

    def forward() -> None:
        with torch.no_grad():
            field_cuda.march(leaves, *rays, None)

    def both() -> None:
        field_cuda.march(leaves, *rays, None).features.sum().backward()

    calls = {"forward": forward, "forward and backward": both}
    return {name: n_rays / milliseconds(call, repeats) / 1e3 for name, call in calls.items()}


def fit_capture(folder: Path, preset: PresetName, backend: str, config: Config) -> Fit:
    """A whole fit with the settings of a preset."""
    capture = read_capture(folder, CaptureOptions(data_factor=config.data_factor))
    settings = preset_settings(preset, capture, 4 if config.emulate else None)
    every = max(1, settings.max_steps // 20)
    points = tuple(range(every, settings.max_steps, every))
    settings = replace(settings, backend=backend, checkpoint_every=0, eval_steps=points)
    first = initialize(capture, settings.seed)
    if config.emulate:
        first = first.select(torch.arange(0, len(first), max(1, len(first) // 200)))
    lines: list[LogLine] = []
    result = fit(capture, first, settings, Hooks(log=lines.append))
    curve = [(line.seconds, line.psnr) for line in lines if line.psnr is not None]
    psnr = curve[-1][1] if curve else float("nan")
    near = next((seconds for seconds, value in curve if value >= psnr - 0.5), float("nan"))
    n = len(result.gaussians)
    return Fit(folder.name, preset, backend, result.seconds, result.n_steps, n, psnr, near, curve)


def format_rows(rows: list[Row]) -> str:
    """The rows as text, with gsplat's time over ours."""
    ours = {row.case: row for row in rows if row.backend == "cuda"}
    head = f"{'scene':24}{'backend':9}{'forward':>9}{'fwd+bwd':>9}{'step':>9}{'peak GiB':>10}   times over ours"
    lines = [head, "-" * len(head)]
    for row in rows:
        mine = ours[row.case]
        ratios = (row.forward / mine.forward, row.both / mine.both, row.step / mine.step)
        text = "".join(f"{ratio:8.2f}" for ratio in ratios) if row is not mine else ""
        lines.append(
            f"{row.case:24}{row.backend:9}{row.forward:9.3f}{row.both:9.3f}{row.step:9.3f}{row.peak:10.2f}   {text}"
        )
    return "\n".join(lines)


def emulated(config: Config) -> Config:
    """Put the kernels on the host in the place of the device, and make everything tiny."""
    from scene3d import _cuda_emulated

    cuda_call.module = _cuda_emulated
    return replace(config, counts=(200,), heights=(36,), rays=min(config.rays, 32), sanitize=False)


def run(config: Config) -> int:
    """All of it; the exit code says whether parity and the sanitizer passed."""
    if config.emulate:
        config = emulated(config)
    reason = backends.why_unavailable("cuda")
    if reason is not None:
        raise BackendUnavailable("cuda", reason, backends.remedy("cuda"))
    has_gsplat = backends.why_unavailable("gsplat") is None
    sizes = TINY if config.emulate else FULL
    field = random_field(sizes)
    parity = all_parity(sizes, field, has_gsplat)
    for line in parity:
        verdict = "ok" if line.passed else "FAILED"
        print(f"{line.pair:20} image {line.psnr:6.1f} dB, {line.worst} off by {line.error:.1e}: {verdict}")
    found = sanitize() if config.sanitize else {}
    for tool, verdict in found.items():
        print(f"{tool:20} {verdict}")
    rows = []
    for n in config.counts:
        for height in config.heights:
            case = scaled_case(n, height)
            rows += [measure(case, name, config.repeats) for name in (["cuda", "gsplat"] if has_gsplat else ["cuda"])]
    print(format_rows(rows))
    speeds = measure_field(field, config.rays, config.repeats) if config.rays else {}
    for name, speed in speeds.items():
        print(f"field, {name}: {speed:.3g} million rays a second")
    fits = []
    for folder in config.captures:
        for preset in PRESETS:
            fits.append(fit_capture(folder, preset, "cuda", config))
            print(format_fit(fits[-1]), flush=True)
    if config.out is not None:
        tables = {"parity": [asdict(p) for p in parity], "sanitizer": found, "times": [asdict(row) for row in rows]}
        tables |= {"million rays a second": speeds, "fits": [asdict(f) for f in fits], "emulated": config.emulate}
        write_text(config.out, json.dumps({"environment": environment(), **tables}, indent=1))
    return 0 if all(p.passed for p in parity) and set(found.values()) <= {"clean", "not installed"} else 1


def all_parity(sizes: Sizes, field: Field, has_gsplat: bool) -> list[Parity]:
    """Every comparison that can be made here."""
    n, width, height = sizes.parity
    small = random_case(n, width, height, 1.7)
    renders = [compare_renders(small, "cuda", other) for other in (["cpu", "gsplat"] if has_gsplat else ["cpu"])]
    return [*renders, compare_steps(small), compare_discs(small), compare_fields(field, sizes.field_rays)]


def format_fit(line: Fit) -> str:
    """One fit in a line."""
    return (
        f"{line.capture}, {line.preset}, {line.backend}: {line.psnr:.2f} dB in {line.seconds:.1f} s "
        f"(half a dB less after {line.seconds_to_half_db:.1f} s), "
        f"{line.n_steps:,} steps, {line.n_gaussians:,} Gaussians"
    )


if __name__ == "__main__":
    try:
        sys.exit(run(tyro.cli(Config, description=__doc__)))
    except BackendUnavailable as error:
        sys.exit(str(error))
