"""What a shell saves: samples of density and time of images of a field, with it and without."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.fields import Field
from scene3d.core.shell import Shell
from scene3d.ops.image import psnr
from scene3d.render.field_cpu import NativeDecoder, NativeField

ROUNDS = 3
N_VIEWS = 3
BLACK = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class ViewCost:
    """What views of a field took.

    Attributes:
        samples: Of density, for each ray that meets something.
        seconds: For each view.
    """

    samples: float
    seconds: float


@dataclass(frozen=True)
class ShellGain:
    """Views with a shell and without.

    Attributes:
        without: Cost of the whole field.
        within: Cost of the shell, the rays of the same pixels counted.
        fidelity: PSNR of the views through the shell against those of the whole field, dB.
    """

    without: ViewCost
    within: ViewCost
    fidelity: float

    def text(self) -> str:
        """In one line."""
        ratio = self.without.seconds / self.within.seconds
        return (
            f"{self.within.samples:.1f} samples a ray instead of {self.without.samples:.1f}, "
            f"{1e3 * self.within.seconds:.0f} ms a view instead of {1e3 * self.without.seconds:.0f} "
            f"({ratio:.2f} times as fast), {self.fidelity:.1f} dB against the whole field"
        )


@torch.no_grad()
def measure_shell(field: Field, shell: Shell, cameras: Cameras, rounds: int = ROUNDS) -> ShellGain:
    """Render views with and without a shell.

    Args:
        field: Float32 on the CPU; its bricks are used where it has some.
        shell: Of it.
        cameras: Views, of which a few are taken evenly.
        rounds: The fastest of so many counts.
    """
    picked = sorted({round(i * (len(cameras) - 1) / (N_VIEWS - 1)) for i in range(N_VIEWS)})
    views = cameras.select(picked)
    truth, without, n_rays = _views(replace(field, shell=None), views, rounds, None)
    images, within, _ = _views(replace(field, shell=shell), views, rounds, n_rays)
    error = torch.stack([(a - b).square().mean() for a, b in zip(images, truth, strict=True)]).mean()
    if float(error) == 0:
        return ShellGain(without, within, float("inf"))
    mean = sum(float(psnr(a, b)) for a, b in zip(images, truth, strict=True)) / len(truth)
    return ShellGain(without, within, mean)


def _views(field: Field, views: Cameras, rounds: int, n_rays: int | None) -> tuple[list[Tensor], ViewCost, int]:
    """Images, cost and rays that met something; the samples are shared among n_rays where that is given."""
    native, decoder = NativeField(field), NativeDecoder(field.decoder)
    best, images = float("inf"), []
    for _ in range(rounds):
        began = time.perf_counter()
        images = [native.image(decoder, views.select([i]), BLACK) for i in range(len(views))]
        best = min(best, time.perf_counter() - began)
    n_samples, met = sum(v.n_samples for v in images), sum(v.n_rays for v in images)
    cost = ViewCost(n_samples / max(met if n_rays is None else n_rays, 1), best / len(views))
    return [image.rgb for image in images], cost, met
