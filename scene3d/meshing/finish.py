"""Finish: from a raw surface to one worth keeping: specks away, small holes closed, fewer triangles, normals."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from scene3d.core.mesh import Mesh, edge_counts, face_areas, face_edges, vertex_normals

# Longest side of the mesh at first while triangles are left out: others if edges of more than two faces came about.
FIRST_SIZES = (64.0, 90.0, 45.0, 128.0)
# The library's aggressiveness, and rounds of it, each with a mesh of half the size.
HASTE, MOST_ROUNDS = 3, 40
# Borders stay as they are down to so many triangles for each of their edges; fewer would bend what lies between them.
FACES_PER_BORDER = 3
APART = 1e-3  # Of the way to the middle of the neighbours.


@dataclass(frozen=True)
class FinishSettings:
    """What to do to a raw surface.

    Attributes:
        min_component: Connected pieces with less than this share of the area of the largest are removed.
        max_hole_edges: Holes with at most that many edges are closed.
        max_faces: Triangles at most; 0 = as many as there are.
        keep_borders: Leave out triangles within the surface first: what lies along borders stays; for distances, not
            for pictures, which want them elsewhere.
    """

    min_component: float = 1e-3
    max_hole_edges: int = 60
    max_faces: int = 50_000
    keep_borders: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.min_component <= 1:
            raise ValueError(f"min_component: expected a share from 0 to 1, got {self.min_component}")
        if self.max_hole_edges < 0 or self.max_faces < 0:
            raise ValueError(
                f"max_hole_edges, max_faces: expected 0 or more, got {self.max_hole_edges} and {self.max_faces}"
            )


def finish(mesh: Mesh, settings: FinishSettings) -> Mesh:
    """The cleaned mesh, with normals; colours and textures of `mesh` are dropped."""
    mesh = remove_specks(mesh.bare(), settings.min_component)
    mesh = close_holes(mesh, settings.max_hole_edges)
    if settings.max_faces and mesh.n_faces > settings.max_faces:
        mesh = decimate(mesh, settings.max_faces, settings.keep_borders)
    mesh = unpaired(unforked(mesh, can_close=settings.max_hole_edges >= 3))
    return replace(mesh, normals=vertex_normals(mesh))


def components(mesh: Mesh) -> Tensor:
    """Number of the connected piece of every face. [F] int64"""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    a, b, c = mesh.faces.numpy().T
    rows, columns = np.concatenate([a, b]), np.concatenate([b, c])
    n = len(mesh.vertices)
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    return torch.from_numpy(labels[a].astype(np.int64))


def remove_specks(mesh: Mesh, min_share: float) -> Mesh:
    """Drop connected pieces whose area is below a share of the largest piece's."""
    if mesh.n_faces == 0 or min_share == 0:
        return mesh
    labels = components(mesh)
    areas = torch.zeros(int(labels.max()) + 1, dtype=torch.float64).index_add_(0, labels, face_areas(mesh).double())
    return mesh.with_faces((areas >= min_share * areas.max())[labels])


def boundary_loops(mesh: Mesh) -> list[list[int]]:
    """Closed chains of edges that belong to one face only, in the direction that a patch over them needs.

    Where several holes meet in one vertex, no chain goes through it: those holes are left out.
    """
    edges = face_edges(mesh.faces).numpy()
    n = len(mesh.vertices)
    keys, reverse = edges[:, 0] * n + edges[:, 1], edges[:, 1] * n + edges[:, 0]
    border = edges[~np.isin(keys, reverse)]
    starts, counts = np.unique(border[:, 1], return_counts=True)
    is_plain = np.isin(border[:, 1], starts[counts == 1])
    following = {int(b): int(a) for a, b in border[is_plain]}
    loops = []
    while following:
        start, at = next(iter(following.items()))
        del following[start]
        loop = [start]
        while at in following and at != start:
            loop.append(at)
            at = following.pop(at)
        if at == start and len(loop) >= 3:
            loops.append(loop)
    return loops


def is_closed(mesh: Mesh) -> bool:
    """Whether every edge belongs to exactly two faces."""
    return mesh.n_faces > 0 and bool((edge_counts(mesh) == 2).all())


def close_holes(mesh: Mesh, max_edges: int) -> Mesh:
    """Close holes of at most `max_edges` edges by fans around their middle. Per-vertex data is dropped."""
    loops = [loop for loop in boundary_loops(mesh) if len(loop) <= max_edges] if mesh.n_faces else []
    if not loops:
        return mesh
    middles: list[Tensor] = []
    fans: list[Tensor] = []
    for loop in loops:
        at = torch.tensor(loop)
        if len(loop) == 3:
            fans.append(at[None])
            continue
        centre = len(mesh.vertices) + len(middles)
        middles.append(mesh.vertices[at].mean(dim=0))
        fans.append(torch.stack([at, at.roll(-1), torch.full_like(at, centre)], dim=1))
    vertices = torch.cat([mesh.vertices, *(m[None] for m in middles)])
    return Mesh(vertices, torch.cat([mesh.faces, *fans]))


