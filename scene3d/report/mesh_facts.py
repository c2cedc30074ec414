"""Facts about a mesh file: what `scene3d info` tells of it, as data and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from scene3d.core.mesh import Mesh, face_areas, face_edges
from scene3d.report.facts import size_text


@dataclass(frozen=True)
class MeshFacts:
    """A mesh.

    Attributes:
        size_bytes: Of the file; a texture beside it is not counted.
        n_faces: Triangles.
        n_vertices: As stored: a seam of the texture doubles them.
        n_degenerate: Triangles without area.
        n_nonfinite: Vertices with a NaN or an infinity.
        n_open_edges: Edges with one triangle only, vertices at one place being one; 0 where it is watertight.
        n_forked_edges: Edges with more than two triangles.
        area: Of all triangles, scene units squared.
        bounds: Least and greatest corner, world.
        texture: Width and height, texels; None where there is none.
        has_colors: Colours at vertices.
    """

    size_bytes: int
    n_faces: int
    n_vertices: int
    n_degenerate: int
    n_nonfinite: int
    n_open_edges: int
    n_forked_edges: int
    area: float
    bounds: list[list[float]]
    texture: tuple[int, int] | None
    has_colors: bool

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def mesh_facts(mesh: Mesh, size_bytes: int) -> MeshFacts:
    """Gather the facts of a mesh whose file has `size_bytes`."""
    finite = mesh.vertices.isfinite().all(dim=1)
    sound = mesh.vertices[finite]
    areas = face_areas(mesh).double()
    usage = _triangles_per_edge(mesh)
    return MeshFacts(
        size_bytes=size_bytes,
        n_faces=mesh.n_faces,
        n_vertices=len(mesh.vertices),
        n_degenerate=int((areas == 0).sum()),
        n_nonfinite=int((~finite).sum()),
        n_open_edges=int((usage == 1).sum()),
        n_forked_edges=int((usage > 2).sum()),
        area=float(areas.nan_to_num(0.0).sum()),
        bounds=[sound.amin(dim=0).tolist(), sound.amax(dim=0).tolist()] if len(sound) else [[0.0] * 3, [0.0] * 3],
        texture=None if mesh.texture is None else (mesh.texture.shape[1], mesh.texture.shape[0]),
        has_colors=mesh.colors is not None,
    )


def mesh_text(facts: MeshFacts) -> str:
    """The facts for a terminal."""
    low, high = facts.bounds
    box = "  ".join(f"{axis} {a:.4g} to {b:.4g}" for axis, a, b in zip("xyz", low, high, strict=True))
    closed = "watertight" if facts.n_open_edges == facts.n_forked_edges == 0 else f"{facts.n_open_edges:,} open"
    forked = f", {facts.n_forked_edges:,} with more than two triangles" if facts.n_forked_edges else ""
    colors = "at vertices" if facts.has_colors else "none"
    if facts.texture is not None:
        colors = f"texture of {facts.texture[0]}x{facts.texture[1]} texels"
    return "\n".join(
        [
            f"mesh          {facts.n_faces:,} triangles, {facts.n_vertices:,} vertices",
            f"file          {size_text(facts.size_bytes)}",
            f"colours       {colors}",
            f"edges         {closed}{forked}",
            f"no area       {facts.n_degenerate:,} triangles",
            f"not finite    {facts.n_nonfinite:,} vertices",
            f"box           {box}",
            f"area          {facts.area:.4g} square scene units",
        ]
    )


def _triangles_per_edge(mesh: Mesh) -> torch.Tensor:
    """How many triangles each edge has, vertices at the same place being the same. [E]"""
    if mesh.n_faces == 0:
        return torch.zeros(0, dtype=torch.int64)
    _, place = torch.unique(mesh.vertices, dim=0, return_inverse=True)
    edges = face_edges(place[mesh.faces]).sort(dim=1).values
    edges = edges[edges[:, 0] != edges[:, 1]]
    return torch.unique(edges, dim=0, return_counts=True)[1]
