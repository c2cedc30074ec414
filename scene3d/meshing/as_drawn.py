"""Splats as wide as pictures show them: rasterizers blur every splat by a fraction of a pixel, places know no pixels.

Wires and leaves whose splats are thinner than a pixel are fitted to be seen through that blur; without it they are
thinner in space than in any picture.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.ops.pinhole import in_image, to_pixels
from scene3d.render.types import RasterSettings


def as_drawn(scene: Scene, cameras: Cameras) -> Scene:
    """Splats blurred in space as they are in the mean view that shows them; other scenes as they are.

    Args:
        scene: Any.
        cameras: Its views.
    """
    if "splats" not in scene.capabilities or len(cameras) == 0:
        return scene
    gaussians = scene.splats().detach()
    blur = RasterSettings().eps2d * mean_footprint(gaussians, cameras).square()[:, None].to(gaussians.scales)
    variance = gaussians.scales.square()
    wider = replace(gaussians, log_scales=0.5 * (variance + blur).log())
    if scene.info.antialiased:
        # Rasterizers of such scenes take from opacity what they add in area, nearly that of the two longer axes.
        kept = (variance / (variance + blur)).sort(dim=1).values[:, 1:].prod(dim=1).sqrt()
        wider = replace(wider, opacity_logits=torch.logit(gaussians.opacities * kept, eps=1e-6))
    return Scene(wider, scene.info)


def mean_footprint(gaussians: Gaussians, cameras: Cameras) -> Tensor:
    """Mean size of a pixel at each splat, in the views that have its centre in the image, 0 where none has. [N]"""
    total, count = torch.zeros(len(gaussians.means)), torch.zeros(len(gaussians.means))
    means = gaussians.means.detach().float().cpu()
    for viewmat, K, (width, height) in zip(cameras.viewmats, cameras.Ks, cameras.sizes.tolist(), strict=True):
        pixels, z = to_pixels(means, viewmat, K)
        inside = in_image(pixels, z, width, height)
        total += torch.where(inside, z / float(K[0, 0]), 0.0)
        count += inside
    return total / count.clamp_min(1)
