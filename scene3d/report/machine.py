"""What a machine has for this program, and what to do about what it lacks. Nothing raises: a fault is a finding."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import torch

from scene3d import __version__
from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.ops import cuda_call
from scene3d.render import backends, self_check
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings

State = Literal["ok", "absent", "broken"]

PACKAGES = {
    "pycolmap": ("finds cameras of plain photos (scene3d pose)", "pip install pycolmap"),
    "av": ("reads and writes video", "pip install av"),
    "gsplat": ("renders on NVIDIA GPUs", "pip install gsplat, on a machine with a CUDA device"),
    "lpips": ("LPIPS, one more image metric", "pip install lpips"),
    "open3d": ("meshes from scenes", "pip install open3d"),
    "trimesh": ("reads and writes meshes", "pip install trimesh"),
    "viser": ("shows scenes in a browser", "pip install viser"),
}
# The reference keeps every pixel's full sum; the native code stops at a transmittance of 1e-4 for 4x4 pixels together.
RENDER_TOLERANCE = 2e-3
COMMAND_TIMEOUT = 10.0


@dataclass(frozen=True)
class Finding:
    """One fact.

    Attributes:
        name: What it is about.
        state: ok, absent (not needed for the core) or broken (the core needs it).
        text: What was found.
        remedy: What to do where it is not ok.
    """

    name: str
    state: State
    text: str
    remedy: str = ""


def examine() -> dict[str, list[Finding]]:
    """All findings, grouped under headings."""
    return {
        "machine": [_python(), _processor(), _memory(), _torch()],
        "native code": _native(),
        "backends": [_backend(name) for name in backends.MODULES],
        "GPU": [_gpu(), _compiler(), _cuda_module()],
        "packages": [_package(name) for name in PACKAGES],
    }


def is_broken(findings: dict[str, list[Finding]]) -> bool:
    """Whether something is missing that no command can do without."""
    return any(finding.state == "broken" for group in findings.values() for finding in group)


def memory_bytes() -> int | None:
    """Physical memory, None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def usable_cores() -> int:
    """Cores that this process may use; containers and taskset may allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _python() -> Finding:
    return Finding("scene3d", "ok", f"{__version__}, Python {platform.python_version()} at {sys.executable}")


def _processor() -> Finding:
    return Finding("processor", "ok", f"{usable_cores()} usable cores, {platform.machine()}, {platform.system()}")


def _memory() -> Finding:
    size = memory_bytes()
    return Finding("memory", "ok", "unknown" if size is None else f"{size / 2**30:.1f} GiB")


def _torch() -> Finding:
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return Finding("torch", "ok", f"{torch.__version__}, {build}, {torch.get_num_threads()} threads")


def _native() -> list[Finding]:
    remedy = "Install scene3d with its native code: pip install . in the source folder (needs a C++ compiler)"
    try:
        _cpu = importlib.import_module("scene3d._cpu")
    except ImportError as error:
        return [Finding("scene3d._cpu", "broken", f"cannot be imported: {error}", remedy)]
    levels = ", ".join(_cpu.simd_levels())
    found = Finding("scene3d._cpu", "ok", f"SIMD {_cpu.simd_level()} (of {levels}), {_cpu.n_threads()} threads")
    return [found, _render_check(remedy)]


def _render_check(remedy: str) -> Finding:
    """Render a tiny scene natively and with the reference."""
    gaussians, cameras = _tiny_scene()
    settings = RasterSettings(background=(0.2, 0.4, 0.6))
    try:
        native, reference = (rasterize(gaussians, cameras, settings, name).rgb for name in ("cpu", "reference"))
    except Exception as error:  # any failure at all is what the user asks about
        return Finding("test render", "broken", f"failed: {error}", remedy)
    difference = float((native - reference).abs().max())
    text = f"largest difference from the reference {difference:.1e}"
    if not difference <= RENDER_TOLERANCE:
        return Finding("test render", "broken", f"{text}, expected at most {RENDER_TOLERANCE:g}", remedy)
    return Finding("test render", "ok", text)


def _tiny_scene() -> tuple[Gaussians, Cameras]:
    generator = torch.Generator().manual_seed(0)
    n = 64

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator) * 2 - 1

    means, quats, log_scales = uniform(n, 3), uniform(n, 4), uniform(n, 3) - 2
    gaussians = Gaussians(means, quats, log_scales, uniform(n), uniform(n, 1, 3), uniform(n, 3, 3))
    viewmats = torch.eye(4)[None].clone()
    viewmats[0, 2, 3] = 4.0
    Ks = torch.tensor([[[60.0, 0.0, 24.0], [0.0, 60.0, 16.0], [0.0, 0.0, 1.0]]])
    return gaussians, Cameras(viewmats, Ks, torch.tensor([[48, 32]]))


def _backend(name: str) -> Finding:
    reason = backends.why_unavailable(name)
    if reason is None and name == "cuda":
        problem = self_check.problem_of(cuda_call.module)
        if problem is not None:
            return Finding(name, "broken", problem, "Use --backend cpu, and please report it")
        return Finding(name, "ok", "available; agrees with the CPU on a test picture and its gradients")
    if reason is None:
        return Finding(name, "ok", "available")
    state: State = "broken" if name == "reference" else "absent"
    return Finding(name, state, reason, backends.remedy(name))


def _gpu() -> Finding:
    if torch.cuda.is_available():
        size = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Finding("device", "ok", f"{torch.cuda.get_device_name(0)}, {size:.1f} GiB")
    seen = _command_line("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    if seen is None:
        return Finding("device", "absent", "no NVIDIA GPU found; the CPU is used")
    if torch.version.cuda is None:
        remedy = "Install torch with CUDA: python3 tools/quickstart.py --cuda demo, or see pytorch.org"
        return Finding("device", "absent", f"{seen} is there, but this torch is a CPU build", remedy)
    remedy = "Check that the driver is new enough for this torch: nvidia-smi"
    return Finding("device", "absent", f"{seen} is there, but torch cannot use it", remedy)


def _compiler() -> Finding:
    version = _command_line("nvcc", "--version")
    if version is None:
        return Finding("nvcc", "absent", "not found", "Only needed to build the CUDA module: install the CUDA toolkit")
    return Finding("nvcc", "ok", f"{version} at {shutil.which('nvcc')}")


def _cuda_module() -> Finding:
    try:
        _cuda = importlib.import_module("scene3d._cuda")
    except ImportError:
        text = "not built: it is where nvcc and an NVIDIA GPU are found at installation, or SCENE3D_CUDA=ON is set"
        return Finding("scene3d._cuda", "absent", text, "SCENE3D_CUDA=ON pip install . in the source folder")
    devices = [_cuda.describe_device(i) for i in range(_cuda.device_count())]
    return Finding("scene3d._cuda", "ok", f"built; {'; '.join(devices) or 'no device that it can use'}")


def _package(name: str) -> Finding:
    purpose, remedy = PACKAGES[name]
    if importlib.util.find_spec(name) is None:
        return Finding(name, "absent", f"not installed; {purpose}", remedy)
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = "of unknown version"
    return Finding(name, "ok", f"{version}; {purpose}")


def _command_line(*command: str) -> str | None:
    """What a command prints, the line that tells most; None where it is not there or fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    return next((line for line in lines if "release" in line), lines[0] if lines else None)
