"""Adam (Kingma and Ba 2015) over arrays whose rows are Gaussians; rows that are not visible stay untouched."""

from __future__ import annotations

import functools
import logging
import math

import torch
from torch import Tensor

from scene3d.ops import cuda_call

try:
    from scene3d import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)


def adam_step_(
    params: list[Tensor],
    grads: list[Tensor | None],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    lrs: list[float],
    step: int,
    visible: Tensor | None,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-15,
) -> int | Tensor:
    """One step on several arrays at once, in place: torch.optim.Adam's rule without weight decay.

    Args:
        params: Values, all of N rows and on one device. [N, ...]
        grads: Their gradients; an array without one is left alone. [N, ...]
        exp_avgs: Running means of the gradients. [N, ...]
        exp_avg_sqs: Running means of their squares. [N, ...]
        lrs: One step size per array.
        step: Number of this step, from 1 on, for the bias correction.
        visible: uint8 or bool; rows where it is 0 keep values and moments. None takes all. [N]
        betas: Decay of the two means.
        eps: Added to the root of the mean square. Gradients of a mean over pixels are tiny: 1e-8 would hide them.

    Returns:
        How many gradient values of the rows taken are not finite. They count as 0. From a GPU as a tensor [1], so that
        nothing waits for it.
    """
    _check(params, grads, exp_avgs, exp_avg_sqs, lrs, step, visible)
    rows = [row for row in zip(params, grads, exp_avgs, exp_avg_sqs, lrs, strict=True) if row[1] is not None]
    rows = [row for row in rows if row[0].numel() > 0]
    if not rows:
        return 0
    if cuda_call.takes(*(t for row in rows for t in row[:4])):
        return _cuda_step_(rows, step, visible, betas, eps)
    if any(t.device.type != "cpu" or t.dtype != torch.float32 for row in rows for t in row[:4]):  # type: ignore[union-attr]
        return _torch_step_(rows, step, visible, betas, eps)
    if _cpu is None:
        _warn_slow()
        return _torch_step_(rows, step, visible, betas, eps)
    values, gradients, means, squares, rates = (list(column) for column in zip(*rows, strict=True))
    mask = None if visible is None else visible.view(torch.uint8).contiguous()
    return _cpu.adam_step(
        [value.detach() for value in values],
        [gradient.contiguous() for gradient in gradients],
        means,
        squares,
        rates,
        step,
        mask,
        *betas,
        eps,
    )


@functools.cache
def _warn_slow() -> None:
    logger.warning("Adam runs in torch: the native module is not built. Install scene3d with pip install .")


def _cuda_step_(rows: list, step: int, visible: Tensor | None, betas: tuple[float, float], eps: float) -> Tensor:
    values, gradients, means, squares, rates = (list(column) for column in zip(*rows, strict=True))
    device = values[0].device
    n_bad = torch.zeros(1, dtype=torch.int32, device=device)
    stream = cuda_call.begin(cuda_call.module, device)
    cuda_call.module.adam_step(
        [value.detach() for value in values],
        [gradient.contiguous() for gradient in gradients],
        means,
        squares,
        rates,
        step,
        None if visible is None else visible.view(torch.uint8).contiguous(),
        *betas,
        eps,
        n_bad,
        stream,
    )
    return n_bad


@torch.no_grad()
def _torch_step_(rows: list, step: int, visible: Tensor | None, betas: tuple[float, float], eps: float) -> int:
    n_bad = 0
    keep = None if visible is None else visible.bool()
    for param, grad, exp_avg, exp_avg_sq, lr in rows:
        index = slice(None) if keep is None else keep
        chosen = grad[index]
        n_bad += int((~chosen.isfinite()).sum())
        chosen = torch.where(chosen.isfinite(), chosen, torch.zeros_like(chosen))
        m = exp_avg[index] * betas[0] + chosen * (1 - betas[0])
        v = exp_avg_sq[index] * betas[1] + chosen.square() * (1 - betas[1])
        denominator = v.sqrt() / math.sqrt(1 - betas[1] ** step) + eps
        exp_avg[index] = m
        exp_avg_sq[index] = v
        param[index] = param[index] - lr / (1 - betas[0] ** step) * m / denominator
    return n_bad


def _check(
    params: list[Tensor],
    grads: list[Tensor | None],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    lrs: list[float],
    step: int,
    visible: Tensor | None,
) -> None:
    lengths = [len(params), len(grads), len(exp_avgs), len(exp_avg_sqs), len(lrs)]
    if len(set(lengths)) != 1:
        raise ValueError(f"params: expected as many grads, exp_avgs, exp_avg_sqs and lrs, got {lengths}")
    if step < 1:
        raise ValueError(f"step: expected 1 or more, got {step}")
    n_rows = params[0].shape[0] if params else 0
    for i, row in enumerate(zip(params, grads, exp_avgs, exp_avg_sqs, strict=True)):
        for name, value in zip(("params", "grads", "exp_avgs", "exp_avg_sqs"), row, strict=True):
            if value is None:
                continue
            if value.shape != params[i].shape or value.shape[0] != n_rows:
                expected = [n_rows, *params[i].shape[1:]]
                raise ValueError(f"{name}[{i}]: expected shape {expected}, got {list(value.shape)}")
            if name != "grads" and not value.is_contiguous():
                raise ValueError(
                    f"{name}[{i}]: expected a contiguous tensor, it is changed in place. Use .contiguous()"
                )
    if visible is None:
        return
    if visible.dtype not in (torch.uint8, torch.bool):
        raise TypeError(f"visible: expected dtype torch.uint8 or torch.bool, got {visible.dtype}")
    if visible.shape != (n_rows,):
        raise ValueError(f"visible: expected shape [{n_rows}], got {list(visible.shape)}")
