"""Background: a closed shell behind a mesh, so that pictures of it show the room or the landscape around it too.

In every direction from the middle of the cameras the shell lies as far away as what the views see past the mesh, and
never within the space that they look through. One radius a direction is right for rooms and far land; what stands
between mesh and walls is painted on the walls. Its faces look inwards: viewers that hide back faces see in from
outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.mesh import Mesh, face_edges
from scene3d.core.scene import Scene
from scene3d.meshing.depth_views import SurfaceViews, ViewSettings, choose_views, render_views
from scene3d.meshing.fusion import DepthImage, world_points
from scene3d.ops.triangles import view_mesh

SUBDIVISIONS = 4
# Of the shell: an icosahedron, every face cut into four as often.
N_FACES = 20 * 4**SUBDIVISIONS
# The shell keeps this share of distance behind what cameras look at and through.
ROOM = 1.03
# Places along each ray to the mesh that must lie within the shell.
N_ALONG = 6
N_SMOOTHINGS = 2
# Pixels around the mesh that may still show its own scene: meshes are a little smaller.
RIM = 3
# Of the pixels that do not show the mesh, so many must show something.
MIN_BEHIND = 0.1
# Whether there is an outside is asked of so many small views: it fills this share of them at least, and so much of what
# shows nothing nearer.
N_ASKED, ASKED_SIDE = 24, 120
OUTSIDE_SHARE, OPAQUE_SHARE = 0.02, 0.5
# Texels a pixel along each side: the shell fills most of many pictures and is seldom what they are about.
TEXEL_SHARE = 0.5
# What no view sees gets so much less along each side.
UNSEEN_SHARE = 0.1


def has_outside(scene: Scene, cameras: Cameras, settings: ViewSettings) -> bool:
    """Whether views show something opaque farther away than the surfaces that are wanted: walls, a landscape.

    Args:
        scene: Any.
        cameras: Its views.
        settings: Of it `far` says where surfaces end.
    """
    small = choose_views(cameras, N_ASKED, ASKED_SIDE)
    views = render_views(scene, small, replace(settings, far=math.inf))
    depths = torch.cat([image.depth.flatten() for image in views.depths])
    outside = float((depths > settings.far).sum())
    around = float(((depths == 0) | (depths > settings.far)).sum())
    return outside >= OUTSIDE_SHARE * len(depths) and outside >= OPAQUE_SHARE * around


@dataclass(frozen=True)
class Background:
    """A shell and the room that it deserves on a texture.

    Attributes:
        mesh: Closed, faces counter-clockwise seen from within; seen faces first.
        packing: Its vertices as they are to be unwrapped, sized by the pixels that show them. [V, 3] float32
    """

    mesh: Mesh
    packing: Tensor


@dataclass(frozen=True)
class _Sights:
    """What all views see, from the middle of the cameras."""

    behind: Tensor  # Points past the mesh. [P, 3] float64
    footprints: Tensor  # Sizes of their pixels, scene units. [P]
    through: Tensor  # Places that nothing may hide. [Q, 3] float64
    footprint: float  # Of the mesh.


def background_of(mesh: Mesh, views: SurfaceViews) -> Background:
    """The shell around a mesh.

    Args:
        mesh: What stands before the background.
        views: What is seen, however far away; few pixels will do.

    Raises:
        ValueError: nothing opaque is seen past the mesh.
    """
    from scipy.spatial import cKDTree

    middle = views.cameras.centers().double().mean(dim=0)
    sights = _sights(mesh, views, middle)
    directions, faces = _sphere()
    tree = cKDTree(directions.numpy())

    def bins(points: Tensor) -> Tensor:
        return torch.from_numpy(tree.query(torch.nn.functional.normalize(points, dim=1).numpy())[1])

    place = bins(sights.behind)
    radius = _medians(sights.behind.norm(dim=1), place, len(directions))
    seen = ~radius.isnan()
    reach = torch.zeros(len(directions), dtype=torch.float64)
    reach.scatter_reduce_(0, bins(sights.through), ROOM * sights.through.norm(dim=1), "amax")
    edges = face_edges(faces)
    edges = torch.cat([edges, edges.flip(1)])
    # Faces between two directions must stay behind what is seen in either.
    reach = reach.clone().scatter_reduce_(0, edges[:, 0], reach[edges[:, 1]], "amax")
    radius = _smooth(_spread(radius, edges), edges)
    vertices = directions * torch.maximum(radius, reach)[:, None]
    size = sights.behind.norm(dim=1) / sights.footprints * sights.footprint
    packed = TEXEL_SHARE * float(size.median()) * directions
    shell = Mesh((vertices + middle).float(), faces)
    is_seen = seen[faces].any(dim=1)
    parts = [(shell.with_faces(is_seen), 1.0, is_seen), (shell.with_faces(~is_seen), UNSEEN_SHARE, ~is_seen)]
    packing = [share * Mesh(packed.float(), faces).with_faces(which).vertices for _, share, which in parts]
    front, back = parts[0][0], parts[1][0]
    return Background(joined(front, back), torch.cat(packing))


def joined(a: Mesh, b: Mesh) -> Mesh:
    """The shapes of both, one after the other."""
    return Mesh(torch.cat([a.vertices, b.vertices]), torch.cat([a.faces, b.faces + len(a.vertices)]))


def without_background(mesh: Mesh) -> Mesh:
    """Of a mesh that ends in its background: what stands before it."""
    return mesh.with_faces(torch.arange(mesh.n_faces - N_FACES))


def _sights(mesh: Mesh, views: SurfaceViews, middle: Tensor) -> _Sights:
    behind, footprints, through, near = [], [], [], []
    for i, image in enumerate(views.depths):
        focal = float(views.cameras.Ks[i, 0, 0])
        front = view_mesh(mesh, views.cameras, i)
        beside = torch.nn.functional.max_pool2d(front.hit.float()[None, None], 2 * RIM + 1, 1, RIM)[0, 0] == 0
        past = DepthImage(torch.where(beside, image.depth, 0.0), torch.ones_like(image.depth))
        behind.append(world_points(past, views.cameras, i) - middle)
        footprints.append(past.depth[past.is_known()].double() / focal)
        near.append(front.depth[front.hit] / focal)
        ends = world_points(DepthImage(front.depth, torch.ones_like(front.depth)), views.cameras, i) - middle
        eye = views.cameras.centers()[i].double() - middle
        steps = torch.linspace(0, 1, N_ALONG, dtype=torch.float64)[:, None, None]
        through.append((eye + steps * (torch.cat([ends, eye[None]]) - eye)).reshape(-1, 3))
    n_around = sum(image.depth.numel() for image in views.depths) - sum(len(depth) for depth in near)
    if sum(len(points) for points in behind) <= MIN_BEHIND * n_around:
        raise ValueError("background: expected something opaque behind the mesh, found none. Leave --background away")
    nearest = torch.cat(near)
    footprint = float(nearest.median()) if len(nearest) else float(torch.cat(footprints).median())
    return _Sights(torch.cat(behind), torch.cat(footprints), torch.cat(through), footprint)


def _sphere() -> tuple[Tensor, Tensor]:
    """Unit directions [V, 3] float64 and faces, seen counter-clockwise from within [F, 3]."""
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=SUBDIVISIONS)
    faces = torch.from_numpy(np.ascontiguousarray(ball.faces, dtype=np.int64))
    return torch.from_numpy(np.ascontiguousarray(ball.vertices, dtype=np.float64)), faces.flip(1)


def _medians(values: Tensor, place: Tensor, n: int) -> Tensor:
    """Median of the values at each of n places, NaN where there are none. [n] float64"""
    order = values.argsort(stable=True)
    order = order[place[order].argsort(stable=True)]
    counts = torch.bincount(place, minlength=n)
    starts = counts.cumsum(0) - counts
    result = torch.full((n,), torch.nan, dtype=torch.float64)
    some = counts > 0
    result[some] = values[order[(starts + counts // 2)[some]]]
    return result


def _spread(values: Tensor, edges: Tensor) -> Tensor:
    """Values where there are none (NaN), ring by ring, as means of their neighbours; edges in both directions."""
    while bool(values.isnan().any()):
        reached = _means(values, edges[~values[edges[:, 1]].isnan()])
        if not bool((values.isnan() & ~reached.isnan()).any()):
            break
        values = torch.where(values.isnan(), reached, values)
    return values


def _smooth(values: Tensor, edges: Tensor) -> Tensor:
    for _ in range(N_SMOOTHINGS):
        values = (values + _means(values, edges)) / 2
    return values


def _means(values: Tensor, edges: Tensor) -> Tensor:
    """Mean of the far ends of the edges of every vertex, NaN where it has none. [V]"""
    total = torch.zeros_like(values).index_add_(0, edges[:, 0], values[edges[:, 1]])
    return total / torch.zeros_like(values).index_add_(0, edges[:, 0], torch.ones_like(values[edges[:, 1]]))
