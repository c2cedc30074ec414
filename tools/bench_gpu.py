"""Check and time the CUDA backend on a GPU machine in one call: parity, compute-sanitizer, times beside gsplat, fits.

Parity: images and gradients of cuda, cpu and, where it is installed, gsplat. Sanitizer: memcheck, racecheck and
synccheck of tests/gpu's smallest case. Times are medians of CUDA events; all in one process, with the same
scene and settings. `step` is render, L1 + SSIM (ours for both), backward and Adam (ours; torch's fused one for gsplat).
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import tyro
from bench_raster import Case, random_case
from torch import Tensor

from scene3d.core.errors import BackendUnavailable
from scene3d.core.fields import Decoder, Field
from scene3d.core.gaussians import Gaussians
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.ops.adam import adam_step_
from scene3d.recon.fit import fit
from scene3d.recon.initialize import initialize
from scene3d.recon.presets import PresetName, preset_settings
from scene3d.render import backends, field_cuda
from scene3d.render.loss import l1_ssim
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings
from scene3d.report.environment import environment

MIN_PSNR_DB = 60.0
MAX_GRADIENT_ERROR = 1e-3
SANITIZERS = ("memcheck", "racecheck", "synccheck")
SMALL_TEST = Path(__file__).resolve().parents[1] / "tests" / "gpu" / "test_cuda_device.py"
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
    out: Path | None = None
    """JSON file for all figures."""


@dataclass(frozen=True)
class Parity:
    """One backend against another on one scene; `error` is the largest relative error of a parameter's gradient."""

    pair: str
    psnr: float
    error: float
    worst: str
    passed: bool


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
    """One fit: seconds, and PSNR of the test views at its end."""

    capture: str
    preset: str
    backend: str
    seconds: float
    n_steps: int
    n_gaussians: int
    psnr: float


def images_and_gradients(case: Case, backend: str) -> tuple[Tensor, dict[str, Tensor]]:
    """One render and its gradients under a fixed random loss, on the CPU in float64."""
    device = "cpu" if backend == "cpu" else "cuda"
    leaves = case.gaussians.map(lambda value: value.detach().to(device).requires_grad_())
    rgb = rasterize(leaves, case.cameras.to(device), RasterSettings(), backend).rgb
    weights = torch.randn(rgb.shape, generator=torch.Generator().manual_seed(1))
    (rgb * weights.to(device)).sum().backward()
    gradients = {name: value.grad.cpu().double() for name, value in leaves.params().items() if value.grad is not None}
    return rgb.detach().cpu().double(), gradients


def compare(case: Case, one: str, other: str) -> Parity:
    """Hold backend `one` against `other`."""
    (image, gradients), (expected, wanted) = (images_and_gradients(case, name) for name in (one, other))
    psnr = float(-10 * (image - expected).square().mean().clamp_min(1e-20).log10())
    errors = {
        name: float((gradients[name] - wanted[name]).norm() / wanted[name].norm())
        for name in wanted
        if wanted[name].norm() > 0
    }
    worst = max(errors, key=lambda name: errors[name])
    passed = psnr >= MIN_PSNR_DB and errors[worst] <= MAX_GRADIENT_ERROR
    return Parity(f"{one} / {other}", psnr, errors[worst], worst, passed)


def sanitize() -> dict[str, str]:
    """What compute-sanitizer finds, by tool."""
    if shutil.which("compute-sanitizer") is None:
        return {"compute-sanitizer": "not installed"}
    pytest = [sys.executable, "-m", "pytest", "-q", "-x", str(SMALL_TEST), "-k", "small_scene"]
    found = {}
    for tool in SANITIZERS:
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *pytest]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [line for line in result.stdout.splitlines() if "SUMMARY" in line] or [f"exit code {result.returncode}"]
        found[tool] = "clean" if result.returncode == 0 else lines[-1].strip("= ")
    return found


def scaled_case(n: int, height: int) -> Case:
    """A random scene whose pixels are covered as often as with 100,000 Gaussians at 960x540."""
    width = height * 16 // 9
    median = 2.4 * (100_000 / n * (width * height) / (960 * 540)) ** 0.5
    case = random_case(n, width, height, median)
    return replace(case, gaussians=case.gaussians.to("cuda"), cameras=case.cameras.to("cuda"))


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


def our_adam(leaves: Gaussians) -> Callable[[], None]:
    """Our Adam over all parameters, as a call without arguments."""
    params = list(leaves.params().values())
    means, squares = [torch.zeros_like(p) for p in params], [torch.zeros_like(p) for p in params]
    values = [p.detach() for p in params]

    def step() -> None:
        adam_step_(values, [p.grad for p in params], means, squares, [LR] * len(params), 10, None)

    return step


def torch_adam(leaves: Gaussians) -> Callable[[], None]:
    """torch's fused Adam, as a call without arguments."""
    optimizer = torch.optim.Adam(list(leaves.params().values()), lr=LR, eps=1e-15, fused=True)

    def step() -> None:
        optimizer.step()

    return step


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """Median time of a call on the device."""
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


