"""Goal: what the user asks of a compressed scene, and Packed: what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scene3d.core.gaussians import Gaussians
from scene3d.io.s3d_container import Container, container_bytes

# Without photos nobody knows how good a scene is: as good as fits of real captures often are.
DEFAULT_SCENE_PSNR = 30.0


@dataclass(frozen=True)
class Goal:
    """One of three wishes.

    Attributes:
        max_drop_db: The PSNR against photos may fall by so much.
        target_bytes: The file may be so large; what quality that allows is found out.
        is_lossless: Every float32 keeps its bits.
        scene_psnr: PSNR of the scene against photos, where there are no photos to measure it by.
        margin_db: Fidelity asked beyond what the drop needs, where views are made up.
        tune_steps: Steps of tuning what is stored against renders of the full scene, in methods that can; 0 = none.
    """

    max_drop_db: float = 0.1
    target_bytes: int | None = None
    is_lossless: bool = False
    scene_psnr: float = DEFAULT_SCENE_PSNR
    tune_steps: int = 0
    margin_db: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.max_drop_db <= 10:
            raise ValueError(f"max_drop_db: expected more than 0 and at most 10 dB, got {self.max_drop_db:g}")
        if self.target_bytes is not None and self.target_bytes < 1:
            raise ValueError(f"target_mb: expected more than 0, got {self.target_bytes / 1e6:g}")
        if self.target_bytes is not None and self.is_lossless:
            raise ValueError("target_mb, lossless: expected one of them. Lossless files are as large as they are")
        if self.tune_steps < 0:
            raise ValueError(f"tune_steps: expected at least 0, got {self.tune_steps}")
        if not 0 < self.scene_psnr < 100:
            raise ValueError(f"scene_psnr: expected a PSNR in dB, got {self.scene_psnr:g}")

    @property
    def fidelity_db(self) -> float:
        """PSNR against the uncompressed render at which the drop is just reached.

        Errors of scene and codec are independent, their squares add up: 10^(-F/10) = 10^(-P/10) (10^(d/10) - 1).
        For 0.1 dB that is 16.3 dB above the scene.
        """
        return self.scene_psnr - 10 * math.log10(10 ** (self.max_drop_db / 10) - 1) + self.margin_db


@dataclass(frozen=True)
class Verdict:
    """How near a scene comes to the uncompressed one.

    Attributes:
        fidelity_db: PSNR against the uncompressed render, of the mean square error over all views.
        drop_db: By how much the mean PSNR against photos falls; None without photos.
    """

    fidelity_db: float
    drop_db: float | None = None


@dataclass(frozen=True)
class Loss:
    """What one attribute costs.

    Attributes:
        name: Of the attribute.
        size_bytes: Of its chunks.
        fidelity_db: PSNR against the uncompressed render where only this attribute is compressed.
    """

    name: str
    size_bytes: int
    fidelity_db: float = math.inf


@dataclass(frozen=True)
class Packed:
    """A compressed scene.

    Attributes:
        container: What is to be written.
        gaussians: What a reader of it will see.
        verdict: How near that is to the uncompressed scene.
        losses: By attribute.
        is_met: Whether the goal is reached.
        remark: What the user should know about it, or nothing.
    """

    container: Container
    gaussians: Gaussians
    verdict: Verdict
    losses: tuple[Loss, ...]
    is_met: bool = True
    remark: str = ""

    @property
    def size_bytes(self) -> int:
        return len(container_bytes(self.container))
