"""The native CUDA rasterizer: float32 on an NVIDIA GPU.

Sums over pixels are added by atomics, in no fixed order. torch.use_deterministic_algorithms(True) makes them ordered:
same input, same bytes, somewhat slower. Lists of (Gaussian, tile) pairs that would not fit into the memory that torch
may still take (see torch.cuda.set_per_process_memory_fraction) are made band by band.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene3d.core.cameras import Cameras
from scene3d.core.errors import BackendUnavailable
from scene3d.core.gaussians import Gaussians
from scene3d.ops import cuda_call
from scene3d.ops import memory_limit as memory_limits
from scene3d.render.pinhole import Pinhole, native_arguments, pinhole
from scene3d.render.types import RasterSettings, RasterStats, Render, image_widths, render_of_images

# Also short lists ask how much memory there is.
ASK = -1


def why_unavailable() -> str | None:
    """Reason why the native module cannot run here, None where it can."""
    if cuda_call.module is None:
        return "the CUDA module is not built"
    if cuda_call.module.DEVICE_TYPE == "cuda" and not torch.cuda.is_available():
        return "no CUDA device"
    return None


def call_settings(module: Any, camera: Pinhole, settings: RasterSettings, degree: int, memory_limit: int = 0) -> Any:
    """A camera and how to render it, as a given build of the kernels takes them; memory_limit as in rasterize_with."""
    is_ordered = torch.are_deterministic_algorithms_enabled()
    arguments = native_arguments(camera, settings, degree)
    return module.CallSettings(*arguments, is_ordered, list_limit(memory_limit))


def list_limit(wanted: int) -> int:
    """Bytes for the lists of one band as native calls take them: with a limit of the process, short lists ask too."""
    return ASK if wanted == 0 and memory_limits.memory_limit() is not None else wanted


def rasterize_arrays(
    gaussians: Gaussians, cameras: Cameras, settings: RasterSettings, masks: Tensor | None = None
) -> Render:
    """Render C views of one size. See `scene3d.render.rasterize.rasterize`."""
    reason = why_unavailable()
    if reason is not None:
        raise BackendUnavailable("cuda", reason, "Build scene3d with its CUDA module: see scene3d doctor")
    return rasterize_with(cuda_call.module, gaussians, cameras, settings, masks=masks)


def rasterize_with(
    module: Any,
    gaussians: Gaussians,
    cameras: Cameras,
    settings: RasterSettings,
    memory_limit: int = 0,
    masks: Tensor | None = None,
) -> Render:
    """Render with a given build of the kernels.

    Args:
        module: scene3d._cuda, or scene3d._cuda_emulated, which runs the same kernels on the host.
        gaussians: The scene, float32 on the module's device.
        cameras: The views; best on the CPU, where nothing has to wait for them.
        settings: How to render.
        memory_limit: Bytes for the lists of one band; 0 takes what is available.
        masks: See `scene3d.render.rasterize.rasterize`.

    Raises:
        TypeError: dtype or device differs.
        BackendUnavailable: depth or normals are asked for with masks.
        MemoryError: the lists of one row of tiles exceed the limit.
    """
    if gaussians.device.type != module.DEVICE_TYPE or gaussians.dtype != torch.float32:
        raise TypeError(
            f"backend 'cuda': expected float32 on {module.DEVICE_TYPE}, got {gaussians.dtype} on {gaussians.device}. "
            f"Convert it with .to('{module.DEVICE_TYPE}', torch.float32)"
        )
    if masks is not None and (settings.with_depth or settings.with_normals):
        raise BackendUnavailable("cuda", "it renders no depth and no normals with masks", "Use the backend reference")
    call = _Call(module, gaussians, cameras, settings, memory_limit)
    params = (p.contiguous() for p in gaussians.params().values())
    masks = None if masks is None else masks.contiguous()
    images = _Rasterize.apply(call, *params, cameras.viewmats, masks)
    stats = RasterStats(call.radii, call.grad2d, max(state.n_unsound for state in call.states))
    return render_of_images(images, settings, stats)


class _Call:
    """What forward and backward of one call share besides tensors that autograd tracks."""

    def __init__(
        self, module: Any, gaussians: Gaussians, cameras: Cameras, settings: RasterSettings, memory_limit: int
    ) -> None:
        n_views, n = len(cameras), len(gaussians)
        self.module, self.device = module, gaussians.device
        self.width, self.height = cameras.width(), cameras.height()
        self.with_extra = settings.with_depth or settings.with_normals
        self.degree = gaussians.sh_degree if settings.sh_degree is None else settings.sh_degree
        on_host = cameras.to("cpu")
        self.views = [
            call_settings(module, pinhole(on_host, c), settings, self.degree, memory_limit) for c in range(n_views)
        ]
        self.radii = torch.empty(n_views, n, device=self.device)
        self.grad2d = torch.zeros(n_views, n, device=self.device)
        self.memory = [cuda_call.Memory(module, self.device) for _ in range(n_views)]
        self.states: list[Any] = []

    def images(self, tensors: tuple[Tensor, ...] | list[Tensor], c: int) -> list[Tensor | None]:
        """The images of view c as native calls take them."""
        return [image[c] if k < 2 or self.with_extra else None for k, image in enumerate(tensors)]


def _new_images(call: _Call) -> list[Tensor]:
    shape = (len(call.views), call.height, call.width)
    return [torch.empty(*shape, w, device=call.device) for w in image_widths(call.with_extra)]


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
        params = (means, quats, log_scales, opacity_logits, sh0, shN, *(() if masks is None else (masks,)))
        tensors = [t.detach() for t in params]
        images = _new_images(call)
        stream = cuda_call.begin(call.module, call.device)
        for c, view in enumerate(call.views):
            memory = call.memory[c]
            state = call.module.raster_forward(
                view, tensors, call.images(images, c), call.radii[c], memory.native(), stream
            )
            call.states.append(state)
            if not any(ctx.needs_input_grad):
                memory.free()
        ctx.call, ctx.cameras_device, ctx.n_params = call, viewmats.device, len(params)
        ctx.save_for_backward(*params, *images)
        return tuple(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *v_images: Tensor) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        tensors = [t.detach() for t in ctx.saved_tensors[: ctx.n_params]]
        images = [t.detach() for t in ctx.saved_tensors[ctx.n_params :]]
        v_viewmats = torch.zeros(len(call.views), 4, 4, device=call.device) if ctx.needs_input_grad[7] else None
        v_masks = torch.zeros(len(call.views), len(tensors[0]), device=call.device) if ctx.n_params == 7 else None
        v_all = [v.contiguous() for v in v_images]
        total: list[Tensor | None] = [None] * 6
        stream = cuda_call.begin(call.module, call.device)
        for c, view in enumerate(call.views):
            grads: list[Tensor | None] = [torch.empty_like(t) for t in tensors[:6]]
            if call.degree == 0:
                grads[5] = None
            v_mask = None if v_masks is None else v_masks[c]
            outputs = [*grads, None if v_viewmats is None else v_viewmats[c], call.grad2d[c], v_mask]
            memory = cuda_call.Memory(call.module, call.device)
            rendered, upstream = call.images(images, c), call.images(v_all, c)
            call.module.raster_backward(
                call.states[c], view, tensors, rendered, upstream, outputs, memory.native(), stream
            )
            total = grads if c == 0 else [_sum(a, b) for a, b in zip(total, grads, strict=True)]
        return (
            None,  # call
            *total,
            None if v_viewmats is None else v_viewmats.to(ctx.cameras_device),
            None if v_masks is None else v_masks.sum(dim=0),
        )