def measure(case: Case, backend: str, repeats: int) -> Row:
    """Times of one backend on one scene."""
    render, make_adam = (render_ours, our_adam) if backend == "cuda" else (render_gsplat, torch_adam)
    leaves = case.gaussians.map(lambda value: value.clone().requires_grad_())
    target = torch.rand(case.cameras.height(), case.cameras.width(), 3, device="cuda")
    v_rgb = torch.randn(1, *target.shape, device="cuda") * 1e-3
    adam = make_adam(leaves)

    def forget() -> None:
        for value in leaves.params().values():
            value.grad = None

    def forward() -> None:
        with torch.no_grad():
            render(leaves, case)

    def both() -> None:
        forget()
        render(leaves, case).backward(v_rgb)

    def step() -> None:
        forget()
        l1_ssim(render(leaves, case)[0], target).backward()
        adam()

    torch.cuda.reset_peak_memory_stats()
    try:
        times = [milliseconds(call, repeats) for call in (forward, both, step)]
    except (torch.cuda.OutOfMemoryError, MemoryError):
        times = [float("nan")] * 3
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.empty_cache()
    return Row(case.name, backend, *times, peak)


def measure_field(n_rays: int, repeats: int) -> dict[str, float]:
    """Millions of rays a second through a random VM field, half of whose cells are empty, without its network."""
    generator = torch.Generator(device="cuda").manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return 0.4 * torch.randn(*shape, generator=generator, device="cuda")

    nodes, hidden = 300, 64
    shapes = ((nodes, nodes), (nodes, nodes), (nodes, nodes), (nodes,), (nodes,), (nodes,))
    density, color = (tuple(normal(*shape, rank).requires_grad_() for shape in shapes) for rank in (16, 48))
    layers = (normal(5 * 32 + 16, hidden), normal(hidden, hidden), normal(hidden, 3))
    decoder = Decoder(normal(144, 32), layers, (normal(hidden), normal(hidden), normal(3)))
    box = torch.tensor([[-1.0] * 3, [1.0] * 3], device="cuda")
    cells = torch.rand(75, 75, 75, generator=generator, device="cuda") < 0.5
    field = Field("vm", box, density, color, decoder, 20.0, 2 / nodes, -3.0, cells)
    origins = torch.nn.functional.normalize(normal(n_rays, 3), dim=1) * 3
    directions = torch.nn.functional.normalize(normal(n_rays, 3) - origins, dim=1)

    def forward() -> None:
        with torch.no_grad():
            field_cuda.march(field, origins, directions, None)

    def both() -> None:
        field_cuda.march(field, origins, directions, None).features.sum().backward()

    calls = {"forward": forward, "forward and backward": both}
    return {name: n_rays / milliseconds(call, repeats) / 1e3 for name, call in calls.items()}


def fit_capture(folder: Path, preset: PresetName, backend: str, data_factor: int) -> Fit:
    """A whole fit with the settings of a preset."""
    capture = read_capture(folder, CaptureOptions(data_factor=data_factor))
    settings = replace(preset_settings(preset, capture), backend=backend, checkpoint_every=0)
    result = fit(capture, initialize(capture, settings.seed), settings)
    psnr = result.validation.psnr if result.validation else float("nan")
    return Fit(folder.name, preset, backend, result.seconds, result.n_steps, len(result.gaussians), psnr)


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


def run(config: Config) -> int:
    """All of it; the exit code says whether parity and the sanitizer passed."""
    reason = backends.why_unavailable("cuda")
    if reason is not None:
        raise BackendUnavailable("cuda", reason, backends.remedy("cuda"))
    has_gsplat = importlib.util.find_spec("gsplat") is not None
    small = random_case(50_000, 480, 270, 1.7)
    others = ["cpu", "gsplat"] if has_gsplat else ["cpu"]
    parity = [compare(small, "cuda", other) for other in others]
    for line in parity:
        verdict = "ok" if line.passed else "FAILED"
        print(f"{line.pair:16} image {line.psnr:6.1f} dB, gradient of {line.worst} off by {line.error:.1e}: {verdict}")
    found = sanitize() if config.sanitize else {}
    for tool, verdict in found.items():
        print(f"{tool:16} {verdict}")
    rows = []
    for n in config.counts:
        for height in config.heights:
            case = scaled_case(n, height)
            rows += [measure(case, name, config.repeats) for name in (["cuda", "gsplat"] if has_gsplat else ["cuda"])]
    print(format_rows(rows))
    speeds = measure_field(config.rays, config.repeats) if config.rays else {}
    for name, speed in speeds.items():
        print(f"field, {name}: {speed:.1f} million rays a second")
    fits = []
    for folder in config.captures:
        for preset in PRESETS:
            fits.append(fit_capture(folder, preset, "cuda", config.data_factor))
            print(f"fit {fits[-1]}", flush=True)
    if config.out is not None:
        tables = {"parity": [asdict(p) for p in parity], "sanitizer": found, "times": [asdict(row) for row in rows]}
        tables |= {"million rays a second": speeds, "fits": [asdict(f) for f in fits]}
        config.out.write_text(json.dumps({"environment": environment(), **tables}, indent=1))
    return 0 if all(p.passed for p in parity) and set(found.values()) <= {"clean", "not installed"} else 1


if __name__ == "__main__":
    try:
        sys.exit(run(tyro.cli(Config, description=__doc__)))
    except BackendUnavailable as error:
        sys.exit(str(error))
