"""gsplat as a backend, where it is installed and a CUDA device is there.

Its images differ from ours where transmittance has fallen to 1e-4, and there is no median depth (None).
"""

from __future__ import annotations

import importlib.util
import weakref

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.ops import covariance
from scene3d.render import reference
from scene3d.render.types import RasterSettings, RasterStats, Render

DEVICE_TYPE = "cuda"


def why_unavailable() -> str | None:
    """Reason why gsplat cannot run here. Does not import it: that would compile its kernels."""
    if importlib.util.find_spec("gsplat") is None:
        return "gsplat is not installed"
    if not torch.cuda.is_available():
        return "no CUDA device"
    return None


def rasterize_arrays(gaussians: Gaussians, cameras: Cameras, settings: RasterSettings) -> Render:
    """Render C views of one size. See `scene3d.render.rasterize.rasterize`."""
    if gaussians.device.type != DEVICE_TYPE or gaussians.dtype != torch.float32:
        raise TypeError(
            f"backend 'gsplat': expected float32 on a CUDA device, got {gaussians.dtype} on {gaussians.device}. "
            "Convert it with .to('cuda', torch.float32)"
        )
    # gsplat passes numbers that are not finite on to the image.
    usable = gaussians.is_finite() & (gaussians.quats != 0).any(dim=1)
    rows = torch.nonzero(usable)[:, 0]
    kept = gaussians.select(rows)
    if len(kept) == 0:  # gsplat does not launch on nothing.
        return reference.rasterize_arrays(gaussians, cameras, settings)
    images, alpha, radii2d, means2d = _render_colors(kept, cameras, settings)
    background = torch.tensor(settings.background, device=alpha.device)
    stats = _stats(len(gaussians), rows, radii2d, means2d, settings.absgrad)
    return Render(
        rgb=images[..., :3] + (1 - alpha) * background,
        alpha=alpha,
        depth=images[..., 3:4] if settings.with_depth else None,
        median_depth=None,
        normals=_render_normals(kept, cameras, settings) if settings.with_normals else None,
        stats=stats,
    )


def _render_colors(
    gaussians: Gaussians, cameras: Cameras, settings: RasterSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    degree = gaussians.sh_degree if settings.sh_degree is None else settings.sh_degree
    colors = torch.cat([gaussians.sh0, gaussians.shN], dim=1)
    mode = "RGB+ED" if settings.with_depth else "RGB"
    return _call(gaussians, colors, degree, mode, cameras, settings)


def _render_normals(gaussians: Gaussians, cameras: Cameras, settings: RasterSettings) -> Tensor:
    axes = covariance.shortest_axes(gaussians.quats, gaussians.log_scales)
    offsets = gaussians.means - cameras.centers()[:, None, :]  # [C, N, 3]
    normals = torch.where((axes * offsets).sum(dim=2, keepdim=True) > 0, -axes, axes)
    return _call(gaussians, normals, None, "RGB", cameras, settings)[0]


def _call(
    gaussians: Gaussians, colors: Tensor, degree: int | None, mode: str, cameras: Cameras, settings: RasterSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images [C, H, W, D], alpha [C, H, W, 1], radii [C, N, 2] and means2d [C, N, 2]."""
    import gsplat

    images, alpha, meta = gsplat.rasterization(
        means=gaussians.means,
        quats=gaussians.quats,
        scales=gaussians.scales,
        opacities=gaussians.opacities,
        colors=colors,
        viewmats=cameras.viewmats,
        Ks=cameras.Ks,
        width=cameras.width(),
        height=cameras.height(),
        near_plane=settings.near_z,
        far_plane=settings.far,
        eps2d=settings.eps2d,
        sh_degree=degree,
        packed=False,
        render_mode=mode,
        absgrad=settings.absgrad,
        rasterize_mode="antialiased" if settings.antialiased else "classic",
    )
    return images, alpha, meta["radii"], meta["means2d"]


def _stats(n: int, rows: Tensor, radii2d: Tensor, means2d: Tensor, absgrad: bool) -> RasterStats:
    radii = torch.zeros(len(means2d), n, device=means2d.device)
    # gsplat before 1.5 gave one radius, since then one for x and one for y.
    radii[:, rows] = (radii2d if radii2d.ndim == 2 else radii2d.amax(dim=2)).to(radii.dtype)
    grad2d = torch.zeros_like(radii)
    tensor = weakref.ref(means2d)  # The hook lives on means2d: a plain reference would keep it for ever.

    def write(v_means2d: Tensor) -> None:
        # gsplat leaves the absolute gradient as an attribute; it sets it before this hook runs.
        v = getattr(tensor(), "absgrad", v_means2d) if absgrad else v_means2d
        grad2d[:, rows] = v.norm(dim=2)

    if means2d.requires_grad:
        means2d.register_hook(write)
    return RasterStats(radii, grad2d, n - len(rows))
