"""A mesh against the true one: distances from points spread over one surface to the nearest triangle of the other.

accuracy: mean distance from the mesh to the truth. completeness: from the truth to the mesh. chamfer: their mean.
precision and recall: shares of those points nearer than a threshold; F = 2 P R / (P + R). Distances are exact (point to
triangle), not capped, and nothing is aligned: a mesh in another frame is a wrong mesh. Given the training views, only
what at least one of them sees counts, of the truth and of the mesh alike: nobody can know the rest.

Others differ. DTU (Jensen et al. 2014) takes nearest points instead of triangles (0.2 mm apart), drops distances above
20 mm, and culls by masks of every view. Tanks and Temples (Knapitsch et al. 2017) aligns by ICP first, which hides
errors of pose, takes vertices and face centres as points, and thins both clouds to half of its threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.mesh import Mesh, face_normals
from scene3d.ops.triangles import closest_on_mesh, n_views_seeing, sample_surface, view_mesh

N_SAMPLES = 200_000
# The box around the truth grows by this share of its diagonal on every side before the mesh is cropped to it.
CROP_MARGIN = 0.05


@dataclass(frozen=True)
class CompareSettings:
    """How to measure.

    Attributes:
        thresholds: Distances for precision, recall and F, scene units.
        n_samples: Points on each surface.
        min_views: Training views that must see a point for it to count.
        seed: Of the points.
    """

    thresholds: tuple[float, ...]
    n_samples: int = N_SAMPLES
    min_views: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_samples < 1:
            raise ValueError(f"n_samples: expected at least 1, got {self.n_samples}")
        if not all(t > 0 for t in self.thresholds):
            raise ValueError(f"thresholds: expected distances above 0, got {self.thresholds}")


@dataclass(frozen=True)
class MeshComparison:
    """How far a mesh is from the truth; lengths in scene units.

    Attributes:
        accuracy: Mean distance from the mesh to the truth.
        completeness: Mean distance from the truth to the mesh.
        thresholds: Those of the settings.
        precision: Share of the mesh within each threshold.
        recall: Share of the truth within each threshold.
        normal_consistency: Mean |cosine| between normals of nearest points, over both directions.
        max_error: Farthest point of the mesh from the truth.
        n_faces: Of the mesh.
    """

    accuracy: float
    completeness: float
    thresholds: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    normal_consistency: float
    max_error: float
    n_faces: int

    @property
    def chamfer(self) -> float:
        return (self.accuracy + self.completeness) / 2

    @property
    def f_scores(self) -> tuple[float, ...]:
        pairs = zip(self.precision, self.recall, strict=True)
        return tuple(0.0 if p + r == 0 else 2 * p * r / (p + r) for p, r in pairs)


def compare_meshes(
    mesh: Mesh, truth: Mesh, settings: CompareSettings, cameras: Cameras | None = None
) -> MeshComparison:
    """Measure a mesh against the truth.

    Args:
        mesh: The mesh to measure.
        truth: The true surface, in the same frame.
        settings: How.
        cameras: Training views: only what they see counts. None counts everything.

    Raises:
        ValueError: one of them is empty, or nothing of it is seen or near the truth.
    """
    return compare_parts(mesh, truth, torch.zeros(truth.n_faces, dtype=torch.int64), settings, cameras)[0]


def compare_parts(
    mesh: Mesh, truth: Mesh, part_of_face: Tensor, settings: CompareSettings, cameras: Cameras | None = None
) -> dict[int, MeshComparison]:
    """Measure a mesh against each part of the truth; of the mesh, what is nearest to a part belongs to it.

    Args:
        mesh: The mesh to measure.
        truth: The true surface, in the same frame.
        part_of_face: Number of the part of every face of the truth. [F] int64
        settings: How.
        cameras: Training views: only what they see counts. None counts everything.

    Returns:
        By number, without parts that no sample lies on or near.

    Raises:
        ValueError: one of the meshes is empty, or nothing of it is seen or near the truth.
    """
    ours = _samples(mesh, settings, cameras, "mesh", _crop_box(truth))
    theirs = _samples(truth, settings, cameras, "truth", None)
    to_truth, to_mesh = closest_on_mesh(truth, ours.points), closest_on_mesh(mesh, theirs.points)
    forth = _Found(to_truth.distances, _cosines(ours, truth, to_truth.faces))
    back = _Found(to_mesh.distances, _cosines(theirs, mesh, to_mesh.faces))
    results = {}
    for part in part_of_face.unique().tolist():
        here = forth.only(part_of_face[to_truth.faces] == part)
        there = back.only(part_of_face[theirs.faces] == part)
        if len(here.distances) and len(there.distances):
            results[part] = _summary(here, there, settings, mesh.n_faces)
    return results


def pixel_footprint(truth: Mesh, cameras: Cameras) -> float:
    """Size of a pixel on the surface, facing it: median of z / focal over the views' pixels, scene units."""
    found = []
    for i in range(len(cameras)):
        depth = view_mesh(truth, cameras, i).depth
        found.append(depth[depth > 0] / float(cameras.Ks[i, 0, 0]))
    return float(torch.cat(found).median())


@dataclass(frozen=True)
class _Samples:
    points: Tensor  # [P, 3]
    normals: Tensor  # [P, 3]
    faces: Tensor  # [P]


@dataclass(frozen=True)
class _Found:
    distances: Tensor  # [P]
    cosines: Tensor  # [P]

    def only(self, keep: Tensor) -> _Found:
        return _Found(self.distances[keep], self.cosines[keep])


def _summary(forth: _Found, back: _Found, settings: CompareSettings, n_faces: int) -> MeshComparison:
    return MeshComparison(
        accuracy=float(forth.distances.double().mean()),
        completeness=float(back.distances.double().mean()),
        thresholds=settings.thresholds,
        precision=tuple(float((forth.distances <= t).double().mean()) for t in settings.thresholds),
        recall=tuple(float((back.distances <= t).double().mean()) for t in settings.thresholds),
        normal_consistency=(float(forth.cosines.double().mean()) + float(back.cosines.double().mean())) / 2,
        max_error=float(forth.distances.max()),
        n_faces=n_faces,
    )


def _samples(
    mesh: Mesh, settings: CompareSettings, cameras: Cameras | None, name: str, box: tuple[Tensor, Tensor] | None
) -> _Samples:
    points, faces = sample_surface(mesh, settings.n_samples, settings.seed)
    keep = torch.ones(len(points), dtype=torch.bool)
    if box is not None:
        keep &= ((points >= box[0]) & (points <= box[1])).all(dim=1)
    if cameras is not None:
        keep &= n_views_seeing(mesh, points, cameras) >= settings.min_views
    if not bool(keep.any()):
        raise ValueError(
            f"{name}: nothing of it is inside of the box of the truth and seen by {settings.min_views} views"
        )
    normals = torch.nn.functional.normalize(face_normals(mesh), dim=1)
    return _Samples(points[keep], normals[faces[keep]], faces[keep])


def _cosines(samples: _Samples, other: Mesh, faces: Tensor) -> Tensor:  # [P]
    normals = torch.nn.functional.normalize(face_normals(other), dim=1)[faces]
    return (samples.normals * normals).sum(dim=1).abs()


def _crop_box(truth: Mesh) -> tuple[Tensor, Tensor]:
    low, high = truth.vertices.amin(dim=0), truth.vertices.amax(dim=0)
    margin = CROP_MARGIN * (high - low).norm()
    return low - margin, high + margin
