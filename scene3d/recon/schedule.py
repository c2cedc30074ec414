"""Schedules of a fit: what every number is at a fraction (0 to 1) of the run."""

from __future__ import annotations

from scene3d.recon.settings import FitSettings, ResolutionSettings

MAX_SH_DEGREE = 3


def run_fraction(settings: FitSettings, step: int, seconds: float) -> float:
    """Part of the run that is done after `step` steps and `seconds`: the clock counts where it is ahead."""
    by_steps = step / settings.max_steps
    by_clock = seconds / settings.time_limit if settings.time_limit else 0.0
    return min(1.0, max(by_steps, by_clock))


def learning_rates(settings: FitSettings, fraction: float, extent: float) -> dict[str, float]:
    """Step size of every Gaussian tensor; that of the means in scene units."""
    lrs = settings.lrs
    fade = lrs.decay**fraction
    return {
        "means": lrs.means * extent * lrs.means_final**fraction,
        "quats": lrs.quats * fade,
        "log_scales": lrs.log_scales * fade,
        "opacity_logits": lrs.opacity_logits * fade,
        "sh0": lrs.sh0 * fade,
        "shN": lrs.shN * fade,
    }


def sh_degree_at(settings: FitSettings, fraction: float) -> int:
    """Degree in use: one more after every `sh_every` of the run."""
    if settings.sh_every <= 0:
        return settings.sh_degree
    # The tiny shift keeps 3 * (1 / 30) and its like on the side that is meant.
    return min(settings.sh_degree, int(fraction / settings.sh_every + 1e-9))


def scale_at(resolution: ResolutionSettings, fraction: float, step: int = 0) -> int:
    """Divisor of the image size at a fraction of the run that has taken `step` steps."""
    limits = resolution.most_steps[: len(resolution.scales)]
    for scale, until, most in zip(resolution.scales, resolution.until, limits, strict=True):
        if fraction < until and step < most:
            return scale
    return 1
