"""The native CPU rasterizer: float32 tiled and threaded, float64 as plain loops for checking gradients.

A pixel is finished when its transmittance falls below 1e-4; the tiled code decides that for 4x4 pixels together, so a
finished pixel may take in up to 1e-4 more than the reference does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene3d.core.cameras import Cameras
from scene3d.core.errors import BackendUnavailable
from scene3d.core.gaussians import Gaussians
from scene3d.render.pinhole import Pinhole, native_arguments, pinhole
from scene3d.render.types import RasterSettings, RasterStats, Render, image_widths, render_of_images

try:
    from scene3d import _cpu
except ImportError as error:  # the reason is kept for whoever asks
    _cpu = None  # type: ignore[assignment]
    _import_error = str(error)


def why_unavailable() -> str | None:
    """None where the native module can be imported."""
    return None if _cpu is not None else f"the native module is not built ({_import_error})"


def native() -> Any:
    """The native module.

    Raises:
        BackendUnavailable: it is not built.
    """
    if _cpu is None:
        raise BackendUnavailable("cpu", why_unavailable() or "", "Install scene3d with its native code: pip install .")
    return _cpu


def call_settings(camera: Pinhole, settings: RasterSettings, degree: int) -> Any:
    """A camera and how to render it, as native code takes them. `degree` is that of the spherical harmonics."""
    return native().CallSettings(*native_arguments(camera, settings, degree))


def rasterize_arrays(
    gaussians: Gaussians, cameras: Cameras, settings: RasterSettings, masks: Tensor | None = None
) -> Render:
    """Render C views of one size. See `scene3d.render.rasterize.rasterize`."""
    return _rasterize(gaussians, cameras, settings, True, masks)


def rasterize_smooth(
    gaussians: Gaussians, cameras: Cameras, settings: RasterSettings, masks: Tensor | None = None
) -> Render:
    """The same in float64 and without cut-offs, so that finite differences hold. Plain loops: for small scenes."""
    return _rasterize(gaussians, cameras, settings, False, masks)


def _rasterize(
    gaussians: Gaussians, cameras: Cameras, settings: RasterSettings, cutoff: bool, masks: Tensor | None
) -> Render:
    native()  # raises where it is not built
    if masks is not None and (settings.with_depth or settings.with_normals):
        raise BackendUnavailable("cpu", "it renders no depth and no normals with masks", "Use the backend reference")
    if gaussians.dtype not in (torch.float32, torch.float64) or not (cutoff or gaussians.dtype == torch.float64):
        raise TypeError(
            f"means: expected float32, or float64 for checks, got {gaussians.dtype}. Use .to(torch.float32)"
        )
    call = _Call(gaussians, cameras, settings, cutoff)
    params = (p.contiguous() for p in gaussians.params().values())
    masks = None if masks is None else masks.contiguous()
    images = _Rasterize.apply(call, *params, cameras.viewmats, masks)
    stats = RasterStats(call.radii, call.grad2d, call.n_culled_nonfinite)
    return render_of_images(images, settings, stats, call.median_ids)


class _Call:
    """What forward and backward of one call share besides tensors that autograd tracks."""

    def __init__(self, gaussians: Gaussians, cameras: Cameras, settings: RasterSettings, cutoff: bool) -> None:
        n_views, n = len(cameras), len(gaussians)
        self.cutoff = cutoff
        self.width, self.height = cameras.width(), cameras.height()
        self.with_extra = settings.with_depth or settings.with_normals
        self.degree = gaussians.sh_degree if settings.sh_degree is None else settings.sh_degree
        self.views = [call_settings(pinhole(cameras, c), settings, self.degree) for c in range(n_views)]
        self.radii = torch.empty(n_views, n, dtype=gaussians.dtype)
        self.grad2d = torch.zeros(n_views, n, dtype=gaussians.dtype)
        # Native views of the tensors below; wrapping a tensor costs microseconds, and backward needs the same again.
        self.params: Any = None
        self.median_ids = torch.empty(0)
        self.images: list[Any] = []
        self.states: list[Any] = []
        self.n_culled_nonfinite = 0


def _images(call: _Call, dtype: torch.dtype) -> list[Tensor]:
    shape = (len(call.views), call.height, call.width)
    return [torch.empty(*shape, w, dtype=dtype) for w in image_widths(call.with_extra)]


def _native(name: str, dtype: torch.dtype) -> Any:
    return getattr(_cpu, name + ("32" if dtype == torch.float32 else "64"))


def _native_images(call: _Call, images: list[Tensor], median_ids: Tensor, c: int) -> Any:
    rgb, alpha, depth, median, normals = (image[c] for image in images)
    extra = (depth, normals, median, median_ids[c]) if call.with_extra else (None, None, None, None)
    return _native("Images", rgb.dtype)(rgb, alpha, *extra)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return a if b is None else b if a is None else a + b


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        call: _Call,
        means: Tensor,
        quats: Tensor,
        log_scales: Tensor,
        opacity_logits: Tensor,
        sh0: Tensor,
        shN: Tensor,
        viewmats: Tensor,
        masks: Tensor | None,
    ) -> tuple[Tensor, ...]:
        tensors = (means, quats, log_scales, opacity_logits, sh0, shN)
        dtype = means.dtype
        images = _images(call, dtype)
        median_ids = call.median_ids = torch.empty(
            images[2].shape[:3] if call.with_extra else (len(call.views), 0), dtype=torch.int32
        )
        params = call.params = _native("Params", dtype)(
            *(t.detach() for t in tensors), None if masks is None else masks.detach()
        )
        for c, view in enumerate(call.views):
            native_images = _native_images(call, images, median_ids, c)
            call.images.append(native_images)
            if dtype == torch.float32:
                state = _cpu.tiled_forward(view, params, native_images, call.radii[c])
                call.states.append(state)
                call.n_culled_nonfinite = max(call.n_culled_nonfinite, state.n_unsound)
            else:
                _cpu.plain_forward(view, params, call.cutoff, native_images, call.radii[c])
        if not any(ctx.needs_input_grad):
            call.states.clear()
        ctx.call = call
        ctx.save_for_backward(*tensors)
        # The native views hold `images`: autograd must mark other tensors, or the two would keep each other alive.
        return tuple(image.detach() for image in images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *v_images: Tensor) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        tensors = ctx.saved_tensors[:6]  # raises where one was changed since
        dtype = tensors[0].dtype
        wants_views = ctx.needs_input_grad[7]
        total: list[Tensor | None] = [None] * 6
        v_masks = torch.zeros(len(call.views), len(tensors[0]), dtype=dtype) if ctx.needs_input_grad[8] else None
        v_viewmats = torch.zeros(len(call.views), 4, 4, dtype=dtype) if wants_views else None
        v_all = [v.contiguous() for v in v_images] if call.with_extra else [v.contiguous() for v in v_images[:2]]
        for c, view in enumerate(call.views):
            grads: list[Tensor | None] = [torch.empty_like(t) for t in tensors]
            if call.degree == 0:
                grads[5] = None
            v_rgb, v_alpha, *v_extra = (v[c] for v in v_all)
            v_depth, v_median, v_normals = v_extra if call.with_extra else (None, None, None)
            upstream = _native("Upstream", dtype)(v_rgb, v_alpha, v_depth, v_normals, v_median)
            v_viewmat = v_viewmats[c] if v_viewmats is not None else None
            native_grads = _native("Grads", dtype)(
                *grads, v_viewmat, call.grad2d[c], None if v_masks is None else v_masks[c]
            )
            if dtype == torch.float32:
                _cpu.tiled_backward(call.states[c], view, call.params, call.images[c], upstream, native_grads)
            else:
                _cpu.plain_backward(view, call.params, call.cutoff, call.images[c], upstream, native_grads)
            total = grads if c == 0 else [_sum(a, b) for a, b in zip(total, grads, strict=True)]
        return (
            None,  # call
            *total,
            v_viewmats,
            None if v_masks is None else v_masks.sum(dim=0),
        )
