"""Mesh: triangles with optional normals, colours and texture. Corners run counter-clockwise seen from outside."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.core.checks import Dims


@dataclass(frozen=True)
class Mesh:
    """V vertices, F triangles, in the frame of the scene.

    Attributes:
        vertices: World, scene units. [V, 3] float32
        faces: Indices of corners. [F, 3] int64
        normals: Unit, per vertex. [V, 3] float32
        colors: sRGB, per vertex. [V, 3] uint8
        uvs: Texture coordinates per vertex, (0, 0) bottom left of the image, (1, 1) top right. [V, 2] float32
        texture: sRGB, first row at the top. [H, W, 3] uint8
    """

    vertices: Tensor
    faces: Tensor
    normals: Tensor | None = None
    colors: Tensor | None = None
    uvs: Tensor | None = None
    texture: Tensor | None = None

    def __post_init__(self) -> None:
        dims = Dims()
        dims.check("vertices", self.vertices, "V 3", torch.float32)
        dims.check("faces", self.faces, "F 3", torch.int64)
        if self.normals is not None:
            dims.check("normals", self.normals, "V 3", torch.float32)
        if self.colors is not None:
            dims.check("colors", self.colors, "V 3", torch.uint8)
        if self.uvs is not None:
            dims.check("uvs", self.uvs, "V 2", torch.float32)
        if self.texture is not None:
            dims.check("texture", self.texture, "H W 3", torch.uint8)
        if len(self.faces) and not 0 <= int(self.faces.min()) <= int(self.faces.max()) < len(self.vertices):
            raise ValueError(
                f"faces: expected indices from 0 to {len(self.vertices) - 1}, got {int(self.faces.min())} to "
                f"{int(self.faces.max())}"
            )

    @property
    def n_faces(self) -> int:
        return self.faces.shape[0]

    def corners(self) -> Tensor:
        """Corner positions of every face. [F, 3, 3]"""
        return self.vertices[self.faces]

    def bare(self) -> Mesh:
        """The shape only."""
        return Mesh(self.vertices, self.faces)

    def with_faces(self, keep: Tensor) -> Mesh:
        """The faces `keep` (mask [F] or indices) and the vertices that they use."""
        faces = self.faces[keep]
        used = torch.zeros(len(self.vertices), dtype=torch.bool)
        used[faces.reshape(-1)] = True
        place = used.cumsum(0) - 1
        rows = {name: getattr(self, name) for name in ("normals", "colors", "uvs")}
        kept = {name: value[used] for name, value in rows.items() if value is not None}
        return replace(self, vertices=self.vertices[used], faces=place[faces], **kept)


def face_edges(faces: Tensor) -> Tensor:
    """Edges of faces [F, 3], along each: those from corner 0 to 1 of all, then 1 to 2, then 2 to 0. [3F, 2]"""
    return torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def unique_edges(mesh: Mesh) -> Tensor:
    """Every edge once, the lower vertex first, in the order of their numbers. [E, 2]"""
    return _numbered_edges(mesh)[0]


def edge_counts(mesh: Mesh) -> Tensor:
    """How many faces each of unique_edges belongs to. [E]"""
    return _numbered_edges(mesh)[1]


def _numbered_edges(mesh: Mesh) -> tuple[Tensor, Tensor]:
    n = max(len(mesh.vertices), 1)
    ends = face_edges(mesh.faces).sort(dim=1).values
    keys, counts = torch.unique(ends[:, 0] * n + ends[:, 1], return_counts=True)
    return torch.stack([keys // n, keys % n], dim=1), counts


def face_normals(mesh: Mesh) -> Tensor:
    """Normals of faces, of twice their area in length. [F, 3]"""
    a, b, c = mesh.corners().unbind(dim=1)
    return torch.linalg.cross(b - a, c - a)


def face_areas(mesh: Mesh) -> Tensor:
    """Areas of faces. [F]"""
    return face_normals(mesh).norm(dim=1) / 2


def vertex_normals(mesh: Mesh) -> Tensor:
    """Normals of vertices: the mean of the faces around, by area. Unit, as files demand: where faces cancel each other
    out, that of the largest of them; z where there is none. [V, 3]"""
    per_face = face_normals(mesh).double()
    area = per_face.norm(dim=1)
    corners, faces = mesh.faces.reshape(-1), torch.arange(mesh.n_faces).repeat_interleave(3)
    total = torch.zeros(len(mesh.vertices), 3, dtype=torch.float64).index_add_(0, corners, per_face[faces])
    sums = torch.zeros_like(total[:, 0]).index_add_(0, corners, area[faces])
    largest = torch.zeros_like(sums).scatter_reduce_(0, corners, area[faces], "amax")
    # Of slivers back to back, rounding is all that is left.
    lost = total.norm(dim=1) <= 1e-6 * sums
    is_largest = lost[corners] & (area[faces] == largest[corners])
    total[corners[is_largest]] = per_face[faces[is_largest]]
    length = total.norm(dim=1, keepdim=True)
    upward = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    # Twice areas below the smallest normal double are no areas.
    return torch.where(length > 1e-300, total / length.clamp_min(1e-300), upward).float()
