"""LPIPS (Zhang et al. 2018) through the lpips package, only where its weights are on this machine already.

Nothing is downloaded: a metric that needs a network at evaluation time would make results depend on it.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

Net = Literal["alex", "vgg", "none"]

# The backbones as torchvision names their files in torch's hub folder.
WEIGHTS = {"alex": "alexnet-owt-*.pth", "vgg": "vgg16-*.pth"}


@dataclass(frozen=True)
class Perceptual:
    """LPIPS, or the reason why there is none.

    Attributes:
        measure: Takes two sRGB images in [0, 1] [H, W, 3], gives their distance; None where not available.
        note: Net that measures, or "not available: reason".
    """

    measure: Callable[[Tensor, Tensor], float] | None
    note: str


def load_perceptual(net: Net) -> Perceptual:
    """Load LPIPS with the backbone `net`."""
    if net == "none":
        return Perceptual(None, "not asked for")
    for package in ("lpips", "torchvision"):
        if importlib.util.find_spec(package) is None:
            return Perceptual(None, f"not available: package {package} is not installed")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if not any(folder.glob(WEIGHTS[net])):
        return Perceptual(None, f"not available: weights {WEIGHTS[net]} are not in torch's hub folder")
    return Perceptual(_measure_with(net), net)


def _measure_with(net: Net) -> Callable[[Tensor, Tensor], float]:
    import lpips

    with warnings.catch_warnings():
        # torchvision warns about arguments that lpips passes.
        warnings.simplefilter("ignore")
        model = lpips.LPIPS(net=net, verbose=False).eval()

    @torch.no_grad()
    def measure(truth: Tensor, render: Tensor) -> float:
        images = [image.permute(2, 0, 1)[None].float() * 2 - 1 for image in (truth, render)]
        return float(model(*images))

    return measure
