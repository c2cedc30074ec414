"""The one way from Gaussians and cameras to images."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.checks import Dims
from scene3d.core.gaussians import Gaussians
from scene3d.render import backends
from scene3d.render.near import with_near
from scene3d.render.types import RasterSettings, Render


def rasterize(
    gaussians: Gaussians,
    cameras: Cameras,
    settings: RasterSettings = RasterSettings(),  # noqa: B008 - frozen
    backend: str = "auto",
    masks: Tensor | None = None,
) -> Render:
    """Render C views of Gaussians.

    Args:
        gaussians: The scene; all tensors of one floating dtype on one device.
        cameras: The views, all of one size; same dtype, and device unless they are on the CPU.
        settings: How to render.
        backend: "auto", "cpu", "cuda", "gsplat" or "reference". Only the reference takes other dtypes than float32.
        masks: Factors on what each Gaussian covers of a pixel, 0 to 1, None = 1. Those whose mask is 0 are not seen,
            but their masks have the gradient of being seen (MaskGaussian, Liu et al. 2025, equation 8). [N]

    Returns:
        Images [C, H, W, ...] and statistics [C, N]; stats.grad2d is filled by backward.

    Differentiable in every tensor of gaussians, in cameras.viewmats and in masks. Kerbl et al. 2023.

    Raises:
        TypeError: dtype or device differs.
        ValueError: a size or setting is out of range.
        BackendUnavailable: the backend asked for does not run here.
    """
    _check_tensors(gaussians, cameras)
    _check_cameras(cameras)
    settings = with_near(settings, gaussians.means, cameras)
    _check_settings(settings, gaussians.sh_degree)
    name = backends.choose(backend, gaussians.device, gaussians.dtype)
    # The CUDA code reads cameras on the CPU: from elsewhere it would have to wait for them.
    if name != "cuda" and cameras.viewmats.device != gaussians.device:
        cameras = cameras.to(gaussians.device)
    if masks is None:
        return backends.load(name).rasterize_arrays(gaussians, cameras, settings)
    dims = Dims()
    dims.check("means", gaussians.means, "N 3")
    dims.check("masks", masks, "N", gaussians.dtype)
    return backends.load_masking(name).rasterize_arrays(gaussians, cameras, settings, masks)


def _check_tensors(gaussians: Gaussians, cameras: Cameras) -> None:
    means = gaussians.means
    if not isinstance(means, Tensor) or not means.is_floating_point():
        raise TypeError(f"means: expected a floating dtype, got {means.dtype}. Convert it with .to(torch.float32)")
    dims = Dims()
    shapes = {
        "means": "N 3",
        "quats": "N 4",
        "log_scales": "N 3",
        "opacity_logits": "N",
        "sh0": "N 1 3",
        "shN": "N K-1 3",
    }
    for name, value in gaussians.params().items():
        dims.check(name, value, shapes[name], means.dtype)
        _check_device(name, value, means.device)
    dims.check("viewmats", cameras.viewmats, "C 4 4", means.dtype)
    dims.check("Ks", cameras.Ks, "C 3 3", means.dtype)
    for name, value in (("viewmats", cameras.viewmats), ("Ks", cameras.Ks)):
        if value.device.type != "cpu":
            _check_device(name, value, means.device)


def _check_device(name: str, value: Tensor, device: torch.device) -> None:
    if value.device != device:
        raise TypeError(f"{name}: expected device {device} (that of means), got {value.device}. Move it with .to()")


def _check_cameras(cameras: Cameras) -> None:
    if len(cameras) == 0:
        raise ValueError("cameras: expected at least one view, got 0")
    sizes = cameras.sizes
    if bool((sizes < 1).any()):
        raise ValueError(f"sizes: expected at least 1 x 1 pixels, got {sizes.tolist()}")
    if bool((sizes != sizes[0]).any()):
        raise ValueError(
            f"sizes: expected one size for all views of a call, got {sizes.unique(dim=0).tolist()}. "
            "Call once per size, or use cameras.resized"
        )


def _check_settings(settings: RasterSettings, stored_degree: int) -> None:
    degree = settings.sh_degree
    if degree is not None and not 0 <= degree <= stored_degree:
        raise ValueError(f"sh_degree: expected 0 to {stored_degree}, the degree stored, got {degree}")
    if not 0 < settings.near_z <= settings.far:
        raise ValueError(f"near, far: expected 0 < near <= far, got {settings.near_z} and {settings.far}")
    if not settings.eps2d >= 0:
        raise ValueError(f"eps2d: expected 0 or more square pixels, got {settings.eps2d}")
    if len(settings.background) != 3:
        raise ValueError(f"background: expected 3 numbers, got {len(settings.background)}")
