"""The photometric loss of splatting: L1 mixed with structural dissimilarity, and its gradient, in one native call.

With weights w, d = |rgb - target| and s = SSIM, all per pixel and channel (window 11x11, sigma 1.5, zeros beyond the
border), the loss is

    (1 - ssim_lambda) Σ w d / Σ w + ssim_lambda (1 - Σ w s / Σ w)

and 0 where Σ w is 0. A pixel of weight 0 adds nothing of its own, but SSIM windows of its neighbours still see it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene3d.core.checks import Dims
from scene3d.ops import cuda_call
from scene3d.ops.image import ssim_map

try:
    from scene3d import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]


@dataclass(frozen=True)
class LossParts:
    """The loss and what it is mixed from.

    Attributes:
        loss: Scalar, differentiable in rgb.
        l1: Weighted mean absolute difference.
        ssim: Weighted mean structural similarity.
    """

    loss: Tensor
    l1: float
    ssim: float


def l1_ssim(rgb: Tensor, target: Tensor, weight: Tensor | None = None, ssim_lambda: float = 0.2) -> Tensor:
    """Mix L1 and 1 - SSIM.

    Args:
        rgb: Rendered image. [H, W, 3]
        target: Photo, float in [0, 1] or uint8. [H, W, 3]
        weight: Weight of each pixel, not negative; None counts all alike. [H, W]
        ssim_lambda: Share of 1 - SSIM.

    Returns:
        Scalar.

    Differentiable in rgb. Kerbl et al. 2023, equation 7. float32 takes a native path, everything else torch.
    """
    if cuda_call.takes(rgb) and rgb.numel() > 0:  # without waiting for the parts
        _check(rgb, target, weight)
        return _cuda_loss(rgb, target, weight, ssim_lambda)[0]
    return l1_ssim_parts(rgb, target, weight, ssim_lambda).loss


def l1_ssim_parts(rgb: Tensor, target: Tensor, weight: Tensor | None = None, ssim_lambda: float = 0.2) -> LossParts:
    """The same as `l1_ssim`, with its two parts."""
    _check(rgb, target, weight)
    is_cuda = cuda_call.takes(rgb)
    is_cpu = _cpu is not None and rgb.device.type == "cpu" and rgb.dtype == torch.float32
    if rgb.numel() == 0 or not (is_cuda or is_cpu):
        return _torch_parts(rgb, target, weight, ssim_lambda)
    if is_cuda:
        loss, parts = _cuda_loss(rgb, target, weight, ssim_lambda)
        _, l1, ssim = parts.tolist()
        return LossParts(loss, l1, ssim)
    target, weight = _as_native(target, weight)
    v_rgb = torch.empty_like(rgb, memory_format=torch.contiguous_format, requires_grad=False)
    value, l1, ssim = _cpu.l1_ssim(rgb.detach().contiguous(), target, weight, ssim_lambda, v_rgb)
    return LossParts(_KnownGradient.apply(rgb, rgb.new_tensor(value), v_rgb), l1, ssim)


def _as_native(target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if target.dtype != torch.uint8:
        target = target.detach().to(torch.float32)
    return target.contiguous(), None if weight is None else weight.detach().to(torch.float32).contiguous()


def _cuda_loss(rgb: Tensor, target: Tensor, weight: Tensor | None, ssim_lambda: float) -> tuple[Tensor, Tensor]:
    """The loss, and loss, l1 and ssim [3] on the device."""
    native = cuda_call.module
    target, weight = _as_native(target, weight)
    scratch = torch.empty(native.loss_scratch_floats(*rgb.shape[:2]), device=rgb.device)
    v_rgb = torch.empty_like(rgb, memory_format=torch.contiguous_format, requires_grad=False)
    parts = torch.empty(3, device=rgb.device)
    stream = cuda_call.begin(native, rgb.device)
    native.l1_ssim(rgb.detach().contiguous(), target, weight, ssim_lambda, scratch, v_rgb, parts, stream)
    return _KnownGradient.apply(rgb, parts[0], v_rgb), parts


class _KnownGradient(torch.autograd.Function):
    """A number whose derivative by rgb is known already."""

    @staticmethod
    def forward(ctx: Any, rgb: Tensor, value: Tensor, v_rgb: Tensor) -> Tensor:
        ctx.save_for_backward(v_rgb)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_loss: Tensor) -> tuple[Tensor | None, ...]:
        (v_rgb,) = ctx.saved_tensors
        return (
            # On a GPU looking at the factor would mean waiting for it.
            v_rgb if v_loss.device.type == "cpu" and v_loss.item() == 1.0 else v_rgb * v_loss,
            None,  # value
            None,  # v_rgb
        )


def _torch_parts(rgb: Tensor, target: Tensor, weight: Tensor | None, ssim_lambda: float) -> LossParts:
    target = target.to(rgb.dtype) / 255 if target.dtype == torch.uint8 else target.to(rgb.dtype)
    weights = rgb.new_ones(rgb.shape[:2]) if weight is None else weight.to(rgb.dtype)
    total = 3 * weights.sum()
    shares = torch.where(total > 0, weights / total, 0.0)[..., None]
    l1 = (shares * (rgb - target).abs()).sum()
    ssim = (shares * ssim_map(rgb, target)).sum() if rgb.numel() else rgb.sum()
    loss = (1 - ssim_lambda) * l1 + ssim_lambda * (3 * shares.sum() - ssim)
    return LossParts(loss, l1.item(), ssim.item())


def _check(rgb: Tensor, target: Tensor, weight: Tensor | None) -> None:
    dims = Dims()
    dims.check("rgb", rgb, "H W 3")
    dims.check("target", target, "H W 3")
    if weight is not None:
        dims.check("weight", weight, "H W")
    for name, value in (("target", target), ("weight", weight)):
        if value is not None and value.device != rgb.device:
            raise ValueError(f"{name}: expected device {rgb.device} like rgb, got {value.device}. Move it with .to()")
