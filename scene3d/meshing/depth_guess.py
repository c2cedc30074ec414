"""Depth guesses: what comparing photos begins with, of a scene itself or of a first mesh of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.mesh import Mesh, vertex_normals
from scene3d.meshing.depth_views import SurfaceViews
from scene3d.ops.plane_match import Search, partner_views, planes_of
from scene3d.ops.sight import sights_of
from scene3d.ops.triangles import MeshView, view_mesh
from scene3d.render.planes import depth_normals

# Depth of splats is up to two pixels off, that of a mesh that photos have bettered less than one.
OWN_SEARCH, MESH_SEARCH = Search(4, 0.01, 0.3), Search(3, 0.003, 0.1)
# Views that each one is compared with, and that are asked whether they agree; three and eight of them at each place.
N_PARTNERS, N_ASKED = 8, 20
ENOUGH_PARTNERS, ENOUGH_ASKED = 3.0, 8.0


@dataclass(frozen=True)
class DepthGuess:
    """What is known before photos are compared.

    Attributes:
        planes: Of every view, see ops/plane_match. [3, H, W]
        partners: The views that each one is compared with.
        asked: The views whose depths must agree with its.
        search: How far off the planes may be.
        has_edges: Whether edges are where they belong: else nothing near them is compared.
    """

    planes: tuple[Tensor, ...]
    partners: tuple[list[int], ...]
    asked: tuple[list[int], ...]
    search: Search
    has_edges: bool


def own_guess(views: SurfaceViews) -> DepthGuess:
    """The depths of a scene; partners see the middle of what a view sees from well different places."""
    cameras, planes, typical = views.cameras, [], []
    for i, image in enumerate(views.depths):
        depth, camera = torch.where(image.is_known(), image.depth, 0.0), cameras.select([i])
        planes.append(planes_of(depth, depth_normals(depth, camera)[0], camera))
        typical.append(_typical(depth))
    partners = tuple(partner_views(cameras, torch.stack(typical)))
    return DepthGuess(tuple(planes), partners, partners, OWN_SEARCH, False)


def mesh_guess(mesh: Mesh, own: DepthGuess, cameras: Cameras) -> DepthGuess:
    """The depths of a mesh, those of the scene where it has holes; partners see most of the places that a view sees."""
    normals = vertex_normals(mesh)
    depths, planes = [], []
    for i in range(len(cameras)):
        seen = seen_mesh(mesh, normals, cameras, i)
        depths.append(seen.view.depth)
        planes.append(torch.where(seen.view.hit, seen.planes(cameras.select([i])), own.planes[i]))
    partners, asked = [], []
    for i in range(len(cameras)):
        sights = sights_of(depths, seen_mesh(mesh, normals, cameras, i).normals, cameras, i)
        partners.append(sights.picked(N_PARTNERS, ENOUGH_PARTNERS))
        asked.append(sights.picked(N_ASKED, ENOUGH_ASKED))
    return DepthGuess(tuple(planes), tuple(partners), tuple(asked), MESH_SEARCH, True)


@dataclass(frozen=True)
class SeenMesh:
    """What a view sees of a mesh, and how it lies there.

    Attributes:
        view: Depths and faces.
        normals: Unit, world, 0 where there is nothing. [H, W, 3]
    """

    view: MeshView
    normals: Tensor

    def planes(self, camera: Cameras) -> Tensor:
        """See ops/plane_match. [3, H, W]"""
        return planes_of(self.view.depth, self.normals, camera)


def seen_mesh(mesh: Mesh, vertex_normals: Tensor, cameras: Cameras, i: int) -> SeenMesh:
    """What view i sees of a mesh with normals at its vertices [V, 3]."""
    view = view_mesh(mesh, cameras, i)
    corners = mesh.faces[view.face.long().clamp_min(0)]
    normals = torch.nn.functional.normalize((vertex_normals[corners] * view.weights[..., None]).sum(dim=2), dim=2)
    return SeenMesh(view, torch.where(view.hit[..., None], normals, 0.0))


def _typical(depth: Tensor) -> Tensor:
    known = depth[depth > 0]
    return known.double().median() if len(known) else torch.tensor(1.0, dtype=torch.float64)
