"""What made a result: program, libraries and processor, as words for a report. No names of hosts or users."""

from __future__ import annotations

import importlib
import platform
from pathlib import Path

import torch

from scene3d import __version__
from scene3d.report.machine import memory_bytes, usable_cores


def environment() -> dict[str, str]:
    """Facts by name, in the order in which they are shown."""
    facts = {
        "scene3d": __version__,
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": f"{_processor_name()}, {usable_cores()} usable cores",
    }
    size = memory_bytes()
    if size is not None:
        facts["memory"] = f"{size / 2**30:.1f} GiB"
    if torch.cuda.is_available():
        facts["GPU"] = torch.cuda.get_device_name(0)
    try:
        native = importlib.import_module("scene3d._cpu")
    except ImportError:
        return facts
    return {**facts, "native code": f"SIMD {native.simd_level()}, {native.n_threads()} threads"}


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name") and ":" in line]
    return names[0] if names else platform.processor() or platform.machine()
