"""Gaussians from foreign files: infinities that mean something are made finite, rows that mean nothing are left out."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from scene3d.core.gaussians import Gaussians

log = logging.getLogger(__name__)

# sigmoid(20) is 1 and exp(-20) invisible in float32; both still have an ordinary gradient.
MAX_LOGIT = 20.0
MIN_LOG_SCALE = -20.0


def keep_finite(gaussians: Gaussians, path: Path) -> Gaussians:
    """Replace infinite opacity logits and scales of 0 by finite stand-ins; drop rows that are still not finite.

    A converter from 8-bit opacity writes logit(1) = inf, one for flat splats log(0) = -inf: both are meant. What
    is left out is counted in a warning. Finite Gaussians come back as they are, bit for bit.
    """
    if bool(gaussians.is_finite().all()):
        return gaussians
    logits, log_scales = gaussians.opacity_logits, gaussians.log_scales
    repaired = Gaussians(
        gaussians.means,
        gaussians.quats,
        torch.where(log_scales.isneginf(), torch.full_like(log_scales, MIN_LOG_SCALE), log_scales),
        torch.where(logits.isinf(), logits.sign() * MAX_LOGIT, logits),
        gaussians.sh0,
        gaussians.shN,
    )
    is_finite = repaired.is_finite()
    n_dropped = int((~is_finite).sum())
    if n_dropped:
        log.warning("%s: left out %d of %d Gaussians that hold NaN or infinity", path, n_dropped, len(gaussians))
    return repaired.select(is_finite)


def lossy_ready(gaussians: Gaussians, path: Path) -> Gaussians:
    """Gaussians for a format of few bits: float32, without rows that are not finite or have no rotation.

    Such rows are not drawn anywhere; in a quantized file they would spoil the range of all the others.
    """
    kept = keep_finite(gaussians.detach().to("cpu", torch.float32), path)
    has_rotation = (kept.quats != 0).any(dim=1)
    if bool(has_rotation.all()):
        return kept
    log.warning("%s: left out %d Gaussians whose quaternion is zero", path, int((~has_rotation).sum()))
    return kept.select(has_rotation)
