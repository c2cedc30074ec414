"""What bench_gpu.py checks before it times: CUDA against the CPU and gsplat, and compute-sanitizer on a small case."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from bench_raster import Case
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.fields import Field
from scene3d.ops import cuda_call
from scene3d.recon.densify import GradStats
from scene3d.recon.descent import Descent
from scene3d.recon.optim import AdamState
from scene3d.recon.photos import Target
from scene3d.recon.settings import FitSettings
from scene3d.recon.step import Rates, View
from scene3d.render import field_cuda, field_reference
from scene3d.render.rasterize import rasterize
from scene3d.render.surfels import rasterize_surfels
from scene3d.render.types import RasterSettings

MIN_PSNR_DB = 60.0
MAX_GRADIENT_ERROR = 1e-3
SANITIZERS = ("memcheck", "racecheck", "synccheck")
SMALL_TEST = Path(__file__).resolve().parents[1] / "tests" / "gpu" / "test_cuda_device.py"
BLACK = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Parity:
    """One backend against another on one scene; `error` is the largest relative error, `worst` where it is.

    Where there is no image, psnr is infinite.
    """

    pair: str
    psnr: float
    error: float
    worst: str
    passed: bool


def judge(pair: str, psnr: float, found: dict[str, Tensor], expected: dict[str, Tensor]) -> Parity:
    """Compare tensors of the same names by their relative distances."""
    errors = {
        name: float((found[name] - wanted).norm() / wanted.norm())
        for name, wanted in expected.items()
        if wanted.norm() > 0
    }
    worst = max(errors, key=lambda name: errors[name])
    # A comparison with nan fails.
    return Parity(pair, psnr, errors[worst], worst, psnr >= MIN_PSNR_DB and errors[worst] <= MAX_GRADIENT_ERROR)


def images_and_gradients(case: Case, backend: str) -> tuple[Tensor, dict[str, Tensor]]:
    """One render and its gradients under a fixed random loss, on the CPU in float64."""
    device = "cpu" if backend == "cpu" else cuda_call.device_type()
    leaves = case.gaussians.map(lambda value: value.detach().to(device).requires_grad_())
    rgb = rasterize(leaves, case.cameras.to(device), RasterSettings(), backend).rgb
    weights = torch.randn(rgb.shape, generator=torch.Generator().manual_seed(1))
    (rgb * weights.to(device)).sum().backward()
    gradients = {name: value.grad.cpu().double() for name, value in leaves.params().items() if value.grad is not None}
    return rgb.detach().cpu().double(), gradients


def compare_renders(case: Case, one: str, other: str) -> Parity:
    """Hold the images and gradients of backend `one` against those of `other`."""
    (image, found), (expected, wanted) = (images_and_gradients(case, name) for name in (one, other))
    psnr = float(-10 * (image - expected).square().mean().clamp_min(1e-20).log10())
    return judge(f"{one} / {other}", psnr, found, wanted)


def step_call(case: Case, backend: str, photo: Tensor) -> tuple[Descent, AdamState, GradStats, View, Rates]:
    """A fit about to take its first step on `photo` [H, W, 3] uint8, on the CPU."""
    descent = Descent(FitSettings(backend=backend))
    state = AdamState.start(case.gaussians.to("cpu"), 3).to(descent.device)
    camera = Cameras(case.cameras.viewmats.cpu(), case.cameras.Ks.cpu(), case.cameras.sizes)
    view = View(0, camera, Target(photo, None, None), BLACK, RasterSettings())
    rates = Rates(dict.fromkeys(state.values, 1e-4), 0.5, 1.0, True)
    return descent, state, GradStats.zeros(len(state), state.device), view, rates


def compare_steps(case: Case) -> Parity:
    """Hold a native step of CUDA against that of the CPU: the moments that it leaves, the statistics and the loss.

    After one step the first moment is a tenth of the gradient. The parameters themselves would say little: Adam makes
    whole steps of gradients that are rounding noise.
    """
    height, width = case.cameras.height(), case.cameras.width()
    photo = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    tables = []
    for backend in ("cuda", "cpu"):
        descent, state, stats, view, rates = step_call(case, backend, photo)
        loss = descent.step(state, stats, view, rates).loss
        named = {**state.exp_avg, "statistics": stats.sums, "loss": torch.tensor(loss)}
        tables.append({name: value.detach().cpu().double() for name, value in named.items()})
    return judge("step: cuda / cpu", float("inf"), *tables)


def compare_fields(field: Field, n_rays: int) -> Parity:
    """Hold rays through a field, and gradients of its factors, against torch in float64. The field is on the CPU."""
    generator = torch.Generator().manual_seed(3)
    origins = torch.nn.functional.normalize(torch.randn(n_rays, 3, generator=generator), dim=1) * 3
    directions = torch.nn.functional.normalize(0.4 * torch.randn(n_rays, 3, generator=generator) - origins, dim=1)
    tables = []
    for march, dtype, device in (
        (field_cuda.march, torch.float32, cuda_call.device_type()),
        (field_reference.march, torch.float64, "cpu"),
    ):
        factors = tuple(value.detach().to(device, dtype).requires_grad_() for value in field.factors())
        moved = field.to(device, dtype).with_factors(factors)
        sums = march(moved, origins.to(device, dtype), directions.to(device, dtype), None)
        (sums.features.sum() + sums.opacity.sum()).backward()
        named = {"features": sums.features, "opacity": sums.opacity}
        named |= {f"gradient {i}": value.grad for i, value in enumerate(factors)}
        tables.append({name: value.detach().cpu().double() for name, value in named.items()})
    return judge("field: cuda / torch", float("inf"), *tables)


def compare_discs(case: Case) -> Parity:
    """Hold discs met by rays, and gradients of all their images, against the CPU."""
    tables, images = [], []
    for backend, device in (("cuda", cuda_call.device_type()), ("cpu", "cpu")):
        leaves = case.gaussians.map(lambda value, to=device: value.detach().to(to).requires_grad_())  # type: ignore[misc]
        camera = Cameras(case.cameras.viewmats.cpu(), case.cameras.Ks.cpu(), case.cameras.sizes)
        seen = rasterize_surfels(leaves, camera, RasterSettings(), 0.1, backend)
        assert seen.render.depth is not None
        weights = torch.randn(seen.render.rgb.shape, generator=torch.Generator().manual_seed(1)).to(device)
        ((seen.render.rgb * weights).sum() + seen.render.depth.mean() + seen.distortion.mean()).backward()
        images.append(seen.render.rgb.detach().cpu().double())
        grads = {name: value.grad for name, value in leaves.params().items()}
        tables.append({name: grad.cpu().double() for name, grad in grads.items() if grad is not None})
    psnr = float(-10 * (images[0] - images[1]).square().mean().clamp_min(1e-20).log10())
    return judge("discs: cuda / cpu", psnr, *tables)


def sanitize() -> dict[str, str]:
    """What compute-sanitizer finds, by tool."""
    if shutil.which("compute-sanitizer") is None:
        return {"compute-sanitizer": "not installed"}
    pytest = [sys.executable, "-m", "pytest", "-q", "-x", str(SMALL_TEST), "-k", "small"]
    found = {}
    for tool in SANITIZERS:
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *pytest]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [line for line in result.stdout.splitlines() if "SUMMARY" in line] or [f"exit code {result.returncode}"]
        found[tool] = "clean" if result.returncode == 0 else lines[-1].strip("= ")
    return found
