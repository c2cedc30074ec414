"""What a fit for a small file needs to know: how it goes, and the photos by which it is judged on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from scene3d.compress.judge import Judge
from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene, SceneInfo
from scene3d.render.types import RasterSettings

MethodName = Literal["context", "codebook", "grid"]


@dataclass(frozen=True)
class AwareSettings:
    """How a fit is made to suit a codec.

    Attributes:
        method: context = our codec, codebook = Compact3D, grid = self-organizing grids; what is said here is of the
            first, see the others for what they take of it.
        drop_db: What coding may take of the PSNR of the training photos, before the fit makes up for it.
        target_bytes: The size of the file instead.
        noise_from: Fraction of the run from which noise and rate count; the number of Gaussians stays from there on.
        round_from: Fraction from which what is rendered is what the codec leaves.
        shapes_until: Fraction after which shapes stay as coded.
        rate_weight: Weight of the bits, times the distortion: larger is smaller and less sharp.
        noise_every: Steps between new noise and new gradients of the rate.
        plan_every: Steps between new measurements of what the photos are sensitive to.
        n_views: Of the training photos, for these measurements.
    """

    method: MethodName = "context"
    drop_db: float = 1.0
    target_bytes: int | None = None
    noise_from: float = 0.5
    round_from: float = 0.75
    shapes_until: float = 0.9
    rate_weight: float = 100.0
    noise_every: int = 10
    plan_every: int = 100
    n_views: int = 16


@dataclass(frozen=True)
class TrainingViews:
    """Some of the photos of a fit.

    Attributes:
        cameras: Of the C views.
        photos: RGB [H, W, 3] with the weights of the pixels [H, W], or None, by view.
        info: Of the scene.
    """

    cameras: Cameras
    photos: tuple[tuple[Tensor, Tensor | None], ...]
    info: SceneInfo

    @property
    def raster(self) -> RasterSettings:
        """How the scene is rendered."""
        return RasterSettings(antialiased=self.info.antialiased)

    def judge(self, gaussians: Gaussians) -> Judge:
        """Compares other Gaussians with these."""
        return Judge(Scene(gaussians, self.info), self.cameras, self.photos)
