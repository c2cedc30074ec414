"""Settings of a fit: plain data.

Lengths of time are fractions of the run, so a schedule keeps its shape when max_steps changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

BackgroundName = Literal["auto", "black", "white", "random"]
StrategyName = Literal["default", "mcmc"]
ExposureName = Literal["none", "gain", "affine"]
SurfaceName = Literal["stereo", "pgsr", "2dgs", "rade"]


@dataclass(frozen=True)
class LearningRates:
    """Adam's step sizes. `means` is per scene extent and decays exponentially.

    Attributes:
        means: First value, scene extents.
        means_final: Last value as a fraction of the first.
        log_scales: Constant.
        quats: Constant.
        opacity_logits: Constant.
        sh0: Constant.
        shN: Constant.
        decay: All other rates end at this fraction of their first value, exponentially; 1 keeps them constant.
        beta1: Decay of the mean gradient.
        beta2: Decay of the mean squared gradient.
    """

    means: float = 1.6e-4
    means_final: float = 0.01
    log_scales: float = 5e-3
    quats: float = 1e-3
    opacity_logits: float = 5e-2
    sh0: float = 2.5e-3
    shN: float = 2.5e-3 / 20
    decay: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999


@dataclass(frozen=True)
class StrategySettings:
    """How the number and the places of Gaussians change.

    Attributes:
        name: default = adaptive density control (Kerbl et al. 2023), mcmc = relocation and noise
            (Kheradmand et al. 2024).
        cap_max: Most Gaussians ever.
        refine_start: First refinement, fraction of the run.
        refine_stop: Last refinement, fraction of the run.
        refine_every: Steps from one refinement to the next.
        grow_until: Fraction of the run at which the cap is reached, where there is enough to add.
        absgrad: default: use absolute screen gradients (AbsGS, Ye et al. 2024).
        grow_grad2d: default: mean screen gradient above which a Gaussian grows, half image sizes; None = 0.0002, or
            0.0008 with absgrad.
        grow_scale3d: default: larger ones are split, smaller ones duplicated, scene extents.
        prune_opacity: default: more transparent ones are removed. mcmc: they are moved.
        prune_scale3d: default: larger ones are removed after the first reset, scene extents.
        reset_every: default: fraction of the run between opacity resets, 0 = never.
        noise: mcmc: strength of the exploration noise.
        noise_every: mcmc: steps from one noise to the next; its variance grows along.
    """

    name: StrategyName = "default"
    cap_max: int = 1_000_000
    refine_start: float = 1 / 60
    refine_stop: float = 0.5
    refine_every: int = 100
    grow_until: float = 0.5
    absgrad: bool = False
    grow_grad2d: float | None = None
    grow_scale3d: float = 0.01
    prune_opacity: float = 0.005
    prune_scale3d: float = 0.1
    reset_every: float = 0.1
    noise: float = 5e5
    noise_every: int = 10


@dataclass(frozen=True)
class ResolutionSettings:
    """Coarse to fine: photos are reduced by `scales[i]` until the fraction `until[i]` of the run, then taken whole.

    Attributes:
        scales: Divisors of the image size, falling.
        until: Rising fractions of the run, as many as scales.
        most_steps: No scale lasts beyond this step, however long the run: thousands of steps on small photos make
            Gaussians that fit those and nothing else.
    """

    scales: tuple[int, ...] = ()
    until: tuple[float, ...] = ()
    most_steps: tuple[int, ...] = (1000, 3000)

    def __post_init__(self) -> None:
        if len(self.scales) != len(self.until):
            raise ValueError(f"until: expected {len(self.scales)} fractions, one per scale, got {len(self.until)}")
        if len(self.scales) > len(self.most_steps):
            raise ValueError(f"most_steps: expected {len(self.scales)} numbers of steps, got {len(self.most_steps)}")


@dataclass(frozen=True)
class FitSettings:
    """Everything that decides the result of a fit, with the capture and the first Gaussians.

    Attributes:
        max_steps: Steps of the whole run.
        time_limit: Seconds after which the run ends; schedules then follow the clock where it is ahead of the steps,
            and results are not reproducible. None = no limit.
        seed: Of every random number.
        sh_degree: Highest spherical-harmonics degree.
        sh_every: Fraction of the run after which one more degree is added.
        ssim_lambda: Weight of 1 - SSIM against L1.
        s3im: Weight of 1 - S3IM, the similarity in structure of random pixels (Xie et al. 2023). 0 = none.
        depth_weight: Of the squared relative error of depth, where the capture has depth maps.
        opacity_reg: Weight of the mean opacity in the loss.
        scale_reg: Weight of the mean scale (in scene extents) in the loss.
        antialiased: Opacity compensation of Mip-Splatting.
        background: auto = random where photos have alpha, else black.
        exposure: Per-photo colour correction.
        pose_opt: Also refine camera poses.
        pose_lr: Its first step size, radians and scene extents.
        influence: What a method does to the steps, in words: runs that differ by it are others.
        surface: Also pull Gaussians onto surfaces, see recon.surface.
        surface_method: In which manner.
        backend: Of the rasterizer.
        lrs: Step sizes.
        strategy: Density control.
        resolution: Coarse to fine.
        eval_steps: Steps after which test views are measured, besides the last.
        checkpoint_every: Steps between checkpoints, 0 = only at the end.
    """

    max_steps: int = 30_000
    time_limit: float | None = None
    seed: int = 0
    sh_degree: int = 3
    sh_every: float = 1 / 30
    ssim_lambda: float = 0.2
    s3im: float = 0.0
    depth_weight: float = 0.0
    opacity_reg: float = 0.0
    scale_reg: float = 0.0
    antialiased: bool = False
    background: BackgroundName = "auto"
    exposure: ExposureName = "none"
    pose_opt: bool = False
    pose_lr: float = 1e-5
    surface: bool = False
    surface_method: SurfaceName = "stereo"
    influence: str = ""
    backend: str = "auto"
    lrs: LearningRates = field(default_factory=LearningRates)
    strategy: StrategySettings = field(default_factory=StrategySettings)
    resolution: ResolutionSettings = field(default_factory=ResolutionSettings)
    eval_steps: tuple[int, ...] = ()
    checkpoint_every: int = 2000

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ValueError(f"max_steps: expected at least 1, got {self.max_steps}")
        if not 0 <= self.sh_degree <= 3:
            raise ValueError(f"sh_degree: expected 0 to 3, got {self.sh_degree}")
        if self.time_limit is not None and not self.time_limit > 0:
            raise ValueError(f"time_limit: expected more than 0 seconds, got {self.time_limit}")
        if not self.s3im >= 0:
            raise ValueError(f"s3im: expected 0 or more, got {self.s3im}")
        if not self.depth_weight >= 0:
            raise ValueError(f"depth_weight: expected 0 or more, got {self.depth_weight}")
        if self.strategy.cap_max < 1:
            raise ValueError(f"strategy.cap_max: expected at least 1, got {self.strategy.cap_max}")
