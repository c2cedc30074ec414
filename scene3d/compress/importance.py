"""Importance: what every Gaussian, and every number of it, does to the images of given views."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.ops.sh import C0
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings

SENSITIVE = ("means", "quats", "log_scales", "opacity_logits", "sh0", "shN")


def blend_weights(
    gaussians: Gaussians,
    cameras: Cameras,
    settings: RasterSettings = RasterSettings(),  # noqa: B008 - frozen
    backend: str = "auto",
) -> Tensor:
    """Sum over the pixels of every view of the weight alpha T with which each Gaussian is blended.

    A Gaussian without weight can go without any change of these views; one with a weight of w pixels changes them by at
    most w times the colours that replace it. Exact: images are linear in colours, and the weight is the derivative.

    Args:
        gaussians: The scene.
        cameras: The views; sizes may differ.
        settings: How the scene is rendered.
        backend: Of the rasterizer.

    Returns:
        In pixels. [C, N]
    """
    # Grey everywhere: no colour is clamped, so every one of them has its derivative. Its own SH are not looked at.
    sh0 = torch.zeros_like(gaussians.sh0).requires_grad_()
    values = {name: value.detach() for name, value in gaussians.params().items()}
    grey = Gaussians(**{**values, "sh0": sh0, "shN": values["shN"][:, :0]})
    weights = torch.zeros(len(cameras), len(gaussians))
    for i in range(len(cameras)):
        rgb = rasterize(grey, cameras.select([i]), settings, backend).rgb
        (gradient,) = torch.autograd.grad(rgb[..., 0].sum(), sh0)
        weights[i] = gradient[:, 0, 0] / C0
    return weights


def sensitivities(
    gaussians: Gaussians,
    cameras: Cameras,
    settings: RasterSettings = RasterSettings(),  # noqa: B008 - frozen
    n_probes: int = 1,
    seed: int = 0,
    backend: str = "auto",
) -> dict[str, Tensor]:
    """Sum over pixels and channels of the squared derivative of the images by every stored number.

    An error e of a number with sensitivity s adds s e^2 to the squared error of these views, as long as errors are
    small and independent. Estimated with random signs: for signs r, the square of d(sum r I)/dp has that sum as its
    mean (Hutchinson 1989), so that one backward pass serves all pixels.

    Args:
        gaussians: The scene.
        cameras: The views; sizes may differ.
        settings: How the scene is rendered.
        n_probes: Passes per view; the estimate's variance falls with their number times that of the views.
        seed: Of the signs.
        backend: Of the rasterizer.

    Returns:
        By the names of the stored tensors, with their shapes.
    """
    generator = torch.Generator().manual_seed(seed)
    leaves = {name: value.detach().clone().requires_grad_() for name, value in gaussians.params().items()}
    sums = {name: torch.zeros_like(value) for name, value in gaussians.params().items()}
    names = [name for name in SENSITIVE if leaves[name].numel()]
    for i in range(len(cameras)):
        rgb = rasterize(Gaussians(**leaves), cameras.select([i]), settings, backend).rgb
        for probe in range(n_probes):
            signs = (torch.rand(rgb.shape, generator=generator) < 0.5).to(rgb) * 2 - 1
            more = probe + 1 < n_probes
            gradients = torch.autograd.grad((rgb * signs).sum(), [leaves[n] for n in names], retain_graph=more)
            for name, gradient in zip(names, gradients, strict=True):
                sums[name] += gradient.square() / n_probes
    return sums


def log_footprints(gaussians: Gaussians) -> Tensor:
    """Natural logarithm of the area of each Gaussian's largest ellipse through its centre, as seen from the middle of
    the scene: what lies farther out than most counts the less, the farther it is, or a sky would outweigh all else. [N]
    """
    if len(gaussians) == 0:
        return gaussians.opacity_logits.detach().clone()
    ordered = gaussians.log_scales.sort(dim=1).values
    distances = (gaussians.means - gaussians.means.median(dim=0).values).norm(dim=1)
    reach = distances.clamp_min(float(distances.median()) + 1e-30)
    return ordered[:, 1] + ordered[:, 2] - 2 * reach.log()
