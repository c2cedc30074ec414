"""Fit Gaussians to a capture by gradient descent on its photos.

Same capture, first Gaussians and settings give the same bytes, for any number of threads, stopped and resumed or not.
Torch itself runs on one thread here: its sums depend on the number of threads, and the native code has its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from scene3d.core.capture import Capture
from scene3d.core.errors import CaptureError
from scene3d.core.gaussians import Gaussians
from scene3d.core.progress import Progress
from scene3d.core.push import Influence, Push
from scene3d.ops.threads import single_threaded_torch
from scene3d.recon import checkpoint, exposure, losses, pose_refine, schedule, strategy_default, strategy_mcmc
from scene3d.recon.densify import Clock, GradStats, is_refine_step
from scene3d.recon.depth_terms import with_depth_maps
from scene3d.recon.descent import Descent, Objective
from scene3d.recon.fit_state import FitState
from scene3d.recon.optim import with_sh_degree
from scene3d.recon.photos import PhotoStore
from scene3d.recon.scene_frame import scene_extent
from scene3d.recon.settings import FitSettings
from scene3d.recon.step import Outcome, Rates, View
from scene3d.recon.validate import Validation, validate
from scene3d.render.near import with_near
from scene3d.render.types import RasterSettings

LOG_EVERY = 50
CHECK_EVERY = 100  # Steps between searches for NaN and Inf: a pass over all parameters.
N_AHEAD = 3  # Photos decoded ahead of their step.
# Part of the run between sorts along a space-filling curve: Gaussians out of view then fill whole blocks of memory that
# a step never touches (reduction 15 % faster on a room of 30k).
REORDER_EVERY = 0.1
LOSS_WINDOW = 50  # Steps over which the loss shown is averaged.


@dataclass(frozen=True)
class LogLine:
    """A point of the curves of a run. Seconds are those of fitting, without evaluations."""

    step: int
    seconds: float
    loss: float
    n_gaussians: int
    scale: int
    psnr: float | None = None
    cc_psnr: float | None = None


@dataclass(frozen=True)
class FitResult:
    """What a fit gives.

    Attributes:
        gaussians: The scene, in the frame of the capture, as it is rendered.
        capture: The capture with refined poses, if they were refined.
        n_steps: Steps done.
        seconds: Time of fitting, without evaluations.
        is_finished: False when it was stopped before its end.
        n_dropped: Gaussians removed because a number was not finite.
        validation: Test views at the end.
        push: What a method did to the steps in the end.
    """

    gaussians: Gaussians
    capture: Capture
    n_steps: int
    seconds: float
    is_finished: bool
    n_dropped: int
    validation: Validation | None
    push: Push | None = None


@dataclass(frozen=True)
class Hooks:
    """What a run tells and asks while it goes on.

    Attributes:
        log: Takes points of the curves.
        validated: Takes measurements of the test views.
        should_stop: Asked after every step; True ends the run with a checkpoint.
        checkpoint: File of the checkpoint; None keeps none.
        resume: Go on from the checkpoint, where there is one.
        objective: What a method adds to the loss.
        influence: What a method does to the steps without a loss of its own.
        show: Called after every step with its number, the part of the run done, and a function that copies the
            Gaussians.
    """

    log: Callable[[LogLine], None] = lambda line: None
    validated: Callable[[Validation], None] = lambda validation: None
    should_stop: Callable[[], bool] = lambda: False
    checkpoint: Path | None = None
    resume: bool = True
    objective: Objective | None = None
    influence: Influence | None = None
    show: Callable[[int, float, Callable[[], Gaussians]], None] = lambda step, fraction, gaussians: None


def fit(capture: Capture, gaussians: Gaussians, settings: FitSettings, hooks: Hooks = Hooks()) -> FitResult:
    """Fit `gaussians` to the training photos of `capture`.

    Raises:
        CaptureError: nothing to fit to or to begin with.
        FormatError: the checkpoint to resume cannot be read or belongs to another run.
        OutputError: the checkpoint cannot be written.
    """
    if not capture.train:
        raise CaptureError(capture.source, "no training photos", "Keep at least one photo out of the test split")
    with single_threaded_torch():
        run = _Run(capture, gaussians, settings, hooks)
        return run.to_end()


class _Run:
    """One fit on its way: the state, and what does not change."""

    def __init__(self, capture: Capture, gaussians: Gaussians, settings: FitSettings, hooks: Hooks) -> None:
        self.capture, self.settings, self.hooks = capture, settings, hooks
        self.extent = scene_extent(capture.cameras.select(capture.train))
        self.photos = PhotoStore(capture)
        raster = RasterSettings(antialiased=settings.antialiased, absgrad=settings.strategy.absgrad)
        # From where a run begins, so that it stays the same throughout.
        self.raster = with_near(raster, gaussians.means, capture.cameras.select(capture.train))
        objective = with_depth_maps(hooks.objective, capture, settings)
        self.descent = Descent(settings, objective, hooks.influence is not None)
        self.state = self._first_state(gaussians)
        self.loss = math.nan
        self.validation: Validation | None = None

    def _first_state(self, gaussians: Gaussians) -> FitState:
        path = self.hooks.checkpoint
        if path is not None and self.hooks.resume and path.exists():
            return checkpoint.load(path, self.capture, self.settings).to(self.descent.device)
        finite = gaussians.select(gaussians.is_finite())
        if len(finite) == 0:
            raise CaptureError(self.capture.source, "no finite Gaussians to begin with", "Check the points or --init")
        state = FitState.start(self.capture, finite, self.settings, self.extent)
        state.n_dropped = len(gaussians) - len(finite)
        return state.to(self.descent.device)

    def to_end(self) -> FitResult:
        state, settings = self.state, self.settings
        stopped = False
        with Progress(settings.max_steps, "fitting") as progress:
            while state.fraction < 1 and not stopped:
                began = time.perf_counter()
                self.step()
                state.seconds += time.perf_counter() - began
                self._report(progress)
                stopped = self.hooks.should_stop()
                if stopped or state.fraction >= 1 or self._is_due(settings.checkpoint_every):
                    self._save()
        if state.fraction >= 1 and self.validation is None:
            # A finished run was resumed: nothing is left to do but to measure it.
            self.validation = validate(self._gaussians(), self.capture, settings, state.step, state.seconds)
        return FitResult(
            self._gaussians().to("cpu"),
            self._refined_capture(),
            state.step,
            state.seconds,
            state.fraction >= 1,
            state.n_dropped,
            self.validation,
            state.push,
        )

    def step(self) -> None:
        """One photo, one step of every optimizer, and density control where it is due."""
        state, settings = self.state, self.settings
        state.adam.raise_sh_degree(schedule.sh_degree_at(settings, state.fraction))
        position = state.next_view()
        scale = schedule.scale_at(settings.resolution, state.fraction, state.step)
        self.photos.prefetch([self.capture.train[i] for i in state.coming_views(N_AHEAD)], scale)
        if self.hooks.influence is not None:
            moved = state.adam.gaussians().detach()
            state.push = self.hooks.influence(moved, state.push, state.step, state.fraction)
            self._remove_unwanted()
        outcome = self._descend(position, scale)
        self._note_loss(outcome.loss)
        clock = Clock(state.step + 1, self._next_fraction(), state.fraction)
        if math.isfinite(outcome.loss):
            # What a method pushes belongs to the Gaussians as they stand.
            if state.push is None:
                self._control_density(clock)
                if clock.crosses(REORDER_EVERY):
                    state.reorder()
        else:
            state.n_skipped += 1
            self._drop_nonfinite()
        state.step, state.fraction = clock.step, clock.fraction
        if clock.step % CHECK_EVERY == 0 or clock.fraction >= 1:
            self._drop_nonfinite()

    def _next_fraction(self) -> float:
        return schedule.run_fraction(self.settings, self.state.step + 1, self.state.seconds)

    def _descend(self, position: int, scale: int) -> Outcome:
        state, settings = self.state, self.settings
        index = self.capture.train[position]
        background = losses.fit_background(settings.background, self.capture.has_alpha, state.generator)
        camera, delta = self.photos.camera(index, scale), None
        if state.poses is not None:
            delta = state.poses.leaf(position)
            camera = state.poses.move(camera, delta)
        view = View(
            index,
            camera,
            self.photos.target(index, scale),
            background,
            self._raster(scale, background),
            None if state.exposure is None else state.exposure.transforms[position],
            delta is not None,
        )
        strategy = settings.strategy
        rates = Rates(
            schedule.learning_rates(settings, state.fraction, self.extent),
            state.fraction,
            self.extent,
            strategy.name == "default" and state.fraction < strategy.refine_stop,
        )
        outcome = self.descent.step(state.adam, state.stats, view, rates, state.push)
        if state.poses is not None and delta is not None and outcome.v_viewmat is not None:
            camera.viewmats.backward(outcome.v_viewmat[None])
            if delta.grad is not None and math.isfinite(outcome.loss):
                lr = settings.pose_lr * pose_refine.LR_FINAL**state.fraction
                state.poses.step(position, delta.grad, lr)
        if state.exposure is not None and outcome.v_transform is not None and math.isfinite(outcome.loss):
            lr = exposure.LR * exposure.LR_FINAL**state.fraction
            state.exposure.step(position, outcome.v_transform, lr)
        return outcome

    def _raster(self, scale: int, background: losses.Color) -> RasterSettings:
        # The blur of pixels is smaller in reduced images: otherwise Gaussians that fit coarse images would be too thin
        # for fine ones. Half way to the blur of the whole image was best (0.3 dB on a room of 270x480).
        return replace(self.raster, background=background, eps2d=self.raster.eps2d / scale)

    def _control_density(self, clock: Clock) -> None:
        state, strategy = self.state, self.settings.strategy
        is_due = is_refine_step(strategy, clock)
        if strategy.name == "mcmc":
            if is_due:
                strategy_mcmc.refine(state.adam, strategy, clock, state.n_start, state.generator)
                state.stats = GradStats.zeros(len(state.adam), state.adam.device)
            if strategy.noise > 0 and clock.step % strategy.noise_every == 0:
                lr = schedule.learning_rates(self.settings, clock.fraction, self.extent)["means"]
                strategy_mcmc.explore(state.adam, strategy, lr, self.extent, self.settings.seed, clock.step)
            return
        if is_due:
            state.stats = strategy_default.refine(
                state.adam, state.stats, strategy, clock, self.extent, state.n_start, state.generator
            )
        if clock.fraction < strategy.refine_stop and clock.crosses(strategy.reset_every):
            strategy_default.reset_opacities(state.adam, strategy)

    def _remove_unwanted(self) -> None:
        state = self.state
        if state.push is None or state.push.keep is None:
            return
        # Something must stay to be shown.
        index = state.push.keep.nonzero()[:, 0] if bool(state.push.keep.any()) else torch.zeros(1, dtype=torch.long)
        state.adam.rearrange(index, torch.zeros(len(index), dtype=torch.bool))
        state.stats = state.stats.select(index)
        state.push = None

    def _drop_nonfinite(self) -> None:
        state = self.state
        keep = state.adam.drop_nonfinite()
        n_dropped = int((~keep).sum())
        if n_dropped:
            state.stats = state.stats.select(keep)
            state.push = None
            state.n_dropped += n_dropped
        if len(state.adam) == 0:
            raise CaptureError(
                self.capture.source, f"no finite Gaussian is left after step {state.step}", "Check the poses and photos"
            )

    def _note_loss(self, loss: float) -> None:
        if math.isfinite(loss):
            self.loss = loss if math.isnan(self.loss) else self.loss + (loss - self.loss) / LOSS_WINDOW

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.state.step % every == 0

    def _report(self, progress: Progress) -> None:
        state, settings = self.state, self.settings
        is_last = state.fraction >= 1
        if is_last or state.step in settings.eval_steps:
            result = validate(self._gaussians(), self.capture, settings, state.step, state.seconds)
            self.validation = result
            if result is not None:
                self.hooks.validated(result)
                progress.note(f"step {state.step}: {result.psnr:.2f} dB on {len(result.views)} test views")
            self._log(result)
        elif self._is_due(LOG_EVERY):
            self._log(None)
        self.hooks.show(state.step, state.fraction, lambda: self._gaussians().map(torch.clone))
        progress.update(state.step, loss=f"{self.loss:.4f}", gaussians=str(len(state.adam)))

    def _log(self, result: Validation | None) -> None:
        state = self.state
        scale = schedule.scale_at(self.settings.resolution, state.fraction, state.step)
        scores = (None, None) if result is None else (result.psnr, result.cc_psnr)
        self.hooks.log(LogLine(state.step, state.seconds, self.loss, len(state.adam), scale, *scores))

    def _gaussians(self) -> Gaussians:
        return with_sh_degree(self.state.shown(), self.settings.sh_degree)

    def _refined_capture(self) -> Capture:
        if self.state.poses is None:
            return self.capture
        train = list(self.capture.train)
        viewmats = self.capture.cameras.viewmats.clone()
        viewmats[train] = self.state.poses.moved(self.capture.cameras.select(train)).viewmats
        return replace(self.capture, cameras=replace(self.capture.cameras, viewmats=viewmats))

    def _save(self) -> None:
        if self.hooks.checkpoint is not None:
            began = time.perf_counter()
            checkpoint.save(self.hooks.checkpoint, self.state, self.capture, self.settings)
            self.state.seconds += time.perf_counter() - began
