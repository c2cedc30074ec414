"""The 256 ways in which a surface cuts a cube, found by following it from face to face.

Corner c of a cube lies at (c & 1, c >> 1 & 1, c >> 2 & 1); its bit in the case is set where it is inside. Edges are
listed in EDGES, lower corner first. Where both diagonals of a face differ, the inside corners are kept apart: the rule
looks at the corners of the face alone, so neighbours agree and the surface closes.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

EDGES: tuple[tuple[int, int], ...] = tuple(
    (c, c | 1 << axis) for axis in range(3) for c in range(8) if not c >> axis & 1
)
EDGE_AXES: tuple[int, ...] = tuple(axis for axis in range(3) for c in range(8) if not c >> axis & 1)
CORNERS: tuple[tuple[int, int, int], ...] = tuple((c & 1, c >> 1 & 1, c >> 2 & 1) for c in range(8))
MAX_LOOPS = 4

_EDGE_OF = {edge: i for i, edge in enumerate(EDGES)}


def loops(case: int) -> tuple[tuple[int, ...], ...]:
    """The closed polygons of one case: edges of the cube in turn, counter-clockwise seen from outside."""
    following: dict[int, int] = {}
    for face in _FACES:
        following.update(_face_segments(case, face))
    result = []
    while following:
        start = min(following)
        loop, at = [], start
        while at in following:
            loop.append(at)
            at = following.pop(at)
        result.append(tuple(loop))
    return tuple(result)


@lru_cache(maxsize=1)
def triangle_table() -> tuple[Tensor, Tensor]:
    """Marching cubes: number of triangles [256] and their cube edges [256, 5, 3], padded with -1."""
    fans = [
        [(loop[0], loop[k], loop[k + 1]) for loop in loops(case) for k in range(1, len(loop) - 1)]
        for case in range(256)
    ]
    counts = torch.tensor([len(fan) for fan in fans])
    table = torch.full((256, int(counts.max()), 3), -1)
    for case, fan in enumerate(fans):
        if fan:
            table[case, : len(fan)] = torch.tensor(fan)
    return counts, table


@lru_cache(maxsize=1)
def loop_table() -> tuple[Tensor, Tensor]:
    """Dual marching cubes: number of polygons [512], and the polygon of each cube edge [512, 12], -1 = none.

    Rows from 256 on keep the outside corners of ambiguous faces apart instead of the inside ones.
    """
    rows = [loops(case) for case in range(256)] + [loops(255 - case) for case in range(256)]
    table = torch.full((512, 12), -1)
    for row, polygons in enumerate(rows):
        for i, polygon in enumerate(polygons):
            table[row, list(polygon)] = i
    return torch.tensor([len(polygons) for polygons in rows]), table


@lru_cache(maxsize=1)
def troubled_faces() -> Tensor:
    """The face of a case whose four cut edges belong to one polygon, -1 = none. [256]

    Where two cubes meet in such a face, four quads of the dual surface would share an edge: both then have to take the
    other row of loop_table (Wenger 2013). No case has two, and these cases have no other ambiguous face.
    Faces are numbered -x, +x, -y, +y, -z, +z.
    """
    result = torch.full((256,), -1)
    for case in range(256):
        polygon_of = {edge: i for i, polygon in enumerate(loops(case)) for edge in polygon}
        for number, face in enumerate(_FACES):
            inside = [bool(case >> corner & 1) for corner in face]
            edges = [_EDGE_OF[_sorted((face[k], face[(k + 1) % 4]))] for k in range(4)]
            if inside[0] == inside[2] != inside[1] == inside[3] and len({polygon_of[e] for e in edges}) == 1:
                result[case] = number
    return result


# Corners of the six faces, counter-clockwise seen from outside of the cube.
_FACES = ((0, 4, 6, 2), (1, 3, 7, 5), (0, 1, 5, 4), (2, 6, 7, 3), (0, 2, 3, 1), (4, 5, 7, 6))


def _face_segments(case: int, face: tuple[int, int, int, int]) -> dict[int, int]:
    """On one face of the cube: from the edge where a walk round it enters the inside to the one where it leaves."""
    inside = [bool(case >> corner & 1) for corner in face]
    segments = {}
    for k in range(4):
        if inside[k] and not inside[(k + 1) % 4]:
            first = k
            while inside[(first - 1) % 4]:
                first = (first - 1) % 4
            leaves, enters = (face[k], face[(k + 1) % 4]), (face[(first - 1) % 4], face[first])
            segments[_EDGE_OF[_sorted(enters)]] = _EDGE_OF[_sorted(leaves)]
    return segments


def _sorted(edge: tuple[int, int]) -> tuple[int, int]:
    return (min(edge), max(edge))
