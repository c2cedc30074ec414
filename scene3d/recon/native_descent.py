"""Steps of fitting in one native call each, on the CPU or with CUDA: gradients of Gaussians never go to memory."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from scene3d.core.push import Push
from scene3d.ops import cuda_call
from scene3d.recon.densify import GradStats
from scene3d.recon.device_photos import DevicePhotos
from scene3d.recon.optim import ADAM_EPS, AdamState
from scene3d.recon.photos import on_device
from scene3d.recon.settings import FitSettings
from scene3d.recon.step import Outcome, Rates, View, half_size
from scene3d.render import cpu, cuda
from scene3d.render.pinhole import Pinhole, pinhole

NATIVE = ("cpu", "cuda")


class NativeDescent:
    """Takes the steps of one fit without an objective of its own.

    Args:
        backend: "cpu" or "cuda".
        device: Of the Gaussians.
        settings: Of the fit.
    """

    def __init__(self, backend: str, device: torch.device, settings: FitSettings) -> None:
        self._settings = settings
        self._is_cuda = backend == "cuda"
        self._module = cuda_call.module if self._is_cuda else cpu.native()
        # Wrapping twenty tensors for native code takes as long as a tenth of a step: done only when they are others.
        self._tensors: list[Tensor] = []
        self._arrays: Any = None
        self._shown: dict[str, Tensor] | None = None
        self._pinholes: dict[tuple[int, int], Pinhole] = {}
        self._photos = DevicePhotos(device)

    def takes(self, push: Push) -> bool:
        """Whether steps can be pushed so."""
        return self._is_cuda or push.masks is None

    def step(self, state: AdamState, stats: GradStats, view: View, rates: Rates, push: Push | None = None) -> Outcome:
        """One step; see `Descent.step`."""
        v_viewmat = torch.zeros(4, 4, device=state.device) if view.wants_viewmat else None
        v_transform = None if view.transform is None else torch.zeros(3, 4, device=state.device)
        target = self._photos.target(view)
        loss = self._wrapped(state, stats, push).step(
            self._call_settings(state, view),
            target.over(view.background),
            target.weight,
            self._settings.ssim_lambda,
            self._native_rates(state, view, rates),
            None if view.transform is None else on_device(view.transform, state.device),
            v_transform,
            v_viewmat,
            *(self._cuda_arguments(state, push) if self._is_cuda else (_added(state, push),)),
        )
        if math.isfinite(loss):
            state.n_steps += 1
        return Outcome(loss, *(None if v is None else v.cpu() for v in (v_viewmat, v_transform)))

    def _cuda_arguments(self, state: AdamState, push: Push | None) -> tuple[Any, ...]:
        stream = cuda_call.begin(self._module, state.device)
        return self._native_push(state, push), cuda_call.Memory(self._module, state.device).native(), stream

    def _native_push(self, state: AdamState, push: Push | None) -> Any:
        """What is added and hidden; the gradient of the masks will be in them after the step."""
        if push is None or (push.masks is None and not push.grads):
            return None
        added = [push.grads.get(name) for name in state.values] if push.grads else []
        if push.masks is None:
            return self._module.DescentPush(None, None, added)
        push.masks.grad = torch.zeros_like(push.masks)
        return self._module.DescentPush(push.masks.detach(), push.masks.grad, added)

    def _call_settings(self, state: AdamState, view: View) -> Any:
        camera = self._pinhole(view)
        if self._is_cuda:
            return cuda.call_settings(self._module, camera, view.raster, state.sh_degree)
        return cpu.call_settings(camera, view.raster, state.sh_degree)

    def _native_rates(self, state: AdamState, view: View, rates: Rates) -> Any:
        n, settings = max(len(state), 1), self._settings
        return self._module.DescentRates(
            [rates.lrs[name] for name in state.values],
            state.n_steps + 1,
            settings.lrs.beta1,
            settings.lrs.beta2,
            ADAM_EPS,
            settings.opacity_reg / n,
            settings.scale_reg / (3 * n * rates.extent),
            half_size(view.target.rgb) if rates.keeps_stats else 0.0,
        )

    def _pinhole(self, view: View) -> Pinhole:
        if view.wants_viewmat:
            return pinhole(view.camera)
        key = (view.index, view.target.rgb.shape[0])
        if key not in self._pinholes:
            self._pinholes[key] = pinhole(view.camera)
        return self._pinholes[key]

    def _wrapped(self, state: AdamState, stats: GradStats, push: Push | None) -> Any:
        tables = (state.values, state.exp_avg, state.exp_avg_sq)
        tensors = [*(tensor for table in tables for tensor in table.values()), stats.sums, stats.counts]
        is_same = len(tensors) == len(self._tensors) and all(
            a is b for a, b in zip(tensors, self._tensors, strict=True)
        )
        if not is_same or (push is None) != (self._shown is None):
            self._tensors = tensors
            arrays = [tensor.detach() for tensor in tensors]
            self._shown = (
                None if push is None else {name: value.detach().clone() for name, value in state.values.items()}
            )
            rendered = arrays[:6] if self._shown is None else list(self._shown.values())
            params = rendered if self._is_cuda else self._module.Params32(*rendered)
            self._arrays = self._module.Descent(params, arrays[:6], arrays[6:12], arrays[12:18], *arrays[18:])
        if push is not None and self._shown is not None:
            for name, shown in self._shown.items():
                offset = push.offsets.get(name)
                value = state.values[name].detach()
                shown.copy_(value) if offset is None else torch.add(value, offset, out=shown)
        return self._arrays


def _added(state: AdamState, push: Push | None) -> list[Tensor] | None:
    """Gradients that are added, by tensor; None where there are none."""
    if push is None or not push.grads:
        return None
    return [push.grads.get(name, torch.zeros_like(value)).detach() for name, value in state.values.items()]
