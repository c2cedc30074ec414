"""Surfels: Gaussians as flat discs that rays meet, exact in perspective (Huang et al. 2024, 2D Gaussian Splatting).

The third axis of a Gaussian is its normal, its third scale is not looked at. A pixel takes exp(-(u^2 + v^2) / 2) where
its ray meets the disc at (u, v) deviations from the centre, or a blur of sqrt(1/2) pixels about the centre, whichever
is more: discs seen edge-on do not vanish. What is said of alpha, order and cut-offs in reference.py holds here too.
Discs that reach behind the plane of the camera are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene3d.core.cameras import Cameras
from scene3d.core.errors import BackendUnavailable
from scene3d.core.gaussians import Gaussians
from scene3d.ops import sh
from scene3d.ops.quaternions import to_rotmat
from scene3d.render import backends, cpu, surfels_cuda
from scene3d.render.discs import Discs, screen_gradient
from scene3d.render.near import with_near
from scene3d.render.reference import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE
from scene3d.render.types import RasterSettings, RasterStats, Render

# Numbers of a pixel in the native images: rgb, normal, alpha, depth, median, distortion, and three for the way back.
PIXEL_NUMBERS = 13


@dataclass(frozen=True)
class SurfelRender:
    """Images of one view.

    Attributes:
        render: Colours, opacity, depths and normals.
        distortion: Σ over pairs of w_i w_j (m_i - m_j)^2 with m = -unit / z. [H, W]
    """

    render: Render
    distortion: Tensor


def rasterize_surfels(
    gaussians: Gaussians, camera: Cameras, settings: RasterSettings, unit: float, backend: str = "auto"
) -> SurfelRender:
    """Render one view of flat Gaussians.

    Args:
        gaussians: float32, or float64 for checks.
        camera: One view, on the CPU or on the device of the Gaussians.
        settings: near, background and sh_degree count.
        unit: Length in m = -unit / z of the distortion, scene units.
        backend: "auto", "cpu", "cuda" or "reference".

    Differentiable in every tensor of gaussians but the third scale.

    Raises:
        BackendUnavailable: the backend asked for does not run here, or draws no discs.
    """
    if len(camera) != 1:
        raise ValueError(f"camera: expected one view, got {len(camera)}")
    # The native CPU code takes float64 too.
    name = backends.choose(backend, gaussians.device) if backend != "reference" else backend
    settings = with_near(settings, gaussians.means, camera)
    discs = see_discs(gaussians, camera, settings)
    if name == "gsplat":
        raise BackendUnavailable("gsplat", "it draws no discs here", "Use one of auto, cpu, cuda, reference")
    if name == "reference":
        return _to_render(*blend_reference(discs, camera, settings, unit, cutoff=True), settings)
    blend = surfels_cuda.blend if name == "cuda" else blend_native
    return _to_render(*blend(discs, camera, settings, unit, cutoff=True), settings)


def see_discs(gaussians: Gaussians, camera: Cameras, settings: RasterSettings) -> Discs:
    """The discs in the frame of the camera, with their colours. Differentiable."""
    viewmat = camera.viewmats[0].to(gaussians.means)
    rotmats = to_rotmat(gaussians.quats)
    offsets = gaussians.means - camera.centers()[0].to(gaussians.means)
    axes = viewmat[:3, :3] @ (rotmats[:, :, :2] * gaussians.scales[:, None, :2])
    centers = gaussians.means @ viewmat[:3, :3].T + viewmat[:3, 3]
    normals = rotmats[:, :, 2]
    facing = (normals * offsets).sum(dim=1, keepdim=True) > 0
    degree = gaussians.sh_degree if settings.sh_degree is None else settings.sh_degree
    rgb = sh.evaluate(gaussians.sh0, gaussians.shN, torch.nn.functional.normalize(offsets, dim=1), degree)
    matrices = torch.cat([axes, centers[:, :, None]], dim=2)
    return Discs(matrices, gaussians.opacities, rgb, torch.where(facing, -normals, normals))


def blend_native(
    discs: Discs, camera: Cameras, settings: RasterSettings, unit: float, cutoff: bool
) -> tuple[dict[str, Tensor], RasterStats]:
    """Images by the native code: float32 with lanes, float64 in plain loops."""
    call = _Call(camera, settings, unit, cutoff, discs.opacities)
    tensors = (discs.matrices, discs.opacities, discs.rgb, discs.normals)
    rgb, normals, alpha, depth, median, distortion = _Blend.apply(call, *(t.contiguous() for t in tensors))
    images = {
        "rgb": rgb,
        "normals": normals,
        "alpha": alpha,
        "depth": depth,
        "median": median,
        "distortion": distortion,
    }
    return images, RasterStats(call.radii[None], call.grad2d[None])


class _Call:
    """What forward and backward share besides tensors."""

    def __init__(self, camera: Cameras, settings: RasterSettings, unit: float, cutoff: bool, like: Tensor) -> None:
        K = camera.Ks[0].tolist()
        self.size = (camera.height(), camera.width())
        self.focal = (K[0][0], K[1][1])
        pinhole = (K[0][0], K[1][1], K[0][2], K[1][2])
        self.settings = cpu.native().SurfelSettings(*pinhole, settings.near_z, unit, self.size[1], self.size[0], cutoff)
        self.suffix = "32" if like.dtype == torch.float32 else "64"
        self.state = getattr(cpu.native(), "SurfelState" + self.suffix)()
        self.images = torch.empty(PIXEL_NUMBERS, *self.size, dtype=like.dtype)
        self.radii = torch.zeros(len(like), dtype=like.dtype)
        self.grad2d = torch.zeros(len(like), dtype=like.dtype)


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, call: _Call, matrices: Tensor, opacities: Tensor, rgb: Tensor, normals: Tensor
    ) -> tuple[Tensor, ...]:
        native = cpu.native()
        ctx.call = call
        ctx.save_for_backward(matrices, opacities, rgb, normals)
        arrays = getattr(native, "SurfelArrays" + call.suffix)(matrices, opacities, rgb, normals)
        native.surfels_forward(call.settings, arrays, call.state, call.images, call.radii)
        height, width = call.size
        shape = (height, width, 3)
        images = (call.images[:3].reshape(shape), call.images[3:6].reshape(shape), *call.images[6:10])
        ctx.mark_non_differentiable(images[4])
        return tuple(image.clone() for image in images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *v_images: Tensor) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        tensors = ctx.saved_tensors
        arrays = getattr(cpu.native(), "SurfelArrays" + call.suffix)(*tensors)
        v_rgb, v_normals, v_alpha, v_depth, _, v_distortion = (v.contiguous() for v in v_images)
        grads = [torch.empty_like(t) for t in tensors]
        cpu.native().surfels_backward(
            call.settings, arrays, call.state, call.images, v_rgb, v_normals, v_alpha, v_depth, v_distortion, *grads
        )
        call.grad2d.copy_(screen_gradient(tensors[0], grads[0], call.focal, call.radii))
        return (None, *grads)  # call


def blend_reference(
    discs: Discs, camera: Cameras, settings: RasterSettings, unit: float, cutoff: bool
) -> tuple[dict[str, Tensor], RasterStats]:
    """The same by dense torch, each disc against each pixel: the oracle of the native code."""
    K, (height, width) = camera.Ks[0].to(discs.rgb), (camera.height(), camera.width())
    order = discs.matrices[:, 2, 2].detach().argsort(stable=True)
    order = order[discs.matrices[order, 2, 2] >= settings.near_z]
    t, s, p = discs.matrices[order].unbind(dim=2)
    a, b, c = torch.linalg.cross(s, p), torch.linalg.cross(p, t), torch.linalg.cross(t, s)
    det = (p * c).sum(dim=1)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    rays = torch.stack([(x.to(K) - K[0, 2]) / K[0, 0], (y.to(K) - K[1, 2]) / K[1, 1], torch.ones_like(x).to(K)], dim=-1)
    rays = rays.reshape(-1, 3)
    across = rays @ c.T
    across = torch.where(across.abs() < 1e-30, torch.full_like(across, 1e-30), across)
    on_disc = ((rays @ a.T) / across).square() + ((rays @ b.T) / across).square()
    gap = (rays[:, None, :2] - (p[:, :2] / p[:, 2:])) * torch.stack([K[0, 0], K[1, 1]])
    blur = 2 * gap.square().sum(dim=2)
    z = det / across
    is_disc = (on_disc < blur) & (z > settings.near_z)
    z = torch.where(is_disc, z, p[:, 2].expand_as(z))
    power = torch.where(is_disc, on_disc, blur)
    alphas = (discs.opacities[order] * torch.exp(-0.5 * power)).clamp(max=MAX_ALPHA)
    if cutoff:
        alphas = torch.where(alphas >= MIN_ALPHA, alphas, 0.0)
        light = (1 - alphas.detach()).cumprod(dim=1).roll(1, dims=1)
        light[:, 0] = 1
        alphas = torch.where(light >= MIN_TRANSMITTANCE, alphas, 0.0)
    light = torch.cat([torch.ones_like(alphas[:, :1]), (1 - alphas).cumprod(dim=1)], dim=1)
    weights = alphas * light[:, :-1]
    m = -unit / z
    total, first, second = weights.sum(dim=1), (weights * m).sum(dim=1), (weights * m * m).sum(dim=1)
    padded = torch.cat([z.detach(), torch.zeros_like(z[:, :1])], dim=1)
    median = padded.gather(1, (light[:, 1:] >= 0.5).sum(dim=1, keepdim=True))[:, 0]
    images = {
        "rgb": (weights @ discs.rgb[order]).reshape(height, width, 3),
        "normals": (weights @ discs.normals[order]).reshape(height, width, 3),
        "alpha": total.reshape(height, width),
        "depth": (weights * z).sum(dim=1).reshape(height, width),
        "median": median.reshape(height, width),
        "distortion": (total * second - first.square()).reshape(height, width),
    }
    radii = torch.zeros(1, len(discs.opacities), dtype=K.dtype)
    radii[0, order] = 1.0
    return images, RasterStats(radii, torch.zeros_like(radii))


def _to_render(images: dict[str, Tensor], stats: RasterStats, settings: RasterSettings) -> SurfelRender:
    alpha = images["alpha"][None, ..., None]
    background = torch.tensor(settings.background, dtype=alpha.dtype, device=alpha.device)
    depth = torch.where(alpha > 0, images["depth"][None, ..., None] / alpha.clamp_min(1e-12), 0.0)
    rgb = images["rgb"][None] + (1 - alpha) * background
    median = images["median"][None, ..., None].detach()
    return SurfelRender(Render(rgb, alpha, depth, median, images["normals"][None], stats), images["distortion"])
