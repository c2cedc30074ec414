"""Fitting that knows of its codec: what the context codec of .s3d will do to a scene is done to it on the way.

Three stretches follow the growth of the scene. First, noise of the width of the codec's steps is added to what is
rendered, and the gradient of an entropy proxy to that of the photos. Then what is rendered is what the codec itself
leaves of the scene, coded anew every so many steps, the gradient going straight through. At last shapes stay as coded,
and opacities and colours alone go on. No network is needed to read the scene. After HAC (Chen et al. 2024) and
RDO-Gaussian (Wang et al. 2024), with explicit splats in place of anchors and codebooks.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from scene3d.compress.aware_settings import AwareSettings, TrainingViews
from scene3d.compress.judge import Judge
from scene3d.compress.rate import noise_offsets, number_steps, rate_grads
from scene3d.compress.rounding import Rounded, recolored, round_scene
from scene3d.compress.sensitivity import Sensitivity, measure_sensitivity, with_prior
from scene3d.core.gaussians import Gaussians
from scene3d.core.push import Push
from scene3d.io.s3d_container import Container

logger = logging.getLogger(__name__)

SHAPES = ("means", "quats", "log_scales")
# What the photos tell about a splat may be less than what other views show of it.
PRIOR_SHARE = 0.05
SEARCH_STEPS = 6
FIRST_DISTORTION, FINEST, COARSEST = 1e-10, 1e-16, 1e-6
# Octaves of the goal within which a distortion is good enough.
NEAR = 0.03


@dataclass(frozen=True)
class AwareFit:
    """The influence on one fit.

    Attributes:
        settings: The stretches and their weights.
        views: By which sensitivities are measured and coding is judged.
        seed: Of the noise.
    """

    settings: AwareSettings
    views: TrainingViews
    seed: int

    def influence(self, gaussians: Gaussians, push: Push | None, step: int, fraction: float) -> Push | None:
        """As a fit takes it."""
        settings = self.settings
        if fraction < settings.noise_from:
            return None
        if push is not None and push.fixed:
            return self._recolored_push(gaussians, push) if step % settings.plan_every == 0 else push
        if fraction >= settings.shapes_until:
            return self._rounded_push(gaussians, push, SHAPES)
        if fraction >= settings.round_from:
            is_due = push is None or "rounded" not in push.memory or step % settings.plan_every == 0
            return self._rounded_push(gaussians, push, ()) if is_due else push
        is_due = push is None or step % settings.noise_every == 0
        return self._noise_push(gaussians, push, step) if is_due else push

    def finish(self, gaussians: Gaussians, push: Push | None) -> Container:
        """The file; `gaussians` are those that are shown. Runs may be too short for any push."""
        return self.rounded(gaussians, push).container

    def rounded(self, gaussians: Gaussians, push: Push | None) -> Rounded:
        """The coded scene after the last step."""
        if push is None:
            return self._distortion(gaussians, self._sensitivity(gaussians), None)
        if not push.fixed:
            return round_scene(
                gaussians, self._sensitivity(gaussians), float(push.memory["distortion"]), self.views.info
            )
        return recolored(self._planned(push.memory), gaussians, self.views.info)

    def _noise_push(self, gaussians: Gaussians, push: Push | None, step: int) -> Push:
        if push is None or step % self.settings.plan_every == 0:
            sensitivity = self._sensitivity(gaussians)
            distortion = self._distortion(gaussians, sensitivity, push).distortion
        else:
            sensitivity, distortion = _sensitivity_of(push.memory), float(push.memory["distortion"])
        steps = number_steps(gaussians, sensitivity, distortion)
        generator = torch.Generator().manual_seed(self.seed + 7919 * step)
        grads = rate_grads(gaussians, steps, self.settings.rate_weight * distortion)[1]
        return Push(noise_offsets(gaussians, steps, generator), grads, (), _memory(distortion, sensitivity))

    def _rounded_push(self, gaussians: Gaussians, push: Push | None, fixed: tuple[str, ...]) -> Push:
        sensitivity = self._sensitivity(gaussians)
        rounded = self._distortion(gaussians, sensitivity, push)
        steps = number_steps(gaussians, sensitivity, rounded.distortion)
        grads = rate_grads(gaussians, steps, self.settings.rate_weight * rounded.distortion)[1]
        memory = _memory(rounded.distortion, sensitivity) | {"rounded": torch.ones(())}
        if fixed:
            memory |= {f"planned.{name}": value.clone() for name, value in gaussians.params().items()}
        return Push(rounded.offsets(gaussians), grads, fixed, memory)

    def _recolored_push(self, gaussians: Gaussians, push: Push) -> Push:
        """Shapes as they were coded; opacities and colours as they are coded now."""
        rounded = recolored(self._planned(push.memory), gaussians, self.views.info)
        offsets = rounded.offsets(gaussians)
        return replace(
            push, offsets={name: push.offsets[name] if name in SHAPES else offsets[name] for name in offsets}
        )

    def _sensitivity(self, gaussians: Gaussians) -> Sensitivity:
        measured = measure_sensitivity(gaussians, self.views.cameras, self.views.raster)
        return with_prior(measured, gaussians, PRIOR_SHARE)

    def _planned(self, memory: dict[str, Tensor]) -> Rounded:
        names = [f.name for f in fields(Gaussians)]
        gaussians = Gaussians(**{name: memory[f"planned.{name}"] for name in names})
        return round_scene(gaussians, _sensitivity_of(memory), float(memory["distortion"]), self.views.info)

    def _distortion(self, gaussians: Gaussians, sensitivity: Sensitivity, push: Push | None) -> Rounded:
        """The scene coded at the distortion that meets the goal."""
        judge = self.views.judge(gaussians)
        distortion = FIRST_DISTORTION if push is None else float(push.memory["distortion"])
        best: tuple[float, Rounded] | None = None
        for _ in range(SEARCH_STEPS):
            rounded = round_scene(gaussians, sensitivity, distortion, self.views.info)
            excess = self._excess(rounded, judge)
            if best is None or abs(excess) < best[0]:
                best = abs(excess), rounded
            if abs(excess) < NEAR or not FINEST < distortion < COARSEST:
                break
            distortion *= 2.0 ** -max(-6.0, min(6.0, excess))
        assert best is not None
        logger.debug("distortion %.3g: %d bytes", best[1].distortion, best[1].size_bytes)
        return best[1]

    def _excess(self, rounded: Rounded, judge: Judge) -> float:
        """Octaves of distortion beyond the goal, about."""
        if self.settings.target_bytes is not None:
            # A splat of so many numbers loses about half a bit each with an octave of distortion.
            return -4 * math.log2(rounded.size_bytes / self.settings.target_bytes)
        scene_psnr = judge.scene_psnr()
        assert scene_psnr is not None
        wanted = scene_psnr - 10 * math.log10(10 ** (self.settings.drop_db / 10) - 1)
        return (wanted - judge.verdict(rounded.decoded()).fidelity_db) / 3.0


def _memory(distortion: float, sensitivity: Sensitivity) -> dict[str, Tensor]:
    table = {f"sensitivity.{f.name}": getattr(sensitivity, f.name) for f in fields(Sensitivity)}
    return table | {"distortion": torch.tensor(distortion, dtype=torch.float64)}


def _sensitivity_of(memory: dict[str, Tensor]) -> Sensitivity:
    return Sensitivity(**{f.name: memory[f"sensitivity.{f.name}"] for f in fields(Sensitivity)})
