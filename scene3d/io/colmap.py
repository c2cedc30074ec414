"""A COLMAP capture: a folder of photos and a sparse model of them. The world frame is the model's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from scene3d.core.errors import CaptureError
from scene3d.io.binary import is_file
from scene3d.io.colmap_model import ColmapCamera, ColmapImage, ColmapModel, count_images, has_model, read_model
from scene3d.io.posed_views import PosedView, PosedViews, names_text
from scene3d.ops.lens import COLMAP_PARAMS, lens_from_colmap

MODEL_FOLDERS = ("sparse", "colmap/sparse", ".")
IMAGE_FOLDERS = ("images", "input", "rgb", ".")


def find_models(folder: Path) -> list[Path]:
    """Folders of sparse models of a capture: sparse/0, sparse/1, ..., or sparse itself. Empty where there are none."""
    for name in MODEL_FOLDERS:
        base = folder / name
        numbered = [child for child in base.iterdir() if child.name.isdecimal()] if base.is_dir() else []
        models = [model for model in (*sorted(numbered, key=lambda child: int(child.name)), base) if has_model(model)]
        if models:
            return models
    return []


def read_colmap(folder: Path) -> PosedViews:
    """Read the model with the most photos.

    Raises:
        CaptureError: no photo with a pose is left, or a lens is not supported.
        FormatError: a file of the model is damaged.
    """
    models = find_models(folder)
    counts = [count_images(model) for model in models]
    best = int(np.argmax(counts))
    notices = []
    if len(models) > 1:
        others = ", ".join(f"{m.name} ({n})" for m, n in zip(models, counts, strict=True) if m != models[best])
        chosen = models[best].relative_to(folder)
        notices.append(f"{len(models)} models: took {chosen} with {counts[best]} photos, left out {others}")
    model = read_model(models[best])
    image_folder = _image_folder(folder, model)
    views, missing, broken = [], [], []
    for image in sorted(model.images.values(), key=lambda image: image.name):
        pose = _cam_from_world(image)
        if not is_file(image_folder / image.name):
            missing.append(image.name)
        elif pose is None:
            broken.append(image.name)
        else:
            views.append(_view(models[best], image_folder, image, model.cameras[image.camera_id], pose))
    if missing:
        notices.append(f"{len(missing)} photos of the model are not in {image_folder}: {names_text(missing)}")
    if broken:
        notices.append(f"{len(broken)} photos have no valid pose (NaN or zero rotation): {names_text(broken)}")
    if not views:
        problem = f"none of the {len(model.images)} photos of {models[best]} can be used"
        raise CaptureError(folder, f"{problem}; {'; '.join(notices)}", "Put the photos into images/ beside sparse/.")
    is_finite = np.isfinite(model.points).all(axis=1)
    if not is_finite.all():
        notices.append(f"{int((~is_finite).sum())} points are not finite and were left out")
    points = torch.from_numpy(model.points[is_finite].astype(np.float32))
    return PosedViews(tuple(views), points, torch.from_numpy(model.colors[is_finite]), tuple(notices))


def _image_folder(folder: Path, model: ColmapModel) -> Path:
    names = [image.name for image in model.images.values()]
    # A folder given as .../sparse/0 or .../colmap has its photos above.
    bases = [folder, folder.parent, folder.parent.parent]
    folders = [base / name for base in bases for name in IMAGE_FOLDERS if (base / name).is_dir()]
    found = next((f for f in folders if any(is_file(f / name) for name in names)), None)
    return found if found is not None else folder / "images"


def _cam_from_world(image: ColmapImage) -> np.ndarray | None:  # [4, 4]
    quat = np.array(image.quat)
    norm = np.linalg.norm(quat)
    if not (np.isfinite(quat).all() and np.isfinite(image.translation).all() and norm > 1e-8):
        return None
    w, x, y, z = quat / norm
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = image.translation
    return matrix


def _view(model_folder: Path, folder: Path, image: ColmapImage, camera: ColmapCamera, pose: np.ndarray) -> PosedView:
    if camera.model not in COLMAP_PARAMS:
        remedy = f"Use one of {', '.join(COLMAP_PARAMS)}, or undistort the photos with COLMAP first."
        raise CaptureError(model_folder, f"camera model {camera.model} is not supported", remedy)
    lens, (fx, fy, cx, cy) = lens_from_colmap(camera.model, camera.params)
    size = (camera.width, camera.height)
    return PosedView(image.name, folder / image.name, lens, (fx, fy), (cx, cy), size, pose)
