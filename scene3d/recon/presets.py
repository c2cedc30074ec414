"""Presets: named functions from a capture to settings. Nothing in them depends on the speed of the machine, so that the
same command gives the same scene everywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from scene3d.core.capture import Capture
from scene3d.recon.settings import FitSettings, LearningRates, ResolutionSettings, StrategySettings

PresetName = Literal["fast", "balanced", "best"]

# Longer side of photos, pixels, where neither --data-factor nor --max-size is given.
MAX_SIZES: dict[PresetName, int] = {"fast": 640, "balanced": 960, "best": 1600}
# Of a fit for a small file, against the preset: Gaussians, steps, and the part of the time in which these grow until
# their number stays. Relocation and noise (mcmc) ended 1 dB below the default strategy at the same size.
CODEC_SHARE, CODEC_STEPS, CODEC_GROWN = 0.75, 2.4, 0.8
EVALUATED_AFTER = (0.05, 0.1, 0.2, 0.4, 0.7)  # Parts of the run; the end is always measured.


def preset_settings(name: PresetName, capture: Capture, max_steps: int | None = None) -> FitSettings:
    """The settings of a preset for a capture; max_steps replaces its number of steps, schedules follow."""
    presets = {"fast": fast, "balanced": balanced, "best": best}
    settings = presets[name](mean_pixels(capture), max_steps)
    return replace(settings, eval_steps=tuple(int(part * settings.max_steps) for part in EVALUATED_AFTER))


def fast(n_pixels: int, max_steps: int | None = None) -> FitSettings:
    """A good scene within a minute: few steps, the first ones at low resolution, few Gaussians."""
    return FitSettings(
        max_steps=2500 if max_steps is None else max_steps,
        sh_every=0.1,
        lrs=LearningRates(means=5e-4, log_scales=1e-2, shN=2.5e-4),
        strategy=StrategySettings(cap_max=_cap(n_pixels, 0.25, 60_000), reset_every=0),
        resolution=ResolutionSettings((4, 2), (0.15, 0.4)),
    )


def balanced(n_pixels: int, max_steps: int | None = None) -> FitSettings:
    """Most of the quality in minutes."""
    return FitSettings(
        max_steps=10_000 if max_steps is None else max_steps,
        sh_every=0.1,
        lrs=LearningRates(means=3e-4, shN=2.5e-4),
        strategy=StrategySettings(cap_max=_cap(n_pixels, 0.35, 200_000), reset_every=0),
        resolution=ResolutionSettings((4, 2), (0.1, 0.3)),
    )


def best(n_pixels: int, max_steps: int | None = None) -> FitSettings:
    """What the data gives, however long it takes."""
    n_steps = 30_000 if max_steps is None else max_steps
    # A reset of opacities costs a thousand steps to recover from.
    reset_every = 0.1 if n_steps >= 20_000 else 0.0
    return FitSettings(
        max_steps=n_steps,
        sh_every=0.05,
        strategy=StrategySettings(cap_max=_cap(n_pixels, 0.6, 1_000_000), reset_every=reset_every),
        resolution=ResolutionSettings((4, 2), (0.03, 0.1)),
    )


def for_codec(settings: FitSettings, grown_at: float) -> FitSettings:
    """The preset for fits that end in a small file: fewer Gaussians, each worth its bits, and more steps for them.

    Args:
        settings: Of a preset.
        grown_at: Fraction of the run after which the number of Gaussians stays.
    """
    strategy = replace(
        settings.strategy,
        cap_max=int(CODEC_SHARE * settings.strategy.cap_max),
        refine_stop=grown_at,
        grow_until=CODEC_GROWN * grown_at,
    )
    return replace(settings, max_steps=int(CODEC_STEPS * settings.max_steps), strategy=strategy)


def mean_pixels(capture: Capture) -> int:
    """Mean size of the training photos, pixels."""
    sizes = capture.cameras.sizes[list(capture.train)]
    return int(sizes.prod(dim=1).sum()) // max(len(sizes), 1)


def _cap(n_pixels: int, per_pixel: float, most: int) -> int:
    # More Gaussians than pixels teach nothing; below this, scenes larger than one view would starve.
    return max(20_000, min(most, int(n_pixels * per_pixel)))
