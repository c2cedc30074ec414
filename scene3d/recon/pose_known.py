"""Points for cameras that are known: features and matches as in structure from motion, then triangulation only.

Runs beside pycolmap (see pose_mapping): nothing here may use Pillow.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scene3d.recon.pose_pairs import Pairs

N_PARTNERS = 20
# Photos whose lines of sight differ by more share hardly a feature that SIFT recognises.
MAX_ANGLE_DEG = 75.0


@dataclass(frozen=True)
class KnownCamera:
    """A pinhole camera in plain numbers.

    Attributes:
        viewmat: cam_from_world by rows, 16 numbers.
        params: fx, fy, cx, cy, pixels.
        width: Pixels.
        height: Pixels.
    """

    viewmat: tuple[float, ...]
    params: tuple[float, float, float, float]
    width: int
    height: int

    def matrix(self) -> NDArray[np.float64]:
        """cam_from_world. [4, 4]"""
        return np.array(self.viewmat).reshape(4, 4)


def write_cameras(cameras: dict[str, KnownCamera], path: Path) -> None:
    """Write cameras by the names of their photos in the work folder."""
    path.write_text(json.dumps({name: asdict(camera) for name, camera in cameras.items()}), encoding="utf-8")


def read_cameras(path: Path) -> dict[str, KnownCamera]:
    """What `write_cameras` wrote."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return {name: KnownCamera(**camera) for name, camera in data.items()}


def near_pairs(cameras: list[KnownCamera]) -> Pairs:
    """Pairs of photos that may see the same: for each the nearest cameras that look in a similar direction."""
    matrices = np.stack([camera.matrix() for camera in cameras])
    centers = -np.einsum("cji,cj->ci", matrices[:, :3, :3], matrices[:, :3, 3])
    axes = matrices[:, 2, :3]
    angles = np.degrees(np.arccos(np.clip(axes @ axes.T, -1, 1)))
    distances = np.linalg.norm(centers[:, None] - centers[None], axis=2)
    # A turn by 45 degrees counts as much as the median distance.
    costs = distances / max(float(np.median(distances)), 1e-12) + angles / 45.0
    costs[angles > MAX_ANGLE_DEG] = np.inf
    np.fill_diagonal(costs, np.inf)
    pairs: Pairs = set()
    for i, row in enumerate(costs):
        for j in np.argsort(row, kind="stable")[:N_PARTNERS]:
            if np.isfinite(row[j]):
                pairs.add((min(i, int(j)), max(i, int(j))))
    return pairs


def triangulate(work: Path, database: Path, cameras: dict[str, KnownCamera], threads: int, seed: int) -> dict[str, Any]:
    """Triangulate the matches of `database`; write points [P, 3] and colours [P, 3] uint8 to work/points.npz.

    Returns:
        JSON-ready facts: n_points, mean_reprojection_error.
    """
    import pycolmap

    model = _posed_model(work / "known", database, cameras)
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = threads or -1
    options.random_seed = seed
    target = work / "triangulated"
    target.mkdir()
    model = pycolmap.triangulate_points(model, database, work / "photos", target, options=options)
    points = list(model.points3D.values())
    xyz = np.array([point.xyz for point in points]).reshape(-1, 3)
    colors = np.array([point.color for point in points], dtype=np.uint8).reshape(-1, 3)
    np.savez(work / "points.npz", points=xyz, colors=colors)
    error = float(model.compute_mean_reprojection_error()) if points else 0.0
    return {"n_points": len(points), "mean_reprojection_error": error}


def _posed_model(folder: Path, database: Path, cameras: dict[str, KnownCamera]) -> Any:
    """A model without points whose numbers are those of the database. COLMAP's text files are the way that all of its
    versions read."""
    import pycolmap

    lenses, images = [], []
    with pycolmap.Database.open(database) as opened:
        for image in opened.read_all_images():
            known = cameras[image.name]
            lens = opened.read_camera(image.camera_id)
            lens.model, lens.params = pycolmap.CameraModelId.PINHOLE, list(known.params)
            opened.update_camera(lens)
            numbers = " ".join(repr(value) for value in known.params)
            lenses.append(f"{image.camera_id} PINHOLE {known.width} {known.height} {numbers}")
            matrix = known.matrix()
            x, y, z, w = pycolmap.Rotation3d(matrix[:3, :3]).quat
            pose = " ".join(repr(float(value)) for value in (w, x, y, z, *matrix[:3, 3]))
            images.append(f"{image.image_id} {pose} {image.camera_id} {image.name}\n")
    folder.mkdir()
    (folder / "cameras.txt").write_text("\n".join(lenses) + "\n", encoding="utf-8")
    (folder / "images.txt").write_text("\n".join(images) + "\n", encoding="utf-8")
    (folder / "points3D.txt").write_text("", encoding="utf-8")
    return pycolmap.Reconstruction(folder)