def unforked(mesh: Mesh, can_close: bool = True) -> Mesh:
    """Without the smaller ones of faces that have an edge in the same direction.

    Then every edge has at most two faces, and those turn alike. Marching cubes, collapsed edges and views that part
    what touches leave some such edges.

    Args:
        mesh: Per-vertex data is dropped where a face goes.
        can_close: A triangle that is missing then is put back the other way round if that fits.
    """
    ends = face_edges(mesh.faces)
    keys = torch.unique(ends[:, 0] * max(len(mesh.vertices), 1) + ends[:, 1], return_inverse=True)[1]
    # Equal areas: the first stays.
    rank = torch.empty(mesh.n_faces, dtype=torch.int64)
    rank[face_areas(mesh).argsort(descending=True, stable=True)] = torch.arange(mesh.n_faces)
    best = torch.full_like(keys, mesh.n_faces).scatter_reduce(0, keys, rank.repeat(3), "amin")
    keep = (best[keys] == rank.repeat(3)).reshape(3, -1).all(dim=0)
    if bool(keep.all()):
        return mesh
    kept = mesh.bare().with_faces(keep)
    closed = close_holes(kept, 3) if can_close else kept
    return closed if closed.n_faces <= mesh.n_faces else kept


def unpaired(mesh: Mesh) -> Mesh:
    """Without triangles back to back on the same corners, which hold nothing; programs would take one of two away."""
    if mesh.n_faces == 0:
        return mesh
    _, group, counts = torch.unique(mesh.faces.sort(dim=1).values, dim=0, return_inverse=True, return_counts=True)
    keep = counts[group] == 1
    return mesh if bool(keep.all()) else mesh.with_faces(keep)


def decimate(mesh: Mesh, max_faces: int, keep_borders: bool = True) -> Mesh:
    """Fewer triangles by quadric error (Garland and Heckbert 1997). Per-vertex data is dropped.

    A mesh without borders becomes one whose edges belong to two faces each, if need be with triangles without area.
    """
    counts = edge_counts(mesh)
    is_open = bool((counts % 2 == 1).any())
    if is_open and keep_borders:
        # Collapsing edges of borders eats what lies along them.
        first = max(max_faces, FACES_PER_BORDER * int((counts == 1).sum()))
        mesh = _simplified(mesh, first, FIRST_SIZES[0], keep_borders=True)
    for first_size in FIRST_SIZES:
        result = _simplified(mesh, max_faces, first_size)
        # Edges of four faces come from collapsing many edges at a time.
        if is_open or int(edge_counts(result).max()) <= 2:
            break
    return result.with_faces(face_areas(result) > 0) if is_open else _moved_apart(result)


def _moved_apart(mesh: Mesh) -> Mesh:
    """Vertices at one place move a little to their neighbours: else welding them by place would tear the surface."""
    group, counts = torch.unique(mesh.vertices, dim=0, return_inverse=True, return_counts=True)[1:]
    shared = counts[group] > 1
    if not bool(shared.any()):
        return mesh
    ends = torch.cat([mesh.faces, mesh.faces.roll(1, dims=1)]).reshape(-1)
    others = torch.cat([mesh.faces.roll(1, dims=1), mesh.faces]).reshape(-1)
    sums = torch.zeros_like(mesh.vertices).index_add(0, ends, mesh.vertices[others])
    n = torch.zeros(len(mesh.vertices)).index_add(0, ends, torch.ones(len(ends)))
    middles = sums / n.clamp_min(1)[:, None]
    return replace(
        mesh, vertices=torch.where(shared[:, None], torch.lerp(mesh.vertices, middles, APART), mesh.vertices)
    )


def _simplified(mesh: Mesh, max_faces: int, first_size: float, keep_borders: bool = False) -> Mesh:
    """Collapse the cheapest edges first.

    What a collapse may cost rises from pass to pass of the library, up to a fixed number: where many edges must go, it
    would end with taking any. So it is given a large mesh, of which it takes little, then a smaller one, and so on.
    """
    import fast_simplification

    longest = float((mesh.vertices.amax(dim=0) - mesh.vertices.amin(dim=0)).max())
    vertices, faces = mesh.vertices.double().numpy(), mesh.faces.numpy().astype(np.int32)
    middle = vertices.mean(axis=0)
    size = first_size / longest if longest > 0 else 1.0
    for _ in range(MOST_ROUNDS):
        if len(faces) <= max_faces:
            break
        vertices, faces = fast_simplification.simplify(
            (vertices - middle) * size, faces, target_count=max_faces, agg=HASTE, preserve_border=keep_borders
        )
        vertices, size = vertices / size + middle, size / 2
    return Mesh(torch.from_numpy(vertices.astype(np.float32)), torch.from_numpy(faces.astype(np.int64)))
