"""Held-out photos beside pictures of a mesh and of the scene that it was made of: what the mesh costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from scene3d.core.capture import Capture
from scene3d.core.mesh import Mesh
from scene3d.core.scene import Scene
from scene3d.meshing.picture import mesh_picture
from scene3d.ops.image import psnr
from scene3d.render.scene_view import render_scene
from scene3d.render.types import RasterSettings

# More photos change little, and each is drawn twice.
MAX_PHOTOS = 16


@dataclass(frozen=True)
class HeldOutScore:
    """Means over photos, dB.

    Attributes:
        mesh_psnr: Of the mesh.
        scene_psnr: Of the scene.
        n_photos: How many.
        covered: Share of the pixels that the mesh fills.
        mesh_psnr_covered: Of the mesh at those pixels alone, over the photos that have some; None where none has.
        scene_psnr_covered: Of the scene there.
    """

    mesh_psnr: float
    scene_psnr: float
    n_photos: int
    covered: float
    mesh_psnr_covered: float | None
    scene_psnr_covered: float | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def held_out_score(mesh: Mesh, scene: Scene, capture: Capture, backend: str = "auto") -> HeldOutScore | None:
    """Compare both with test photos: whole pictures, over white where photos have an alpha channel, else over black.

    Args:
        mesh: With texture or colours.
        scene: What it was made of.
        capture: Its photos; at most MAX_PHOTOS test views count, evenly picked.
        backend: Of the rasterizer.

    Returns:
        None where no photo is held out.
    """
    n = min(len(capture.test), MAX_PHOTOS)
    if n == 0:
        return None
    paper = 1.0 if capture.has_alpha else 0.0
    raster = RasterSettings(antialiased=scene.info.antialiased, background=(paper,) * 3)
    whole, covered_only, shares = [], [], []
    for k in range(n):
        i = capture.test[k * len(capture.test) // n]
        photo = capture.load(i)
        truth = photo.over((paper,) * 3)
        weight = torch.ones(truth.shape[:2]) if photo.mask is None else photo.mask.float() / 255
        view = capture.cameras.select([i]).to(dtype=torch.float32)
        drawn, covered = mesh_picture(mesh, view)
        shown = render_scene(scene, view, raster, backend).rgb[0].cpu().clamp(0, 1)
        drawn = drawn + paper * (1 - covered[..., None])
        whole.append(_both(drawn, shown, truth, weight))
        # Pixels along outlines are half paper.
        is_filled = weight * (covered == 1)
        shares.append(float(is_filled.sum() / weight.sum().clamp_min(1)))
        if shares[-1] > 0:
            covered_only.append(_both(drawn, shown, truth, is_filled))
    there: tuple[float | None, float | None] = _means(covered_only) if covered_only else (None, None)
    return HeldOutScore(*_means(whole), n, sum(shares) / n, *there)


def _both(drawn: Tensor, shown: Tensor, truth: Tensor, weight: Tensor) -> tuple[float, float]:
    return float(psnr(drawn, truth, weight)), float(psnr(shown, truth, weight))


def _means(scores: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(ours for ours, _ in scores) / len(scores), sum(theirs for _, theirs in scores) / len(scores)
