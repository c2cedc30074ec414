"""The rasterizer backends: which there are, which run here, which one a call gets.

Every backend module offers `rasterize_arrays(gaussians, cameras, settings) -> Render` and
`why_unavailable() -> str | None`. SCENE3D_BACKEND replaces "auto" for a whole process.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
from typing import Protocol, cast

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.errors import BackendUnavailable
from scene3d.core.gaussians import Gaussians
from scene3d.ops import cuda_call
from scene3d.render import self_check
from scene3d.render.types import RasterSettings, Render

VARIABLE = "SCENE3D_BACKEND"
MODULES = {
    "reference": "scene3d.render.reference",
    "cpu": "scene3d.render.cpu",
    "cuda": "scene3d.render.cuda",
    "gsplat": "scene3d.render.gsplat_adapter",
}
MASKING = ("reference", "cpu", "cuda")
REMEDIES = {
    "cpu": "Install scene3d with its native code: pip install . in the source folder",
    "cuda": "Where nvcc is: SCENE3D_CUDA=ON pip install . in the source folder; or use --backend cpu",
    "gsplat": "pip install gsplat, on a machine with a CUDA device, or use --backend cpu",
}

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """What a backend module offers."""

    def rasterize_arrays(self, gaussians: Gaussians, cameras: Cameras, settings: RasterSettings) -> Render: ...

    def why_unavailable(self) -> str | None: ...


class MaskingBackend(Protocol):
    """What a backend module offers that takes masks."""

    def rasterize_arrays(
        self, gaussians: Gaussians, cameras: Cameras, settings: RasterSettings, masks: Tensor | None = None
    ) -> Render: ...


def load(name: str) -> Backend:
    """Import the module of a backend.

    Raises:
        ValueError: there is no backend of that name.
        BackendUnavailable: its module is not part of this installation.
    """
    if name not in MODULES:
        raise ValueError(f"backend: expected auto or one of {', '.join(MODULES)}, got {name!r}")
    if importlib.util.find_spec(MODULES[name]) is None:
        raise BackendUnavailable(name, "not part of this installation", REMEDIES.get(name, ""))
    return cast(Backend, importlib.import_module(MODULES[name]))


def load_masking(name: str) -> MaskingBackend:
    """The same for one that takes masks.

    Raises:
        BackendUnavailable: it does not.
    """
    if name not in MASKING:
        raise BackendUnavailable(name, "it takes no masks", f"Use one of {', '.join(MASKING)}")
    return cast(MaskingBackend, load(name))


def why_unavailable(name: str) -> str | None:
    """The reason why a backend cannot run here, None when it can."""
    try:
        return load(name).why_unavailable()
    except BackendUnavailable as error:
        return error.reason


def remedy(name: str) -> str:
    """What a user can do to get a backend."""
    return REMEDIES.get(name, "")


def choose(explicit: str, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """Name of the backend for tensors on `device`.

    Args:
        explicit: A name, or "auto": SCENE3D_BACKEND if set, else the fastest that runs here.
        device: Device of the Gaussians.
        dtype: Their dtype. Everything but float32 goes to the reference, the only one that takes it.

    Raises:
        ValueError: there is no backend of that name.
        BackendUnavailable: the one asked for does not run here, or CUDA was not and its kernels fail their check.
    """
    wanted = explicit if explicit != "auto" else os.environ.get(VARIABLE, "auto") or "auto"
    if wanted != "auto":
        reason = why_unavailable(wanted)
        if reason is not None:
            raise BackendUnavailable(wanted, reason, remedy(wanted))
        return wanted
    if dtype != torch.float32:
        return "reference"
    for name in ("cuda", "gsplat") if device.type == "cuda" else ("cpu",):
        if why_unavailable(name) is None:
            if name == "cuda":
                self_check.check_cuda()
            return name
    _warn_slow(device.type)
    return "reference"


def device_for(explicit: str) -> torch.device:
    """Where Gaussians must be to be rendered by a backend; with "auto" on the GPU where a backend for it runs here.

    Raises:
        BackendUnavailable: the one asked for wants a GPU and does not run here.
    """
    wanted = explicit if explicit != "auto" else os.environ.get(VARIABLE, "auto") or "auto"
    if wanted == "auto":
        names = ("cuda", "gsplat") if torch.cuda.is_available() else ()
        wanted = next((name for name in names if why_unavailable(name) is None), "cpu")
    reason = why_unavailable(wanted) if wanted in ("cuda", "gsplat") else None
    if reason is not None:
        raise BackendUnavailable(wanted, reason, remedy(wanted))
    if wanted == "cuda":
        return torch.device(cuda_call.device_type())
    return torch.device("cuda" if wanted == "gsplat" else "cpu")


@functools.cache
def _warn_slow(device_type: str) -> None:
    name = "cpu" if device_type == "cpu" else "gsplat"
    reason = why_unavailable(name)
    logger.warning(
        "rendering with the slow torch reference: backend %r is not available: %s. %s", name, reason, remedy(name)
    )
