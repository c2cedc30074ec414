"""Held-out photos beside pictures of a mesh and of the scene that it was made of: what the mesh costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

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
    """

    mesh_psnr: float
    scene_psnr: float
    n_photos: int

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
    ours, theirs = 0.0, 0.0
    for k in range(n):
        i = capture.test[k * len(capture.test) // n]
        photo = capture.load(i)
        truth, weight = photo.over((paper,) * 3), None if photo.mask is None else photo.mask.float() / 255
        view = capture.cameras.select([i]).to(dtype=torch.float32)
        drawn, covered = mesh_picture(mesh, view)
        shown = render_scene(scene, view, raster, backend).rgb[0].cpu().clamp(0, 1)
        ours += float(psnr(drawn + paper * (1 - covered[..., None]), truth, weight)) / n
        theirs += float(psnr(shown, truth, weight)) / n
    return HeldOutScore(ours, theirs, n)
