"""Shell: two meshes around the matter of a scene, between which alone its rays need to be sampled."""

from __future__ import annotations

from dataclasses import dataclass

from scene3d.core.mesh import Mesh


@dataclass(frozen=True)
class Shell:
    """The band in which a scene is looked at.

    Attributes:
        outer: Closed, around all matter, faces counter-clockwise seen from outside.
        inner: The same, behind which nothing is seen; may be empty.
    """

    outer: Mesh
    inner: Mesh
