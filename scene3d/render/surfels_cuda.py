"""Discs met by rays, by the CUDA kernels: float32. What is said of order and memory in cuda.py holds here too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene3d.core.cameras import Cameras
from scene3d.ops import cuda_call
from scene3d.render import cuda
from scene3d.render.discs import Discs, screen_gradient
from scene3d.render.types import RasterSettings, RasterStats

IMAGES = ("rgb", "normals", "alpha", "depth", "median", "distortion")
# Three more images hold what the way back needs.
WIDTHS = (3, 3, 1, 1, 1, 1, 1, 1, 1)


def blend(
    discs: Discs, camera: Cameras, settings: RasterSettings, unit: float, cutoff: bool = True, memory_limit: int = 0
) -> tuple[dict[str, Tensor], RasterStats]:
    """Images of one view; see surfels.blend_native. memory_limit as in cuda.rasterize_with.

    Raises:
        ValueError: without cut-offs, which only the CPU knows.
        TypeError: dtype or device differs.
        MemoryError: the lists of one row of tiles exceed the limit.
    """
    if not cutoff:
        raise ValueError("cutoff: expected True, the CUDA kernels have no images without cut-offs. Use the CPU")
    if not cuda_call.takes(*discs.tensors()):
        found = discs.rgb
        raise TypeError(f"discs: expected float32 on {cuda_call.device_type()}, got {found.dtype} on {found.device}")
    call = _Call(camera, settings, unit, discs, memory_limit)
    images = _Blend.apply(call, *(t.contiguous() for t in discs.tensors()))
    return dict(zip(IMAGES, images, strict=True)), RasterStats(call.radii[None], call.grad2d[None])


class _Call:
    """What forward and backward share besides tensors."""

    def __init__(self, camera: Cameras, settings: RasterSettings, unit: float, discs: Discs, memory_limit: int) -> None:
        K = camera.Ks[0].tolist()
        self.size, self.device = (camera.height(), camera.width()), discs.rgb.device
        self.focal = (K[0][0], K[1][1])
        numbers = [K[0][0], K[1][1], K[0][2], K[1][2], settings.near_z, unit]
        width, height = camera.width(), camera.height()
        self.settings = cuda_call.module.SurfelSettings(
            numbers, width, height, torch.are_deterministic_algorithms_enabled(), cuda.list_limit(memory_limit)
        )
        self.memory = cuda_call.Memory(cuda_call.module, self.device)
        self.images = [torch.empty(*self.size, width, device=self.device).squeeze(2) for width in WIDTHS]
        self.radii, self.grad2d = torch.zeros(2, len(discs.opacities), device=self.device)
        self.state: Any = None


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, call: _Call, matrices: Tensor, opacities: Tensor, rgb: Tensor, normals: Tensor
    ) -> tuple[Tensor, ...]:
        tensors = (matrices, opacities, rgb, normals)
        stream = cuda_call.begin(cuda_call.module, call.device)
        call.state = cuda_call.module.surfels_forward(
            call.settings, [t.detach() for t in tensors], call.images, call.radii, call.memory.native(), stream
        )
        if not any(ctx.needs_input_grad):
            call.memory.free()
        ctx.call = call
        ctx.save_for_backward(*tensors)
        images = tuple(image.clone() for image in call.images[: len(IMAGES)])
        ctx.mark_non_differentiable(images[IMAGES.index("median")])
        return images

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *v_images: Tensor) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        tensors = [t.detach() for t in ctx.saved_tensors]
        upstream = [v.contiguous() for name, v in zip(IMAGES, v_images, strict=True) if name != "median"]
        grads = [torch.empty_like(t) for t in tensors]
        stream = cuda_call.begin(cuda_call.module, call.device)
        memory = cuda_call.Memory(cuda_call.module, call.device).native()
        cuda_call.module.surfels_backward(
            call.state, call.settings, tensors, call.images, upstream, grads, memory, stream
        )
        call.grad2d.copy_(screen_gradient(tensors[0], grads[0], call.focal, call.radii))
        return (None, *grads)  # call
