"""Photo votes: what the photos say of a mesh, pixel by pixel: how far before or behind it they show the surface.

Depths are compared on planes, one view at a time, and what views find need not be one surface. The mesh is: patches of
it are as bent as it is, and wherever it is moved, all views see it there. So it is moved along its normals to where
patches of photos look most alike, neighbours alike. Vu et al. 2012 (High accuracy and visibility-consistent dense
multiview stereo) do so by gradients; here a few offsets are looked at, which sees farther and takes two rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Photo
from scene3d.core.mesh import Mesh, vertex_normals
from scene3d.meshing.depth_guess import N_PARTNERS, SeenMesh, seen_mesh
from scene3d.meshing.photo_depth import grey_photos
from scene3d.meshing.pulls import Pulls, solve, squares
from scene3d.ops.depth_edges import nearness_of
from scene3d.ops.pinhole import from_pixels
from scene3d.ops.sight import sights_of
from scene3d.ops.triangles import view_mesh

N_ROUNDS = 2
# Offsets that are looked at, and how far apart they are, pixels.
N_OFFSETS, STEP = 9, 0.4
# Places need no more than so many views that see them well, of those that each view is compared with.
ENOUGH_PARTNERS = 5.0
# Of a pixel that is seen straight and where likeness bends by 1 in a pixel, beside edges of stiffness 1.
VOTE_WEIGHT = 0.5


def follow_photos(
    mesh: Mesh, photos: Sequence[Photo], cameras: Cameras, on_view: Callable[[], None] = lambda: None
) -> Mesh:
    """The mesh moved to where the photos show the surface, by less than two pixels in each round.

    Args:
        mesh: Within a pixel or two of the surface; faces of about the size of pixels, or larger ones.
        photos: One per camera, of its size. What their masks or their transparency hide says nothing.
        cameras: The views.
        on_view: Called N_ROUNDS + 1 times for each view.

    Raises:
        ValueError: a photo has another size than its view.
    """
    grey, depths = grey_photos(photos, cameras), []
    for i in range(len(cameras)):
        depths.append(view_mesh(mesh, cameras, i).depth)
        on_view()
    # Less than a pixel off in the second round: near enough for what hides what.
    nearness = [nearness_of(depth) for depth in depths]
    partners: list[list[int]] = []
    for _ in range(N_ROUNDS):
        normals = vertex_normals(mesh)
        votes = _Votes(len(mesh.vertices))
        for i in range(len(cameras)):
            seen = seen_mesh(mesh, normals, cameras, i)
            if len(partners) == i:
                partners.append(sights_of(depths, seen.normals, cameras, i).picked(N_PARTNERS, ENOUGH_PARTNERS))
            camera = cameras.select([i])
            offsets, trust = grey.offsets(i, partners[i], seen.planes(camera), nearness, N_OFFSETS, STEP)
            votes.add(mesh, seen, camera, offsets, trust)
            on_view()
        pulls = Pulls(votes.weight[:, None] * squares(normals), votes.shift[:, None] * normals)
        mesh = replace(mesh.bare(), vertices=mesh.vertices + solve(mesh, pulls))
    return mesh


class _Votes:
    """What views say of the V vertices of a mesh: weights, and weights times distances along the normal."""

    def __init__(self, n_vertices: int) -> None:
        self.weight, self.shift = torch.zeros(n_vertices), torch.zeros(n_vertices)

    def add(self, mesh: Mesh, seen: SeenMesh, camera: Cameras, offsets: Tensor, trust: Tensor) -> None:
        """Add what one view says: offsets towards it, pixels [H, W], and their trust [H, W]."""
        rows, columns = seen.view.hit.nonzero(as_tuple=True)
        z = seen.view.depth[rows, columns]
        points = from_pixels(columns, rows, z.double(), camera.viewmats[0], camera.Ks[0]).float()
        sight = torch.nn.functional.normalize(camera.centers()[0].float() - points, dim=1)
        facing = (sight * seen.normals[rows, columns]).sum(dim=1)
        pixel = z / float(camera.Ks[0, 0, 0])
        weight = VOTE_WEIGHT * trust[rows, columns] * facing.abs()
        # Towards the camera is against the normal where the mesh is seen from behind.
        shift = weight * offsets[rows, columns] * pixel * facing.sign()
        corners = mesh.faces[seen.view.face[rows, columns].long()].reshape(-1)
        shares = seen.view.weights[rows, columns]
        self.weight.index_add_(0, corners, (weight[:, None] * shares).reshape(-1))
        self.shift.index_add_(0, corners, (shift[:, None] * shares).reshape(-1))
