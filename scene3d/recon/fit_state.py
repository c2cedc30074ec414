"""Everything of a fit that changes from step to step: what a checkpoint must hold for a run to go on unchanged."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from scene3d.core.capture import Capture
from scene3d.core.gaussians import Gaussians
from scene3d.core.push import Push
from scene3d.ops import morton
from scene3d.recon.densify import GradStats
from scene3d.recon.exposure import Exposure
from scene3d.recon.optim import AdamState
from scene3d.recon.pose_refine import PoseDeltas
from scene3d.recon.settings import FitSettings


@dataclass
class FitState:
    """A run after some steps.

    Attributes:
        adam: Gaussians and moments.
        stats: Screen gradients since the last refinement.
        generator: Source of every random number.
        order: Views of this epoch, as positions in capture.train.
        position: How many of them are done.
        n_start: Gaussians at the beginning.
        step: Steps done.
        seconds: Time of fitting, without evaluations.
        fraction: Part of the run done.
        n_dropped: Gaussians removed because a number was not finite.
        n_skipped: Steps without effect because the loss was not finite.
        exposure: Colour transforms, if asked for.
        poses: Camera motions, if asked for.
        push: What a method does to the steps, if there is one.
    """

    adam: AdamState
    stats: GradStats
    generator: torch.Generator
    order: list[int]
    n_start: int
    position: int = 0
    step: int = 0
    seconds: float = 0.0
    fraction: float = 0.0
    n_dropped: int = 0
    n_skipped: int = 0
    exposure: Exposure | None = None
    poses: PoseDeltas | None = None
    push: Push | None = None

    @classmethod
    def start(cls, capture: Capture, gaussians: Gaussians, settings: FitSettings, extent: float) -> FitState:
        """Step 0."""
        generator = torch.Generator().manual_seed(settings.seed)
        n, n_train = len(gaussians), len(capture.train)
        degree = settings.sh_degree if settings.sh_every <= 0 else min(gaussians.sh_degree, settings.sh_degree)
        sorted_gaussians = gaussians.select(morton.order(gaussians.means))
        return cls(
            adam=AdamState.start(sorted_gaussians, degree),
            stats=GradStats.zeros(n),
            generator=generator,
            order=torch.randperm(n_train, generator=generator).tolist(),
            n_start=n,
            exposure=None if settings.exposure == "none" else Exposure.start(settings.exposure, n_train),
            poses=PoseDeltas.start(n_train, extent) if settings.pose_opt else None,
        )

    def to(self, device: torch.device) -> FitState:
        """The same with Gaussians and what goes with them on another device; poses and exposures stay on the CPU."""
        push = None if self.push is None else self.push.to(device)
        return replace(self, adam=self.adam.to(device), stats=self.stats.to(device), push=push)

    def shown(self) -> Gaussians:
        """The Gaussians as they are rendered, detached."""
        gaussians = self.adam.gaussians().detach()
        return gaussians if self.push is None else self.push.shown(gaussians)

    def reorder(self) -> None:
        """Put the Gaussians in Morton order: neighbours in space become neighbours in memory."""
        index = morton.order(self.adam.values["means"])
        self.adam.rearrange(index, torch.zeros(len(index), dtype=torch.bool))
        self.stats = self.stats.select(index)

    def next_view(self) -> int:
        """Position in capture.train of the next view: every one once per epoch, in random order."""
        if self.position == len(self.order):
            self.order = torch.randperm(len(self.order), generator=self.generator).tolist()
            self.position = 0
        self.position += 1
        return self.order[self.position - 1]

    def coming_views(self, n: int) -> list[int]:
        """Positions of the next views of this epoch, n at most."""
        return self.order[self.position : self.position + n]
