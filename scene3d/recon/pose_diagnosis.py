"""Why a photo has no pose: blur, exposure, nothing to see, or no overlap."""

from __future__ import annotations

from typing import Any

import numpy as np

from scene3d.recon.pose_photos import Photo
from scene3d.recon.pose_report import Unregistered

# Far below the registered photos' median sharpness, a photo is blurred (shake, focus).
BLURRED_SHARE = 0.3
FEW_FEATURES = 200
FEW_INLIERS = 30
DARK, BRIGHT = 25.0, 235.0


def diagnose(photos: list[Photo], registered: set[str], facts: dict[str, dict[str, Any]]) -> tuple[Unregistered, ...]:
    """Explain every photo without a pose.

    Args:
        photos: All usable photos.
        registered: Names of those with a pose.
        facts: Name -> n_features, best_inliers, best_partner (pose_database.match_facts).

    Returns:
        The unregistered photos in the order of `photos`.
    """
    sharp = [photo.sharpness for photo in photos if photo.name in registered]
    usual = float(np.median(sharp)) if sharp else float(np.median([photo.sharpness for photo in photos]))
    explained = []
    for photo in photos:
        if photo.name in registered:
            continue
        fact = facts.get(photo.name, {"n_features": 0, "best_inliers": 0, "best_partner": ""})
        cause = _cause(photo, usual, fact) if photo.name in facts else "COLMAP could not read it"
        explained.append(Unregistered(photo.name, cause=cause, **fact))
    return tuple(explained)


def _cause(photo: Photo, usual_sharpness: float, fact: dict[str, Any]) -> str:
    if photo.brightness < DARK:
        return "too dark"
    if photo.brightness > BRIGHT:
        return "overexposed"
    if photo.sharpness < BLURRED_SHARE * usual_sharpness:
        return f"blurred (sharpness {photo.sharpness:.0f}, usual {usual_sharpness:.0f})"
    if fact["n_features"] < FEW_FEATURES:
        return f"too little texture ({fact['n_features']} features)"
    if fact["best_inliers"] < FEW_INLIERS:
        return f"no overlap with other photos ({fact['best_inliers']} common points at most)"
    return f"shares {fact['best_inliers']} points with {fact['best_partner']}, but fits no common model"
