"""What structure from motion is run with: quality presets and the ladder of retries. Plain data, no pycolmap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Quality = Literal["fast", "balanced", "best"]
Matcher = Literal["auto", "exhaustive", "sequential"]
CameraModel = Literal["auto", "pinhole", "simple_radial", "opencv", "opencv_fisheye"]
Orient = Literal["up", "none"]

# All pairs up to here: 150 photos are 11,175 pairs, a few minutes on two cores.
EXHAUSTIVE_LIMIT = 150
# From this many photos of one camera on there is enough to fit four distortion coefficients.
OPENCV_FROM = 15

COLMAP_MODELS = {
    "pinhole": "PINHOLE",
    "simple_radial": "SIMPLE_RADIAL",
    "opencv": "OPENCV",
    "opencv_fisheye": "OPENCV_FISHEYE",
}


@dataclass(frozen=True)
class Recipe:
    """One attempt.

    Attributes:
        label: What is different about it, for the report.
        max_image_size: Longer side for feature extraction, pixels.
        max_features: Most features a photo.
        first_octave: 0 starts at the (reduced) photo, -1 at twice its size: four times the work, more small features.
        peak_threshold: Weakest contrast of a feature, 0 to 1.
        max_ratio: Largest ratio of best to second-best descriptor distance of a match.
        min_pair_inliers: Fewest verified matches of a pair.
        init_min_inliers: Fewest matches of the first pair.
        init_min_angle_deg: Smallest triangulation angle of the first pair, degrees.
        min_pose_inliers: Fewest points seen by a photo that is added.
        min_pose_ratio: Smallest share of points a photo's pose agrees with.
        has_fallback: Try poses from matches alone where points do not do; minutes a photo once thresholds are loose.
        is_dense: Match all pairs, however many photos there are.
        is_global: Global instead of incremental mapping.
    """

    label: str
    max_image_size: int
    max_features: int
    first_octave: int
    peak_threshold: float = 0.02 / 3
    max_ratio: float = 0.8
    min_pair_inliers: int = 15
    init_min_inliers: int = 100
    init_min_angle_deg: float = 16.0
    min_pose_inliers: int = 30
    min_pose_ratio: float = 0.25
    has_fallback: bool = True
    is_dense: bool = False
    is_global: bool = False


PRESETS: dict[str, Recipe] = {
    "fast": Recipe("fast", max_image_size=960, max_features=4096, first_octave=0),
    "balanced": Recipe("balanced", max_image_size=1600, max_features=8192, first_octave=0),
    "best": Recipe("best", max_image_size=3200, max_features=8192, first_octave=-1),
}


def ladder(quality: Quality, retry: bool) -> tuple[Recipe, ...]:
    """The attempts in order, each tried only where those before registered too few photos."""
    first = PRESETS[quality]
    if not retry:
        return (first,)
    more = replace(
        first,
        label="more features",
        max_image_size=max(1600, first.max_image_size * 3 // 2),
        max_features=max(8192, first.max_features * 3 // 2),
        first_octave=-1,
        peak_threshold=0.004,
    )
    relaxed = replace(
        more,
        label="relaxed thresholds",
        max_ratio=0.9,
        min_pair_inliers=12,
        init_min_inliers=40,
        init_min_angle_deg=6.0,
        min_pose_inliers=15,
        min_pose_ratio=0.15,
        has_fallback=False,
        is_dense=True,
    )
    return (first, more, relaxed, replace(relaxed, label="global mapper", is_global=True))


def colmap_camera_model(model: CameraModel, n_photos: int) -> str:
    """COLMAP's name of the camera model for a group of `n_photos` photos of one camera."""
    if model != "auto":
        return COLMAP_MODELS[model]
    return "OPENCV" if n_photos >= OPENCV_FROM else "SIMPLE_RADIAL"
