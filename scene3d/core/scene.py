"""Scene: what was reconstructed, with the facts that must survive every stage and format.

A scene says what it can do. Who takes any scene asks for a capability and calls the function that offers it:
    render   images from cameras             render.scene_view.render_scene
    points   places where matter is          render.scene_points.scene_points
    density  density at points of the world  render.density.density_at
    splats   Gaussians as such               Scene.splats
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from scene3d.core.errors import SceneKindError
from scene3d.core.fields import Field
from scene3d.core.gaussians import Gaussians

Capability = Literal["render", "points", "density", "splats"]


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

    payload: Gaussians | Field
    info: SceneInfo = field(default_factory=SceneInfo)

    @property
    def kind(self) -> str:
        """gaussians, or the kind of the field."""
        return "gaussians" if isinstance(self.payload, Gaussians) else self.payload.kind

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What can be asked of this scene."""
        if isinstance(self.payload, Gaussians):
            return frozenset(("render", "points", "splats"))
        return frozenset(("render", "points", "density"))

    def splats(self) -> Gaussians:
        """The Gaussians, for what takes nothing else.

        Raises:
            SceneKindError: the scene holds something else.
        """
        if not isinstance(self.payload, Gaussians):
            remedy = "Make some of it first: scene3d convert SCENE OUT.ply --to splats"
            raise SceneKindError("Gaussian splats", self.size_text(), remedy)
        return self.payload

    def field(self) -> Field:
        """The radiance field, for what takes nothing else.

        Raises:
            SceneKindError: the scene holds something else.
        """
        if not isinstance(self.payload, Field):
            raise SceneKindError("a radiance field", self.size_text())
        return self.payload

    @property
    def n_gaussians(self) -> int:
        """How many Gaussians it holds, 0 where it is a field."""
        return len(self.payload) if isinstance(self.payload, Gaussians) else 0

    def size_text(self) -> str:
        """What it is and how much of it, in a few words."""
        if isinstance(self.payload, Gaussians):
            return f"{len(self.payload):,} Gaussians"
        field = self.payload
        nodes = "x".join(str(n) for n in field.resolution) + " nodes"
        if field.levels:
            nodes = " + ".join(f"{level.n_leaves:,}" for level in field.levels) + " leaves"
        if field.bases is not None:
            nodes += f" and {len(field.bases):,} radial bases"
        if field.grid is not None:
            nodes = f"{len(field.grid.cells)} levels up to {nodes}"
        if field.kind == "mlp":
            nodes = f"{len(field.density)} layers of {field.ranks[0]} and {field.ranks[1]} units"
        article = "an" if field.kind in ("rbf", "mlp") else "a"
        n = field.n_numbers
        numbers = f"{n / 1e6:.1f} M numbers" if n >= 1e6 else f"{n:,} numbers"
        return f"{article} {field.kind} field of {nodes}, {numbers}"
