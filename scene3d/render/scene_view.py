"""Images of any scene, whatever it holds."""

from __future__ import annotations

from dataclasses import replace

import torch

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.render import backends
from scene3d.render.field import choose_backend, render_field
from scene3d.render.field_bricks import bake
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings, Render


@torch.no_grad()
def render_scene(
    scene: Scene,
    cameras: Cameras,
    settings: RasterSettings = RasterSettings(),  # noqa: B008 - frozen
    backend: str = "auto",
) -> Render:
    """Render C views of one size; cameras may have any dtype and device. No gradients.

    Args:
        scene: What to render.
        cameras: The views.
        settings: How; what a kind of scene does not know has no effect. An sh_degree above that stored means all.
        backend: "auto" or a name; see render.backends for Gaussians, "cpu" or "reference" for fields.

    Raises:
        BackendUnavailable: the backend asked for does not run here, or does not render this kind.
    """
    payload = scene.payload
    cameras = cameras.to(payload.device, payload.dtype)
    if isinstance(payload, Gaussians):
        return rasterize(payload, cameras, settings, backend)
    return render_field(payload, cameras, settings, backend)


def on_device_of(scene: Scene, backend: str = "auto") -> Scene:
    """The scene as a backend wants it, for many images: Gaussians on its device, density of fields in bricks."""
    if not isinstance(scene.payload, Gaussians):
        return replace(scene, payload=bake(scene.payload)) if backend in ("auto", "cpu") else scene
    return replace(scene, payload=scene.payload.to(backends.device_for(backend)))


def backend_of(scene: Scene, backend: str = "auto") -> str:
    """Name of the backend that render_scene takes."""
    payload = scene.payload
    if isinstance(payload, Gaussians):
        return backends.choose(backend, payload.device, payload.dtype)
    return choose_backend(backend, payload)
