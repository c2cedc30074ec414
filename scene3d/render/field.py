"""Images of radiance fields: rays of all pixels, in tiles of 8x8, through native code or the torch oracle."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.errors import BackendUnavailable
from scene3d.core.fields import Decoder, Field
from scene3d.ops.rays import camera_rays, tiled_pixels
from scene3d.ops.warp import frame_points, stretch
from scene3d.render import field_cpu, field_cuda, field_reference
from scene3d.render.field_march import MarchSettings, RaySums, shade
from scene3d.render.near import with_near_of_field
from scene3d.render.types import RasterSettings, RasterStats, Render

# Rays at once: their features are what takes memory, 0.6 kB each.
RAYS_AT_ONCE = {"cpu": 1 << 16, "cuda": 1 << 20, "reference": 1 << 10}

# The network of a field on a GPU is torch's.
MARCHERS: dict[str, Any] = {"cpu": field_cpu, "cuda": field_cuda, "reference": field_reference}


def render_field(
    field: Field,
    cameras: Cameras,
    settings: RasterSettings = RasterSettings(),  # noqa: B008 - frozen
    backend: str = "auto",
) -> Render:
    """Render C views of one size of a field.

    Args:
        field: What to render.
        cameras: The views, dtype and device of the field.
        settings: near, far, background, with_depth and with_normals count; near and far are along the rays.
        backend: "auto", "cpu", "cuda" or "reference".

    Returns:
        Images [C, H, W, ...]; there are no statistics of Gaussians. Depth is the expected one, its median is not known.

    Differentiable in the parameters of the field, except normals.
    """
    name = choose_backend(backend, field)
    settings = with_near_of_field(settings, field)
    marcher = _Marcher(field, MarchSettings(near=settings.near_z, far=settings.far), name)
    draw = _native_view if marcher.native is not None and not settings.with_normals else _render_view
    if field.shell is not None and draw is not _native_view:
        asked = "normals" if settings.with_normals else f"the backend {name}, or gradients"
        raise ValueError(f"shell: colour, depth and alpha are rendered through it, by the backend cpu; got {asked}")
    views = [draw(marcher, cameras.select([c]), settings) for c in range(len(cameras))]
    rgb, alpha, depth, normals = (torch.stack(images) for images in zip(*views, strict=True))
    nothing = torch.zeros(len(cameras), 0, dtype=field.dtype, device=field.device)
    stats = RasterStats(nothing, nothing)
    return Render(
        rgb, alpha, depth if settings.with_depth else None, None, normals if settings.with_normals else None, stats
    )


def choose_backend(backend: str, field: Field) -> str:
    """Name of the code that renders a field: cpu, cuda or reference.

    Raises:
        BackendUnavailable: the one asked for cannot.
    """
    if backend in ("auto", "cuda") and field.device.type == "cuda" and field_cuda.takes(field):
        return "cuda"
    is_native = field_cpu.is_available() and field.device.type == "cpu"
    if backend == "auto":
        return "cpu" if is_native and field.dtype in (torch.float32, torch.float64) else "reference"
    if backend == "cuda":
        reason = "it needs the CUDA module, and a field in float32 on a CUDA device"
        if field.bases is not None or field.shading != "deferred" or field.has_network:
            what = f"{field.kind} fields" if field.shading == "deferred" else "fields shaded by samples"
            reason = f"{what} are rendered by cpu and reference only"
        raise BackendUnavailable("cuda", reason, "Build it (see scene3d doctor), move the field, or choose cpu")
    if backend not in ("cpu", "reference"):
        raise BackendUnavailable(backend, "it renders Gaussians only", "For fields choose cpu or reference")
    if backend == "cpu" and not is_native:
        raise BackendUnavailable("cpu", "the native module is not built", "Install scene3d with pip install .")
    return backend


def _native_view(marcher: _Marcher, camera: Cameras, settings: RasterSettings) -> tuple[Tensor, ...]:
    """A view without gradients and normals, by native code alone."""
    assert marcher.native is not None
    assert marcher.decoder is not None
    image = marcher.native.image(marcher.decoder, camera, settings.background)
    return image.rgb, image.alpha, image.depth, image.rgb


def _render_view(marcher: _Marcher, camera: Cameras, settings: RasterSettings) -> tuple[Tensor, ...]:
    field = marcher.field
    columns, rows = tiled_pixels(camera.width(), camera.height())
    columns, rows = columns.to(field.device), rows.to(field.device)
    parts, n_at_once = [], RAYS_AT_ONCE[marcher.backend]
    for start in range(0, len(columns), n_at_once):
        pixels = slice(start, start + n_at_once)
        view = torch.zeros(len(columns[pixels]), dtype=torch.long, device=field.device)
        origins, directions = camera_rays(camera, view, columns[pixels], rows[pixels])
        sums = marcher.march(origins, directions)
        colors = marcher.decode(sums, directions)
        alpha = sums.opacity[:, None]
        rgb = colors + (1 - alpha) * torch.tensor(settings.background, dtype=field.dtype, device=field.device)
        ahead = directions @ camera.viewmats[0, 2, :3]
        distance = _expected(sums)
        normals = _normals(field, origins, directions, distance, alpha) if settings.with_normals else colors
        parts.append((rgb, alpha, (distance * ahead)[:, None], normals))
    place = torch.empty_like(columns)
    place[rows * camera.width() + columns] = torch.arange(len(columns), device=field.device)
    size = (camera.height(), camera.width(), -1)
    return tuple(torch.cat(images)[place].reshape(size) for images in zip(*parts, strict=True))


def _expected(sums: RaySums) -> Tensor:  # [R], 0 where nothing is
    tiny = torch.finfo(sums.opacity.dtype).tiny
    return torch.where(sums.opacity > 0, sums.distance / sums.opacity.clamp_min(tiny), 0.0)


def _normals(field: Field, origins: Tensor, directions: Tensor, distance: Tensor, alpha: Tensor) -> Tensor:
    """Against the gradient of density at the expected depth, weighted by opacity. [R, 3]"""
    from scene3d.render.density import density_at

    points = (origins + directions * distance[:, None]).detach()
    plain = replace(field.detach(), occupancy=None)
    reach = torch.full_like(distance[:, None].detach(), 2 * field.step)
    if field.warp is not None:
        framed = frame_points(field.warp, points).nan_to_num(0.0)
        reach = reach / stretch(field.warp, framed)[:, None]
    offsets = [reach * axis for axis in torch.eye(3, dtype=field.dtype, device=field.device)]
    with torch.no_grad():
        slopes = [density_at(plain, points + offset) - density_at(plain, points - offset) for offset in offsets]
    gradient = torch.stack(slopes, dim=1)
    return -torch.nn.functional.normalize(gradient, dim=1) * alpha.detach()


class _Marcher:
    """March and decode by one backend, with what is prepared once for all views."""

    def __init__(self, field: Field, settings: MarchSettings, backend: str) -> None:
        self.field, self.settings, self.backend = field, settings, backend
        has_grad = torch.is_grad_enabled() and any(
            v.requires_grad for v in (*field.factors(), *field.decoder.tensors())
        )
        self.native = self.decoder = None
        if backend == "cpu" and not has_grad:
            self.native = field_cpu.NativeField(field, settings)
            self.decoder = field_cpu.NativeDecoder(field.decoder)

    def march(self, origins: Tensor, directions: Tensor) -> RaySums:
        if self.native is not None:
            return self.native.march(origins.contiguous(), directions.contiguous(), None)
        module = MARCHERS[self.backend]
        return module.march(self.field, origins, directions, None, self.settings)

    def decode(self, sums: RaySums, directions: Tensor) -> Tensor:
        if self.decoder is not None:
            return shade(self.decoder.decode, sums, directions.contiguous())
        decoder: Decoder = self.field.decoder
        module = field_cpu if self.backend == "cpu" else field_reference
        return shade(partial(module.decode, decoder), sums, directions)
