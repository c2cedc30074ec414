"""What structure from motion found, for people and for pose_report.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from scene3d.recon.pose_photos import LeftOut


@dataclass(frozen=True)
class Attempt:
    """One rung of the ladder.

    Attributes:
        label: What was tried.
        n_registered: Photos with a pose.
        n_points: Points of its largest model.
        n_verified_pairs: Pairs of photos with geometrically consistent matches.
        problem: Why there is no model; empty where there is one.
        n_models: Separate models found; more than one means that the photos fall apart into groups.
    """

    label: str
    n_registered: int
    n_points: int
    n_verified_pairs: int
    problem: str = ""
    n_models: int = 0


@dataclass(frozen=True)
class PosedCamera:
    """Intrinsics of one group of photos; `params` in COLMAP's order of `model`, pixels."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]
    has_prior_focal_length: bool
    n_photos: int


@dataclass(frozen=True)
class Unregistered:
    """A photo without a pose.

    Attributes:
        name: Below the photo folder.
        n_features: Found in it.
        best_inliers: Verified matches with the photo it shares most with.
        best_partner: That photo; empty where there is none.
        cause: Likely reason, a few words.
    """

    name: str
    n_features: int
    best_inliers: int
    best_partner: str
    cause: str


@dataclass(frozen=True)
class PoseReport:
    """The outcome of estimate_poses.

    Attributes:
        photos: Folder the photos were read from.
        photo_copies: True where images/ holds upright copies instead of a link to `photos`.
        n_photos: Usable photos.
        registered: Names of the photos with a pose, sorted.
        unregistered: Those without, and why.
        left_out: Broken photos, and why.
        attempts: The rungs tried, in order.
        cameras: Intrinsics.
        n_points: Points of the model.
        mean_reprojection_error: Pixels of the full-size photos.
        mean_track_length: Photos that see a point, on average.
        world_from_colmap: The transform from COLMAP's own frame to the written one. [4, 4]
        n_masks: Photos with a mask.
        notices: Sentences for the user.
        photos_sha256: Hash over names and contents of the usable photos.
        seconds: Wall time.
        versions: Of scene3d and pycolmap.
        settings: The settings it ran with.
    """

    photos: str
    photo_copies: bool
    n_photos: int
    registered: tuple[str, ...]
    unregistered: tuple[Unregistered, ...]
    left_out: tuple[LeftOut, ...]
    attempts: tuple[Attempt, ...]
    cameras: tuple[PosedCamera, ...]
    n_points: int
    mean_reprojection_error: float
    mean_track_length: float
    world_from_colmap: tuple[tuple[float, ...], ...]
    n_masks: int
    notices: tuple[str, ...]
    photos_sha256: str
    seconds: float
    versions: dict[str, str]
    settings: dict[str, Any]

    @property
    def n_registered(self) -> int:
        return len(self.registered)

    def to_json(self) -> dict[str, Any]:
        """Plain data, n_registered added for readers of the file."""
        return {"n_registered": self.n_registered, **asdict(self)}

    def summary(self) -> str:
        """One line: how many photos have a pose, and how good it is."""
        focal = ", ".join(f"{camera.params[0]:.1f}" for camera in self.cameras[:3])
        more = f" and {len(self.cameras) - 3} more" if len(self.cameras) > 3 else ""
        return (
            f"{self.n_registered}/{self.n_photos} photos posed, {self.n_points} points, "
            f"{self.mean_reprojection_error:.2f} px, focal {focal}{more} px, {self.seconds:.0f} s"
        )
