"""What a fit minimises: L1 and SSIM against a photo on a background, and the regularizers of opacity and size."""

from __future__ import annotations

import torch
from torch import Tensor

from scene3d.core.gaussians import Gaussians
from scene3d.ops.stochastic_ssim import s3im
from scene3d.recon.optim import AdamState
from scene3d.recon.photos import Target
from scene3d.recon.settings import BackgroundName, FitSettings
from scene3d.render import loss as native_loss

STRUCTURE_PIXELS = 4096
BLACK, WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

Color = tuple[float, float, float]


def photometric(rgb: Tensor, target: Target, background: Color, ssim_lambda: float) -> Tensor:
    """(1 - λ) L1 + λ (1 - SSIM), masked.

    Args:
        rgb: Render over `background`. [H, W, 3]
        target: The photo.
        background: The same that the render has.
        ssim_lambda: λ.

    Differentiable in rgb. Kerbl et al. 2023, equation 7.
    """
    return native_loss.l1_ssim(rgb, target.over(background), target.weight, ssim_lambda)


def structure(rgb: Tensor, target: Target, background: Color, generator: torch.Generator) -> Tensor:
    """1 - S3IM over some random pixels of an image; where the target has less weight they look like the photo.

    Args:
        rgb: Render over `background`. [H, W, 3]
        target: The photo.
        background: The same that the render has.
        generator: Picks pixels.

    Differentiable in rgb. Xie et al. 2023.
    """
    photo = target.over(background)
    photo = photo.float() / 255 if photo.dtype == torch.uint8 else photo
    if target.weight is not None:
        rgb = photo + target.weight[..., None] * (rgb - photo)
    n = rgb.shape[0] * rgb.shape[1]
    picked = torch.randint(n, (STRUCTURE_PIXELS,), generator=generator).to(rgb.device)
    return 1 - s3im(rgb.reshape(n, 3)[picked], photo.reshape(n, 3)[picked], generator)


def fit_background(name: BackgroundName, has_alpha: bool, generator: torch.Generator) -> Color:
    """Colour behind the scene in one step."""
    if name == "random" or (name == "auto" and has_alpha):
        red, green, blue = torch.rand(3, generator=generator).tolist()
        return red, green, blue
    return WHITE if name == "white" else BLACK


def eval_background(name: BackgroundName, has_alpha: bool) -> Color:
    """Colour behind test views: as fitted; white where it was random, as is usual for captures with alpha."""
    if name == "auto":
        return WHITE if has_alpha else BLACK
    return BLACK if name == "black" else WHITE


def add_regularizer_grads(state: AdamState, shown: Gaussians, settings: FitSettings, extent: float) -> None:
    """Add the gradients of opacity_reg · mean(opacity) + scale_reg · mean(scale) / extent, in closed form.

    Args:
        state: What moves.
        shown: What is rendered, whose opacities and scales are meant.
        settings: The weights.
        extent: Of the scene, scene units.
    """
    n = max(len(state), 1)
    logits, log_scales = state.values["opacity_logits"], state.values["log_scales"]
    if settings.opacity_reg > 0 and logits.grad is not None:
        opacities = shown.opacity_logits.detach().sigmoid()
        logits.grad.addcmul_(opacities, 1 - opacities, value=settings.opacity_reg / n)
    if settings.scale_reg > 0 and log_scales.grad is not None:
        log_scales.grad.add_(shown.log_scales.detach().exp(), alpha=settings.scale_reg / (3 * n * extent))
