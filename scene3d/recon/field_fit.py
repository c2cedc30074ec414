"""Fit a radiance field to a capture by gradient descent on rays of its photos.

Same capture and settings give the same bytes, for any number of threads, stopped and resumed or not: random numbers
come from one generator, native code does not depend on threads, and torch runs on one.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scene3d.core.capture import Capture
from scene3d.core.errors import BackendUnavailable, CaptureError
from scene3d.core.fields import NETWORK_KINDS, Field
from scene3d.core.progress import Progress
from scene3d.core.scene import Scene
from scene3d.ops.occupancy import cell_centers, dilate, is_occupied, occupied_box
from scene3d.ops.threads import single_threaded_torch
from scene3d.recon import field_checkpoint
from scene3d.recon.field_adam import update
from scene3d.recon.field_bases import with_bases
from scene3d.recon.field_box import hull_cells
from scene3d.recon.field_leaves import leaf_nodes, refine, to_leaves, with_step
from scene3d.recon.field_losses import TV_EVERY, add_variation_grads, distance_grads, structure_grad
from scene3d.recon.field_mask import find_occupied
from scene3d.recon.field_rays import RayBatch, RayPool
from scene3d.recon.field_settings import FieldFitSettings
from scene3d.recon.field_space import Space, find_space
from scene3d.recon.field_state import FieldState, first_state, grid_sizes, resolution_of
from scene3d.recon.free_space import cells_to_fill
from scene3d.recon.losses import eval_background
from scene3d.recon.photos import on_device
from scene3d.recon.validate import Validation, validate_scene
from scene3d.render import backends
from scene3d.render.field_cpu import NativeField, shade_backward
from scene3d.render.field_device import native_decoder, native_field
from scene3d.render.field_march import shade

logger = logging.getLogger(__name__)

LOG_EVERY = 50
LOSS_WINDOW = 50  # Steps over which the loss shown is averaged.
# Rays that look for cells with matter, and the weight that a sample in one must have.
SEEN_RAYS, SEEN_WEIGHT = 400_000, 0.004
# Networks do not grow: until the first mask, samples are so many times as far apart.
EARLY_STEP = 2.5
# Opacity along one step below which a cell counts as empty in the end.
FINAL_ALPHA = 1e-3


@dataclass(frozen=True)
class FieldLogLine:
    """A point of the curves of a run. Seconds are those of fitting, without evaluations."""

    step: int
    seconds: float
    loss: float
    n_samples: int
    psnr: float | None = None


@dataclass(frozen=True)
class FieldHooks:
    """What a run tells and asks while it goes on; as for Gaussians.

    Attributes:
        log: Takes points of the curves.
        validated: Takes measurements of the test views.
        should_stop: Asked after every step; True ends the run with a checkpoint.
        checkpoint: File of the checkpoint; None keeps none.
        resume: Go on from the checkpoint, where there is one.
    """

    log: Callable[[FieldLogLine], None] = lambda line: None
    validated: Callable[[Validation], None] = lambda validation: None
    should_stop: Callable[[], bool] = lambda: False
    checkpoint: Path | None = None
    resume: bool = True


@dataclass(frozen=True)
class FieldFitResult:
    """What a fit gives.

    Attributes:
        field: In the frame of the capture.
        n_steps: Steps done.
        seconds: Time of fitting, without evaluations.
        is_finished: False when it was stopped before its end.
        n_bad: Gradient values that were not finite.
        validation: Test views at the end.
    """

    field: Field
    n_steps: int
    seconds: float
    is_finished: bool
    n_bad: int
    validation: Validation | None


def fit_field(
    capture: Capture, settings: FieldFitSettings, hooks: FieldHooks = FieldHooks(), first: FieldState | None = None
) -> FieldFitResult:
    """Fit a field to the training photos of `capture`.

    Args:
        capture: Photos.
        settings: How.
        hooks: What it tells on the way.
        first: State to begin with, changed in place; None begins with small random factors.

    Raises:
        CaptureError: nothing to fit to, or a box that misses the scene.
        FormatError: the checkpoint to resume cannot be read or belongs to another run.
        OutputError: the checkpoint cannot be written.
    """
    if not capture.train:
        raise CaptureError(capture.source, "no training photos", "Keep at least one photo out of the test split")
    with single_threaded_torch(), torch.no_grad():
        return _Run(capture, settings, hooks, first).to_end()


def field_device(settings: FieldFitSettings) -> torch.device:
    """Where the fit runs: on a GPU where its kernels were asked for.

    Raises:
        BackendUnavailable: they do not run here, or do not know the kind.
    """
    if settings.backend != "cuda":
        return torch.device("cpu")
    reason = backends.why_unavailable("cuda")
    if settings.kind in ("rbf", *NETWORK_KINDS):
        reason = "it knows no radial bases" if settings.kind == "rbf" else f"it knows no {settings.kind} fields"
    if settings.decoder == "sample":
        reason = "it knows no decoder of each sample"
    if reason is not None:
        raise BackendUnavailable("cuda", reason, "Use --backend cpu")
    return backends.device_for("cuda")


class _Run:
    """One fit on its way: the state, and what does not change."""

    def __init__(
        self, capture: Capture, settings: FieldFitSettings, hooks: FieldHooks, first: FieldState | None = None
    ) -> None:
        self.capture, self.settings, self.hooks = capture, settings, hooks
        self.device = field_device(settings)
        self.pool = RayPool(capture, self.device)
        self.state = self._first_state(first)
        if self.device.type != "cpu":
            self._leave_cpu()
        self.loss = math.nan
        self.n_samples = 0
        self.validation: Validation | None = None
        self._hand_over()
        if self.state.field.occupancy is not None:
            self._keep_hits(self.state.hit_step or self.state.field.step)

    def _leave_cpu(self) -> None:
        if self.state.field.warp is not None:
            raise BackendUnavailable(
                "cuda", "it knows no fields without bounds", "Use --backend cpu, or --field.space box"
            )
        self.state = self.state.to(self.device)

    def to_end(self) -> FieldFitResult:
        state, settings = self.state, self.settings
        stopped = False
        with Progress(settings.max_steps, "fitting", initial=state.step) as progress:
            while state.fraction < 1 and not stopped:
                began = time.perf_counter()
                self.step()
                state.seconds += time.perf_counter() - began
                self._report(progress)
                stopped = self.hooks.should_stop()
                every = settings.checkpoint_every
                if stopped or state.fraction >= 1 or (every > 0 and state.step % every == 0):
                    self._save()
        if state.fraction >= 1 and self.validation is None:
            self.validation = self._validate()
        state.settle()
        return FieldFitResult(
            state.field.to("cpu"), state.step, state.seconds, state.fraction >= 1, state.n_bad, self.validation
        )

    def step(self) -> None:
        """One batch of rays, one step of Adam, and changes of the grid where they are due."""
        state = self.state
        batch = self.pool.draw(self.settings.batch_rays, state.generator)
        value = self._descend(batch)
        if math.isfinite(value):
            self.loss = value if math.isnan(self.loss) else self.loss + (value - self.loss) / LOSS_WINDOW
        state.fraction = self._next_fraction()
        state.step += 1
        self._change_grid()

    def _descend(self, batch: RayBatch) -> float:
        """Forward, loss, and the way back; in the order in which autograd would call them, without it."""
        state, generator = self.state, self.state.generator
        jitter = self._random(len(batch.origins))
        sums = self.native.march(batch.origins, batch.directions, jitter, self.tape)
        self.n_samples = self.tape.n_samples
        decoder = native_decoder(state.field)
        colors = shade(decoder.decode, sums, batch.directions)
        background = self._background(len(batch.origins))
        target = batch.colors
        if batch.alpha is not None:
            target = target + (1 - batch.alpha[:, None]) * background
        error = colors + (1 - sums.opacity[:, None]) * background - target
        v_rgb = error * (2 / error.numel())
        if batch.weight is not None:
            v_rgb = v_rgb * batch.weight[:, None]
        loss = float((v_rgb * error).sum() / 2)
        if self.settings.s3im > 0:
            v_rgb = v_rgb + structure_grad(error + target, target, batch.weight, self.settings.s3im, generator)
        if not math.isfinite(loss):
            state.n_skipped += 1
            self._check_finite()
            return loss
        v, v_decoder = shade_backward(decoder, sums, batch.directions, v_rgb)
        v.opacity.sub_((v_rgb * background).sum(dim=1))
        if batch.distance is not None and self.settings.depth > 0:
            v_more, v_distance = distance_grads(sums, batch.distance, batch.weight, self.settings.depth)
            v.opacity.add_(v_more)
            v.distance.add_(v_distance)
        self.native.march_backward(self.tape, v, state.grads, state.marks, self._distortion(len(error)))
        if self.settings.tv > 0 and state.step % TV_EVERY == 0:
            add_variation_grads(state, self.settings.tv * TV_EVERY)
        update(state, self.settings, v_decoder)
        return loss

    def _distortion(self, n_rays: int) -> float:
        """Weight of the distortion of one ray, per scene unit."""
        low, high = self.state.field.box
        return self.settings.distortion / (n_rays * float((high - low).norm()))

    def _background(self, n: int) -> Tensor:  # [n, 3]
        name = self.settings.background
        is_open = self.state.field.warp is not None
        if name == "random" or (name == "auto" and (self.capture.has_alpha or is_open)):
            return self._random(n, 3)
        return torch.full((n, 3), 1.0 if name == "white" else 0.0, device=self.device)

    def _random(self, *shape: int) -> Tensor:
        """The same numbers on every device."""
        return on_device(torch.rand(*shape, generator=self.state.generator), self.device)

    def _next_fraction(self) -> float:
        settings = self.settings
        fraction = (self.state.step + 1) / settings.max_steps
        if settings.time_limit is not None:
            fraction = max(fraction, self.state.seconds / settings.time_limit)
        return min(fraction, 1.0)

    def _change_grid(self) -> None:
        state, settings = self.state, self.settings
        if state.fraction >= 1:
            self._tighten()
            return
        n_due = sum(at <= state.fraction for at in settings.mask_at)
        if state.n_masks < n_due and state.step >= settings.mask_after:
            self._mask()
            state.n_masks = n_due
        n_due = sum(at <= state.fraction for at in settings.grow_at)
        if state.n_growths < n_due and not self._waits_for_mask():
            self._grow(n_due)
            state.n_growths = n_due
            self._hand_over()

    def _waits_for_mask(self) -> bool:
        """In short runs growth would come first, and a fine grid that is sampled everywhere takes most of the time."""
        first_mask = min(self.settings.mask_after, self.settings.max_steps // 2)
        return bool(self.settings.mask_at) and self.state.n_masks == 0 and self.state.step < first_mask

    def _grow(self, n_due: int) -> None:
        state, settings = self.state, self.settings
        if settings.kind != "trivec":
            state.grow(resolution_of(state.field.box, grid_sizes(settings)[n_due - 1]), settings.step_in_voxels)
            if settings.kind == "rbf" and n_due == len(settings.grow_at):
                state.become(with_bases(state.field, settings, self.pool, state.generator))
            return
        if not state.field.levels:
            state.become(to_leaves(state.field, settings, state.generator))
        if state.field.levels[0].nodes < leaf_nodes(settings, n_due):
            state.become(refine(state.field, leaf_nodes(settings, n_due), settings.step_in_voxels))

    def _mask(self) -> None:
        """Find empty cells; the first time, also cut the box to what is left."""
        state = self.state
        cells = self._seen(find_occupied(state.field, self.settings.keep_cells))
        if state.n_masks == 0 and state.field.kind in ("vm", "cp"):
            old = state.field.box
            state.shrink(occupied_box(cells, old))
            centers = cell_centers((cells.shape[0], cells.shape[1], cells.shape[2]), state.field.box)
            cells = is_occupied(cells, old, centers)
        state.field = self._with_cells(cells)
        state.drop_leaves()
        self._hand_over()
        self._keep_hits(state.field.step)

    def _seen(self, cells: Tensor) -> Tensor:
        """Of a field without bounds, only cells that some photo shows: haze behind things would fill the others."""
        if self.state.field.warp is None:
            return cells
        native = NativeField(self.state.field)
        shape = (cells.shape[0], cells.shape[1], cells.shape[2])
        kept = cells & dilate(self.pool.seen_cells(native, shape, SEEN_RAYS, SEEN_WEIGHT))
        return kept if bool(kept.any()) else cells

    def _tighten(self) -> None:
        """In the end, leave out what is all but empty: whoever renders the field looks at fewer samples."""
        state = self.state
        cells = self._seen(find_occupied(state.field, self.settings.keep_cells, FINAL_ALPHA))
        state.field = self._with_cells(cells)
        state.drop_leaves()

    def _with_cells(self, cells: Tensor) -> Field:
        """The field with the cells that hold something. Samples of networks lie as near as they are to from now on."""
        field = replace(self.state.field, occupancy=cells)
        return with_step(field, self.settings.step_in_voxels) if field.has_network else field

    def _keep_hits(self, step: float) -> None:
        """Draw only rays that meet something. The step is kept, so that a resumed run finds the same rays."""
        self.state.hit_step = step
        self.pool.keep_hits(native_field(replace(self.state.field, step=step)))

    def _hand_over(self) -> None:
        # Tapes belong to the kind of native code: the two go together.
        self.native: Any = native_field(self.state.field, self.settings.march())
        self.tape = self.native.new_tape()

    def _first_state(self, first: FieldState | None) -> FieldState:
        path, settings = self.hooks.checkpoint, self.settings
        if path is not None and self.hooks.resume and path.exists():
            return field_checkpoint.load(path, self.capture, settings)
        if first is not None:
            return first
        space = find_space(self.capture, settings.space, settings.box, settings.near_radius, settings.seed)
        logger.info("%s", f"the field lives in {space.reason}")
        state = first_state(settings, space.box, self._first_cells(space), space.warp)
        if state.field.has_network:
            state.field = with_step(state.field, EARLY_STEP * settings.step_in_voxels)
        return state

    def _first_cells(self, space: Space) -> Tensor | None:
        """What may hold something, as far as silhouettes or points tell: None = all."""
        if space.warp is None and self.capture.has_alpha:
            return hull_cells(self.capture, space.box)
        # A frustum begins where the nearest points are.
        return None if space.is_frustum else cells_to_fill(self.capture, space.box, space.warp)

    def _check_finite(self) -> None:
        if not self.state.field.is_finite():
            raise CaptureError(
                self.capture.source,
                f"the field is not finite after step {self.state.step}",
                "Check the poses and photos, or use a smaller --field.lr-factors",
            )

    def _scene(self) -> Scene:
        return Scene(self.state.field)

    def _validate(self) -> Validation | None:
        background = eval_background(self.settings.background, self.capture.has_alpha)
        return validate_scene(self._scene(), self.capture, background, self.state.step, self.state.seconds)

    def _report(self, progress: Progress) -> None:
        state = self.state
        psnr = None
        if state.fraction >= 1 or state.step in self.settings.eval_steps:
            self.validation = self._validate()
            if self.validation is not None:
                psnr = self.validation.psnr
                self.hooks.validated(self.validation)
                progress.note(f"step {state.step}: {psnr:.2f} dB on {len(self.validation.views)} test views")
        if psnr is not None or state.step % LOG_EVERY == 0:
            self.hooks.log(FieldLogLine(state.step, state.seconds, self.loss, self.n_samples, psnr))
        shown = -10 * math.log10(max(self.loss, 1e-10)) if math.isfinite(self.loss) else math.nan
        nodes = "x".join(str(n) for n in state.field.resolution)
        progress.update(state.step, psnr=f"{shown:.2f}", grid=nodes, samples=f"{self.n_samples / 1e3:.0f}k")

    def _save(self) -> None:
        if self.hooks.checkpoint is not None:
            began = time.perf_counter()
            self.state.settle()
            field_checkpoint.save(self.hooks.checkpoint, self.state, self.capture, self.settings)
            self.state.seconds += time.perf_counter() - began
