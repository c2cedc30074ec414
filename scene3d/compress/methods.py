"""Methods of compression by name: one line each. A module is imported when it is chosen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """A method as the user calls it.

    Attributes:
        module: Offers compress(scene, goal, judge, views) -> Packed.
        summary: One line for --help.
    """

    module: str
    summary: str


METHODS = {
    "context": Method("scene3d.compress.context", "integers coded against their neighbours, steps by what is seen"),
    "codebook": Method("scene3d.compress.codebook", "k-means codebooks of shapes and colours (Compact3D)"),
    "compact": Method("scene3d.compress.compact", "residual codebooks of shapes, colours from a hash-grid field"),
    "grid": Method("scene3d.compress.grid", "attributes as WebP pictures on a self-organizing grid"),
    "grid-jxl": Method("scene3d.compress.grid_jxl", "the same as JPEG XL; needs the package imagecodecs"),
    "lossless": Method("scene3d.compress.lossless", "every bit of every float32"),
}
