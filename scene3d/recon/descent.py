"""One step of fitting on one photo: render, loss, gradients, Adam.

The native code of the CPU and of CUDA does all of it in one call. Every other backend, and every fit with an objective
of its own, goes through torch's autograd, which also is what the native step is tested against.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.core.push import Push
from scene3d.recon import exposure, losses
from scene3d.recon.densify import GradStats
from scene3d.recon.native_descent import NATIVE, NativeDescent
from scene3d.recon.optim import AdamState
from scene3d.recon.settings import FitSettings
from scene3d.recon.step import Outcome, Rates, View, half_size
from scene3d.render import backends
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
        rasterize: What renders instead of render.rasterize.rasterize: Gaussians, one camera, settings, backend. It has
            no masks.
    """

    shown: Callable[[Gaussians, float], Gaussians] = lambda gaussians, fraction: gaussians
    penalty: Callable[[Gaussians, Render, int, float], Tensor | None] = lambda gaussians, render, view, fraction: None
    stepped: Callable[[float], None] = lambda fraction: None
    with_depth: bool = False
    with_normals: bool = False
    rasterize: Callable[[Gaussians, Cameras, RasterSettings, str], Render] | None = None


class Descent:
    """Takes the steps of one fit.

    Args:
        settings: Of the fit.
        objective: What a method adds to the loss.
        is_pushed: Whether methods push, too.

    Attributes:
        device: Where the Gaussians must be.
    """

    def __init__(self, settings: FitSettings, objective: Objective | None = None, is_pushed: bool = False) -> None:
        self._settings = settings
        self._objective = objective
        # What methods add may hold tensors of the CPU: they go elsewhere only where that was asked for.
        is_open = settings.backend == "auto" and objective is None and not is_pushed
        self.device = backends.device_for(settings.backend) if is_open or settings.backend != "auto" else _CPU
        name = backends.choose(settings.backend, self.device)
        is_plain = objective is None and settings.s3im == 0
        self._native = NativeDescent(name, self.device, settings) if is_plain and name in NATIVE else None

    def step(self, state: AdamState, stats: GradStats, view: View, rates: Rates, push: Push | None = None) -> Outcome:
        """Move the Gaussians of `state` one step nearer to the photo, and count their screen gradients in `stats`."""
        if push is not None:
            rates = replace(rates, lrs={name: 0.0 if name in push.fixed else lr for name, lr in rates.lrs.items()})
        if self._native is not None and (push is None or self._native.takes(push)):
            return self._native.step(state, stats, view, rates, push)
        return _autograd_step(state, stats, view, rates, self._settings, self._objective or Objective(), push)


def _autograd_step(
    state: AdamState,
    stats: GradStats,
    view: View,
    rates: Rates,
    settings: FitSettings,
    objective: Objective,
    push: Push | None,
) -> Outcome:
    camera, transform = view.camera, view.transform
    if view.wants_viewmat:
        viewmats = camera.viewmats.detach().clone().requires_grad_()
        camera = Cameras(viewmats, camera.Ks, camera.sizes, camera.names)
    if transform is not None:
        transform = transform.detach().to(state.device, copy=True).requires_grad_()
    pushed = state.gaussians() if push is None else push.shown(state.gaussians())
    gaussians = objective.shown(pushed, rates.fraction)
    raster = replace(view.raster, with_depth=objective.with_depth, with_normals=objective.with_normals)
    if objective.rasterize is None:
        render = rasterize(gaussians, camera, raster, settings.backend, None if push is None else push.masks)
    else:
        render = objective.rasterize(gaussians, camera, raster, settings.backend)
    rgb = render.rgb[0] if transform is None else exposure.apply(render.rgb[0], transform)
    loss = losses.photometric(rgb, view.target.to(state.device), view.background, settings.ssim_lambda)
    if settings.s3im > 0:
        # Which pixels meet depends on the step alone, so that a resumed run goes on as it would have.
        generator = torch.Generator().manual_seed(settings.seed + round(rates.fraction * settings.max_steps))
        loss = loss + settings.s3im * losses.structure(rgb, view.target.to(state.device), view.background, generator)
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
        stats.add(render.stats, visible, half_size(view.target.rgb))
    losses.add_regularizer_grads(state, pushed, settings, rates.extent)
    if push is not None:
        for name, grad in push.grads.items():
            moved = state.values[name]
            moved.grad = grad.clone() if moved.grad is None else moved.grad.add_(grad)
    state.step(rates.lrs, (settings.lrs.beta1, settings.lrs.beta2), visible)
    objective.stepped(rates.fraction)
    v_viewmat = None if camera.viewmats.grad is None else camera.viewmats.grad[0]
    v_transform = None if transform is None or transform.grad is None else transform.grad.cpu()
    return Outcome(value, v_viewmat, v_transform)
