"""One step of fitting on one photo: render, loss, gradients, Adam.

The native CPU code does all of it in one call. Every other backend, and every fit with an objective of its own, goes
through torch's autograd, which also is what the native step is tested against.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.recon import exposure, losses
from scene3d.recon.densify import GradStats
from scene3d.recon.optim import ADAM_EPS, AdamState
from scene3d.recon.photos import Target
from scene3d.recon.settings import FitSettings
from scene3d.render import backends, cpu
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings, Render

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Objective:
    """What a method adds to fitting. With one, a step goes through autograd.

    Attributes:
        shown: The Gaussians that are rendered instead of those that are moved, differentiable in them: quantized,
            masked. Takes also the fraction of the run that is done.
        penalty: Added to the loss, None for nothing. Takes the Gaussians shown, their render, the index of the photo in
            the capture and the fraction of the run that is done.
        stepped: Called after every step with the fraction of the run: the place for optimizers of other parameters.
        with_depth: Whether the render holds depth.
        with_normals: Whether the render holds normals.
    """

    shown: Callable[[Gaussians, float], Gaussians] = lambda gaussians, fraction: gaussians
    penalty: Callable[[Gaussians, Render, int, float], Tensor | None] = lambda gaussians, render, view, fraction: None
    stepped: Callable[[float], None] = lambda fraction: None
    with_depth: bool = False
    with_normals: bool = False


@dataclass(frozen=True)
class View:
    """One photo and how it is looked at.

    Attributes:
        index: Of the photo in the capture.
        camera: One camera of its size.
        target: The photo.
        background: Colour behind both.
        raster: How to render, `background` included.
        transform: Colours shown are A rgb + b; None = as rendered. [3, 4]
        wants_viewmat: Whether the gradient by the camera is needed.
    """

    index: int
    camera: Cameras
    target: Target
    background: losses.Color
    raster: RasterSettings
    transform: Tensor | None = None
    wants_viewmat: bool = False


@dataclass(frozen=True)
class Rates:
    """How far a step goes.

    Attributes:
        lrs: Step size of every Gaussian tensor.
        fraction: Part of the run that is done.
        extent: Of the scene, scene units.
        keeps_stats: Whether screen gradients are counted.
    """

    lrs: dict[str, float]
    fraction: float
    extent: float
    keeps_stats: bool


@dataclass(frozen=True)
class Outcome:
    """What a step gives back.

    Attributes:
        loss: Its value before the step. Where it is not finite, nothing has moved.
        v_viewmat: Gradient by the camera's viewmat, None unless wanted. [4, 4]
        v_transform: Gradient by the colour transform, None where there is none. [3, 4]
    """

    loss: float
    v_viewmat: Tensor | None = None
    v_transform: Tensor | None = None


class Descent:
    """Takes the steps of one fit.

    Args:
        settings: Of the fit.
        objective: What a method adds to the loss.

    Attributes:
        device: Where the Gaussians must be.
    """

    def __init__(self, settings: FitSettings, objective: Objective | None = None) -> None:
        self._settings = settings
        self._objective = objective
        # What methods add to the loss may hold tensors of the CPU: they go elsewhere only where that was asked for.
        is_open = settings.backend == "auto" and objective is None
        self.device = backends.device_for(settings.backend) if is_open or settings.backend != "auto" else _CPU
        self._is_native = objective is None and backends.choose(settings.backend, self.device) == "cpu"
        # Wrapping twenty tensors for native code takes as long as a tenth of a step: done only when they are others.
        self._tensors: list[Tensor] = []
        self._native: Any = None
        self._pinholes: dict[tuple[int, int], cpu.Pinhole] = {}

    def step(self, state: AdamState, stats: GradStats, view: View, rates: Rates) -> Outcome:
        """Move the Gaussians of `state` one step nearer to the photo, and count their screen gradients in `stats`."""
        if self._is_native:
            return _native_step(self._arrays(state, stats), self._pinhole(view), state, view, rates, self._settings)
        return _autograd_step(state, stats, view, rates, self._settings, self._objective or Objective())

    def _pinhole(self, view: View) -> cpu.Pinhole:
        if view.wants_viewmat:
            return cpu.pinhole(view.camera)
        key = (view.index, view.target.rgb.shape[0])
        if key not in self._pinholes:
            self._pinholes[key] = cpu.pinhole(view.camera)
        return self._pinholes[key]

    def _arrays(self, state: AdamState, stats: GradStats) -> Any:
        tables = (state.values, state.exp_avg, state.exp_avg_sq)
        tensors = [*(tensor for table in tables for tensor in table.values()), stats.sums, stats.counts]
        if len(tensors) != len(self._tensors) or any(a is not b for a, b in zip(tensors, self._tensors, strict=True)):
            self._tensors = tensors
            arrays = [tensor.detach() for tensor in tensors]
            params = cpu.native().Params32(*arrays[:6])
            self._native = cpu.native().Descent(params, arrays[:6], arrays[6:12], arrays[12:18], *arrays[18:])
        return self._native


def _half_size(rgb: Tensor) -> float:  # Pixels; makes screen gradients of all resolutions comparable.
    return 0.5 * math.sqrt(rgb.shape[0] * rgb.shape[1])


def _native_step(
    arrays: Any, pinhole: cpu.Pinhole, state: AdamState, view: View, rates: Rates, settings: FitSettings
) -> Outcome:
    n = max(len(state), 1)
    v_viewmat = torch.zeros(4, 4) if view.wants_viewmat else None
    v_transform = None if view.transform is None else torch.zeros(3, 4)
    native_rates = cpu.native().DescentRates(
        [rates.lrs[name] for name in state.values],
        state.n_steps + 1,
        settings.lrs.beta1,
        settings.lrs.beta2,
        ADAM_EPS,
        settings.opacity_reg / n,
        settings.scale_reg / (3 * n * rates.extent),
        _half_size(view.target.rgb) if rates.keeps_stats else 0.0,
    )
    loss = arrays.step(
        cpu.call_settings(pinhole, view.raster, state.sh_degree),
        view.target.over(view.background),
        view.target.weight,
        settings.ssim_lambda,
        native_rates,
        view.transform,
        v_transform,
        v_viewmat,
    )
    if math.isfinite(loss):
        state.n_steps += 1
    return Outcome(loss, v_viewmat, v_transform)


def _autograd_step(
    state: AdamState, stats: GradStats, view: View, rates: Rates, settings: FitSettings, objective: Objective
) -> Outcome:
    camera, transform = view.camera, view.transform
    if view.wants_viewmat:
        viewmats = camera.viewmats.detach().clone().requires_grad_()
        camera = Cameras(viewmats, camera.Ks, camera.sizes, camera.names)
    if transform is not None:
        transform = transform.detach().to(state.device, copy=True).requires_grad_()
    gaussians = objective.shown(state.gaussians(), rates.fraction)
    raster = replace(view.raster, with_depth=objective.with_depth, with_normals=objective.with_normals)
    render = rasterize(gaussians, camera, raster, settings.backend)
    rgb = render.rgb[0] if transform is None else exposure.apply(render.rgb[0], transform)
    loss = losses.photometric(rgb, view.target.to(state.device), view.background, settings.ssim_lambda)
    penalty = objective.penalty(gaussians, render, view.index, rates.fraction)
    if penalty is not None:
        loss = loss + penalty
    loss.backward()
    value = loss.item()
    if not math.isfinite(value):
        state.forget_gradients()
        return Outcome(value)
    visible = (render.stats.radii[0] > 0).view(torch.uint8)
    if rates.keeps_stats:
        stats.add(render.stats, visible, _half_size(view.target.rgb))
    losses.add_regularizer_grads(state, settings, rates.extent)
    state.step(rates.lrs, (settings.lrs.beta1, settings.lrs.beta2), visible)
    objective.stepped(rates.fraction)
    v_viewmat = None if camera.viewmats.grad is None else camera.viewmats.grad[0]
    v_transform = None if transform is None or transform.grad is None else transform.grad.cpu()
    return Outcome(value, v_viewmat, v_transform)
