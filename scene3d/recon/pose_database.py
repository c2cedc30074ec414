"""What COLMAP's database says: verified pairs, coarse features, matches of every photo.

Runs beside pycolmap (see pose_mapping): nothing here may use Pillow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_COARSE_FEATURES = 256


def count_verified_pairs(database: Path) -> int:
    """Pairs of photos with geometrically consistent matches."""
    import pycolmap

    with pycolmap.Database.open(database) as opened:
        # COLMAP's own count includes pairs that were compared in vain.
        return sum(count > 0 for count in opened.read_two_view_geometry_num_inliers()[1])


def coarse_descriptors(database: Path, names: tuple[str, ...]) -> list[NDArray[np.uint8]]:
    """The descriptors of the N_COARSE_FEATURES largest features of every photo.

    Args:
        database: With features.
        names: Photos, as the database calls them.

    Returns:
        A table for every photo, empty where it has no features. Each [F, 128]
    """
    import pycolmap

    descriptors = []
    with pycolmap.Database.open(database) as opened:
        ids = {image.name: image.image_id for image in opened.read_all_images()}
        for name in names:
            if name not in ids or not opened.exists_descriptors(ids[name]):
                descriptors.append(np.zeros((0, 128), np.uint8))
                continue
            keypoints = opened.read_keypoints(ids[name])
            # Columns 2 to 5 are the affine shape; its determinant is the squared scale.
            scales = np.abs(keypoints[:, 2] * keypoints[:, 5] - keypoints[:, 3] * keypoints[:, 4])
            coarsest = np.argsort(-scales, kind="stable")[:N_COARSE_FEATURES]
            descriptors.append(opened.read_descriptors(ids[name]).data[coarsest])
    return descriptors


def match_facts(database: Path, own_names: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Features, and the partner with most verified matches, of every photo that COLMAP read.

    Args:
        database: With features and verified matches; a missing one gives nothing.
        own_names: From the names in the database to the photos' own.

    Returns:
        Own name -> n_features, best_inliers, best_partner.
    """
    import pycolmap

    facts: dict[str, dict[str, Any]] = {}
    if not database.exists():
        return facts
    with pycolmap.Database.open(database) as opened:
        names = {}
        for image in opened.read_all_images():
            names[image.image_id] = own_names[image.name]
            n_features = opened.num_keypoints_for_image(image.image_id)
            facts[own_names[image.name]] = {"n_features": n_features, "best_inliers": 0, "best_partner": ""}
        pair_ids, counts = opened.read_two_view_geometry_num_inliers()
    for pair_id, count in zip(pair_ids, counts, strict=True):
        a, b = (names[k] for k in pycolmap.pair_id_to_image_pair(pair_id))
        for name, partner in ((a, b), (b, a)):
            if count > facts[name]["best_inliers"]:
                facts[name] |= {"best_inliers": int(count), "best_partner": partner}
    return facts
