"""Noise that lets faint Gaussians explore space, in the shape of their own covariance."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.checks import Dims
from scene3d.ops import cuda_call, quaternions

try:
    from scene3d import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]

SLOPE = 100.0  # Noise fades out from opacity 0.005 upwards with this slope.
FAINT = 0.005


def mcmc_noise_(
    means: Tensor,
    quats: Tensor,
    log_scales: Tensor,
    opacity_logits: Tensor,
    scale: float,
    seed: int,
    step: int,
) -> None:
    """Move centres in place: means += R S S R^T z · scale · sigmoid(100 (0.005 - opacity)), z standard normal.

    The same seed, step and row give the same z, whatever the number of rows and threads. Rows that are not finite, or
    have a zero quaternion, stay where they are.

    Args:
        means: Centres, contiguous. [N, 3]
        quats: wxyz, any non-zero length. [N, 4]
        log_scales: [N, 3]
        opacity_logits: [N]
        scale: Factor on the covariance: learning rate and noise strength.
        seed: Of the run, 0 to 2^64 - 1.
        step: Of the run, 0 to 2^64 - 1.

    Kheradmand et al. 2024, equation 8. float32 takes a native path, on CPU and GPU with the same numbers up to
    rounding; torch draws others.
    """
    dims = Dims()
    dims.check("means", means, "N 3")
    dims.check("quats", quats, "N 4", means.dtype)
    dims.check("log_scales", log_scales, "N 3", means.dtype)
    dims.check("opacity_logits", opacity_logits, "N", means.dtype)
    if not means.is_contiguous():
        raise ValueError("means: expected a contiguous tensor, it is changed in place. Use .contiguous()")
    means, quats, log_scales, opacity_logits = (t.detach() for t in (means, quats, log_scales, opacity_logits))
    if cuda_call.takes(means, quats, log_scales, opacity_logits):
        stream = cuda_call.begin(cuda_call.module, means.device)
        arrays = (quats.contiguous(), log_scales.contiguous(), opacity_logits.contiguous())
        cuda_call.module.mcmc_noise(means, *arrays, scale, seed, step, stream)
        return
    if _cpu is None or means.device.type != "cpu" or means.dtype != torch.float32:
        means += _torch_noise(quats, log_scales, opacity_logits, scale, seed, step)
        return
    _cpu.mcmc_noise(means, quats.contiguous(), log_scales.contiguous(), opacity_logits.contiguous(), scale, seed, step)


def _torch_noise(
    quats: Tensor, log_scales: Tensor, opacity_logits: Tensor, scale: float, seed: int, step: int
) -> Tensor:  # [N, 3]
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
    z = torch.randn(len(quats), 3, generator=generator, dtype=torch.float64).to(quats)
    rotmats = quaternions.to_rotmat(quats)
    along = (rotmats * z[:, :, None]).sum(dim=1) * (2 * log_scales).exp()
    gate = torch.sigmoid(SLOPE * (FAINT - opacity_logits.sigmoid()))
    shift = (rotmats * along[:, None, :]).sum(dim=2) * (gate * scale)[:, None]
    is_good = shift.isfinite().all(dim=1, keepdim=True) & (quats != 0).any(dim=1, keepdim=True)
    return torch.where(is_good, shift, torch.zeros_like(shift))
