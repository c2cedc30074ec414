"""Scene: what was reconstructed, with the facts that must survive every stage and format."""

from __future__ import annotations

from dataclasses import dataclass, field

from scene3d.core.gaussians import Gaussians


@dataclass(frozen=True)
class SceneInfo:
    """Facts about a scene that its numbers do not tell.

    Attributes:
        antialiased: Fitted with the opacity compensation of Mip-Splatting: must be rendered the same way.
        up: World direction that is up, if known.
        source: Capture it was fitted to.
        made_by: Program and version.
        notes: Further tags, kept as they are.
    """

    antialiased: bool = False
    up: tuple[float, float, float] | None = None
    source: str = ""
    made_by: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scene:
    """A payload and its facts."""

    payload: Gaussians
    info: SceneInfo = field(default_factory=SceneInfo)
