"""How a backend is held against the reference: values and gradients, as a whole and by their sign."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from conftest import Target
from strategies import F64, with_gradients
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings, Render

ALL = RasterSettings(with_depth=True, with_normals=True, background=(0.3, 0.1, 0.6))
NAMES = ("means", "quats", "log_scales", "opacity_logits", "sh0", "shN", "viewmats")
# Float32 against float64: rounding of colours, and a contribution of 1/255 that crosses its threshold in few pixels.
VALUE_TOLERANCE = 1e-4
FLIP_SIZE = 1.01 / 255
N_FLIPS = 3
# Gradients are sums over many pixels: these bounds leave room for a flipped pixel, not for a wrong term.
MIN_COSINE = 0.9999
MAX_RELATIVE = 1e-3
MAX_BIAS = 1e-3


@dataclass(frozen=True)
class Losses:
    """Weights of every image; random, so that every output matters in its own way."""

    rgb: float = 1.0
    alpha: float = 0.0
    depth: float = 0.0
    median_depth: float = 0.0
    normals: float = 0.0

    def __call__(self, render: Render) -> Tensor:
        generator = torch.Generator().manual_seed(7)
        total = torch.zeros((), dtype=F64)
        for name in ("rgb", "alpha", "depth", "median_depth", "normals"):
            image, weight = getattr(render, name), getattr(self, name)
            if image is None or weight == 0:
                continue
            noise = torch.randn(image.shape, generator=generator, dtype=F64)
            total = total + weight * (noise * image).sum() / image.numel() ** 0.5
        return total


EVERY_IMAGE = Losses(rgb=1.0, alpha=0.7, depth=0.3, median_depth=0.2, normals=0.8)


def leaves(scene: Gaussians, views: Cameras) -> tuple[Gaussians, Cameras]:
    viewmats = views.viewmats.detach().clone().requires_grad_()
    return with_gradients(scene), Cameras(viewmats, views.Ks, views.sizes)


def gradients(scene: Gaussians, views: Cameras) -> dict[str, Tensor]:
    values = [*scene.params().values(), views.viewmats]
    return {n: v.grad if v.grad is not None else torch.zeros_like(v) for n, v in zip(NAMES, values, strict=True)}


def assert_close_image(a: Tensor, b: Tensor) -> None:
    error = (a - b).abs()
    assert int((error > VALUE_TOLERANCE).sum()) <= N_FLIPS * a.shape[-1]
    assert error.max().item() <= FLIP_SIZE * max(1.0, b.abs().max().item()) + VALUE_TOLERANCE


def assert_close_gradient(name: str, a: Tensor, b: Tensor) -> None:
    a, b = a.detach().double().cpu().flatten(), b.detach().flatten()
    if not b.any():
        assert not a.any(), name
        return
    assert (torch.dot(a, b) / (a.norm() * b.norm())).item() >= MIN_COSINE, name
    assert ((a - b).norm() / b.norm()).item() <= MAX_RELATIVE, name
    assert abs((a - b).sum().item()) <= MAX_BIAS * b.abs().sum().item(), name


def compare(other: Target, scene: Gaussians, views: Cameras, settings: RasterSettings, loss: Losses) -> None:
    """Values and every gradient of `other` against the reference in float64."""
    ours, our_views = leaves(scene, views)
    theirs, their_views = leaves(scene, views)
    render = other.render(ours, our_views, settings)
    expected = rasterize(theirs, their_views, settings, "reference")
    for name in ("rgb", "alpha", "normals"):
        if getattr(expected, name) is not None:
            assert_close_image(getattr(render, name), getattr(expected, name))
    loss(render).backward()
    loss(expected).backward()
    found, wanted = gradients(ours, our_views), gradients(theirs, their_views)
    for name in NAMES:
        if wanted[name].numel():
            assert_close_gradient(name, found[name], wanted[name])
    assert_close_gradient("grad2d", render.stats.grad2d, expected.stats.grad2d)
