"""Facts about a scene that is a radiance field: what `scene3d info` tells, as data and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from scene3d.core.fields import AXES
from scene3d.core.scene import Scene
from scene3d.report.facts import size_text

SPACES = {
    "box": "a box",
    "cube": "without bounds, contracted beyond {:.4g} scene units",
    "frustum": "without bounds ahead, from {:.4g} scene units on (normalised device coordinates)",
}


@dataclass(frozen=True)
class FieldFacts:
    """A radiance field.

    Attributes:
        size_bytes: Of the file.
        kind: How it is factored.
        nodes: Along x, y, z.
        box: Least and greatest corner, world; in the frame of the warp where there is one.
        space: Where it lives, in words.
        leaves: Number and nodes along an edge of the leaves of each level; of trivec only.
        bases: Radial bases; of rbf only.
        ranks: Of each mode, for density and for colour.
        n_numbers: Parameters: factors, basis and network.
        n_decoder_numbers: Those of basis and network.
        shading: Whether the decoder makes a colour of each pixel or of each sample.
        occupied: Share of the cells that are not empty, and their count; None where all count.
        step: Distance of samples, scene units.
        is_finite: No parameter is NaN or infinite.
        tags: Facts that the file states about itself.
    """

    size_bytes: int
    kind: str
    nodes: tuple[int, int, int]
    leaves: list[tuple[int, int]]
    bases: int
    box: list[list[float]]
    space: str
    ranks: tuple[int, int]
    n_numbers: int
    n_decoder_numbers: int
    shading: str
    occupied: tuple[float, int] | None
    step: float
    is_finite: bool
    tags: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def field_facts(scene: Scene, size_bytes: int) -> FieldFacts:
    """Gather the facts of a scene that holds a field."""
    field, info = scene.field(), scene.info
    cells = field.occupancy
    return FieldFacts(
        size_bytes=size_bytes,
        kind=field.kind,
        nodes=field.resolution,
        leaves=[(level.n_leaves, level.nodes) for level in field.levels],
        bases=0 if field.bases is None else len(field.bases),
        box=field.box.tolist(),
        space=SPACES[field.warp.kind if field.warp else "box"].format(1 / field.warp.scale if field.warp else 0.0),
        ranks=field.ranks,
        n_numbers=field.n_numbers,
        n_decoder_numbers=sum(value.numel() for value in field.decoder.tensors()),
        shading=field.shading,
        occupied=None if cells is None else (float(cells.float().mean()), int(cells.sum())),
        step=field.step,
        is_finite=field.is_finite(),
        tags={"up": info.up, "source": info.source, "made_by": info.made_by, "notes": list(info.notes)},
    )


def field_text(facts: FieldFacts) -> str:
    """The facts for a terminal."""
    low, high = facts.box
    box = "  ".join(f"{axis} {a:.4g} to {b:.4g}" for axis, a, b in zip(AXES, low, high, strict=True))
    occupied = "not known"
    if facts.occupied is not None:
        occupied = f"{100 * facts.occupied[0]:.1f} % of the box, {facts.occupied[1]:,} cells"
    unit = "scene units" if facts.space == SPACES["box"] else "of the frame"
    lines = [
        f"size        {size_text(facts.size_bytes)}",
        f"field       {facts.kind}, {'x'.join(str(n) for n in facts.nodes)} nodes",
        *(f"leaves      {count:,} of {nodes}x{nodes}x{nodes} nodes" for count, nodes in facts.leaves),
        *([f"bases       {facts.bases:,}, radial"] if facts.bases else []),
        f"ranks       {facts.ranks[0]} for density, {facts.ranks[1]} for colour",
        f"numbers     {facts.n_numbers:,}, of which {facts.n_decoder_numbers:,} in the decoder",
        *(["shading     a colour of each sample"] if facts.shading == "sample" else []),
        f"space       {facts.space}",
        f"box         {box}",
        f"occupied    {occupied}",
        f"step        {facts.step:.4g} {unit}",
        *([] if facts.is_finite else ["warning     some numbers are not finite"]),
        *(f"{name:<11} {value}" for name, value in facts.tags.items() if value),
    ]
    return "\n".join(lines)
