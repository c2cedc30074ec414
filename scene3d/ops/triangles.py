"""Triangles against pixels and points: the nearest face behind every pixel, the nearest point to every query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.checks import Dims
from scene3d.core.errors import BackendUnavailable
from scene3d.core.mesh import Mesh, face_edges, face_normals
from scene3d.ops.depth_edges import near_edges

try:
    from scene3d import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]

NEAR = 1e-4
MAX_FACES = 2**31 - 1
# Flatter than 87 degrees a picture says nothing about a surface.
MIN_FACING = 0.05
# Barycentric weights below it are 0 but for rounding: the nearest point lies on an edge or at a corner.
ZERO_WEIGHT = 1e-6


@dataclass(frozen=True)
class MeshView:
    """What one camera sees of a mesh, at pixel centres.

    Attributes:
        depth: z in the camera, 0 = nothing. [H, W] float32
        face: Index of the face, -1 = nothing. [H, W] int32
        weights: Perspective-correct barycentric weights of the corners. [H, W, 3] float32
    """

    depth: Tensor
    face: Tensor
    weights: Tensor

    @property
    def hit(self) -> Tensor:
        """Where there is a face. [H, W] bool"""
        return self.face >= 0


@dataclass(frozen=True)
class Closest:
    """Nearest points on a mesh.

    Attributes:
        distances: [Q] float32
        faces: [Q] int64
        weights: Barycentric weights of the corners. [Q, 3] float32
    """

    distances: Tensor
    faces: Tensor
    weights: Tensor

    def points(self, mesh: Mesh) -> Tensor:
        """The nearest points, on that mesh. [Q, 3]"""
        return (mesh.corners()[self.faces] * self.weights[:, :, None]).sum(dim=1)


def view_mesh(mesh: Mesh, cameras: Cameras, i: int = 0, near: float = NEAR) -> MeshView:
    """What camera i sees of a mesh; both sides of a face are seen.

    Args:
        mesh: At most 2^31 - 1 faces.
        cameras: Views.
        i: Which of them.
        near: Nearer parts are not seen, scene units.
    """
    native = _native()
    height, width = cameras.height(i), cameras.width(i)
    if mesh.n_faces > MAX_FACES:
        raise ValueError(f"faces: expected at most {MAX_FACES}, got {mesh.n_faces}")
    depth = torch.empty(height, width)
    face = torch.empty(height, width, dtype=torch.int32)
    weights = torch.empty(height, width, 2)
    viewmat, K = (value[i].detach().double().contiguous() for value in (cameras.viewmats, cameras.Ks))
    native.rasterize_mesh(
        mesh.vertices.detach().contiguous(), mesh.faces.contiguous(), viewmat, K, near, depth, face, weights
    )
    third = torch.where(face >= 0, 1 - weights.sum(dim=-1), 0.0)
    return MeshView(depth, face, torch.cat([weights, third[..., None]], dim=-1))


def closest_on_mesh(mesh: Mesh, queries: Tensor) -> Closest:
    """The exact nearest point of a mesh for every query; of equally near faces the first.

    Args:
        mesh: At least one face.
        queries: Finite. [Q, 3] float32

    Raises:
        ValueError: the mesh is empty or a number is not finite.
    """
    Dims().check("queries", queries, "Q 3", torch.float32)
    if mesh.n_faces == 0:
        raise ValueError("mesh: expected at least one face, got 0")
    for name, value in (("queries", queries), ("vertices", mesh.vertices)):
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name}: expected finite coordinates")
    n = len(queries)
    result = Closest(torch.empty(n), torch.empty(n, dtype=torch.int64), torch.empty(n, 3))
    _native().closest_on_mesh(
        mesh.vertices.detach().contiguous(),
        mesh.faces.contiguous(),
        queries.detach().contiguous(),
        result.distances,
        result.faces,
        result.weights,
    )
    return result


def signed_distance(mesh: Mesh, queries: Tensor) -> Tensor:
    """Distance to a closed mesh, negative inside.

    The sign is that of the angle-weighted normal at the nearest point (Baerentzen and Aanaes 2005).

    Args:
        mesh: Closed, faces counter-clockwise seen from outside; holes give wrong signs near them.
        queries: [Q, 3] float32

    Returns:
        [Q] float32.
    """
    closest = closest_on_mesh(mesh, queries)
    corners = mesh.faces[closest.faces]
    points = closest.points(mesh)
    normals = torch.nn.functional.normalize(face_normals(mesh).double(), dim=1)
    at_vertex = _angle_normals(mesh, normals)
    # On an edge the weight opposite is 0, at a corner two are: there the normals of all faces around count.
    is_zero = closest.weights <= ZERO_WEIGHT
    n_zero = is_zero.sum(dim=1)
    chosen = normals[closest.faces]
    on_corner = n_zero == 2
    corner = corners.gather(1, closest.weights.argmax(dim=1, keepdim=True))[:, 0]
    chosen = torch.where(on_corner[:, None], at_vertex[corner], chosen)
    on_edge = (n_zero == 1).nonzero()[:, 0]
    if len(on_edge):
        opposite = is_zero[on_edge].long().argmax(dim=1)
        ends = torch.stack([(opposite + 1) % 3, (opposite + 2) % 3], dim=1)
        chosen[on_edge] = _edge_normals(mesh, normals, corners[on_edge].gather(1, ends))
    side = ((queries.double() - points.double()) * chosen).sum(dim=1)
    return torch.where(side < 0, -closest.distances, closest.distances)


def _angle_normals(mesh: Mesh, normals: Tensor) -> Tensor:  # [V, 3] float64
    total = torch.zeros(len(mesh.vertices), 3, dtype=torch.float64)
    corners = mesh.corners().double()
    for k in range(3):
        a = torch.nn.functional.normalize(corners[:, (k + 1) % 3] - corners[:, k], dim=1)
        b = torch.nn.functional.normalize(corners[:, (k + 2) % 3] - corners[:, k], dim=1)
        angle = (a * b).sum(dim=1).clamp(-1, 1).acos()
        total.index_add_(0, mesh.faces[:, k], angle[:, None] * normals)
    return total


def _edge_normals(mesh: Mesh, normals: Tensor, ends: Tensor) -> Tensor:  # [E, 2] -> [E, 3]
    """Sums of the normals of the faces at edges."""
    n = len(mesh.vertices)
    edges = face_edges(mesh.faces).sort(dim=1).values
    keys, place = torch.unique(edges[:, 0] * n + edges[:, 1], return_inverse=True)
    total = torch.zeros(len(keys), 3, dtype=torch.float64).index_add_(0, place, normals.repeat(3, 1))
    wanted = ends.sort(dim=1).values
    return total[torch.searchsorted(keys, wanted[:, 0] * n + wanted[:, 1])]


def sample_surface(mesh: Mesh, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points spread evenly over the area of a mesh.

    Returns:
        Points [n, 3] and the faces they lie on [n].

    Raises:
        ValueError: the mesh has no area.
    """
    corners = mesh.corners().double()
    a, b, c = corners.unbind(dim=1)
    areas = torch.linalg.cross(b - a, c - a).norm(dim=1)
    total = areas.cumsum(0)
    if mesh.n_faces == 0 or not float(total[-1]) > 0:
        raise ValueError("mesh: expected some area, got none")
    generator = torch.Generator().manual_seed(seed)
    # One draw in each of n equal shares of the area: more even than n free draws.
    share = (torch.arange(n, dtype=torch.float64) + torch.rand(n, generator=generator, dtype=torch.float64)) / n
    faces = torch.searchsorted(total, share * total[-1]).clamp_max(mesh.n_faces - 1)
    u, v = torch.rand(2, n, generator=generator, dtype=torch.float64)
    root = u.sqrt()
    weights = torch.stack([1 - root, root * (1 - v), root * v], dim=1)
    return (corners[faces] * weights[:, :, None]).sum(dim=1).float(), faces


def n_views_seeing(mesh: Mesh, points: Tensor, cameras: Cameras) -> Tensor:
    """How many views see each point [P, 3] of a mesh. [P] int32

    A point counts where it is no farther than the farthest of the four pixels around it: on a slanted surface the
    nearest pixel alone may lie in front of it. Behind a silhouette half a pixel too much is seen.
    """
    native = _native()
    count = torch.zeros(len(points), dtype=torch.int32)
    for i in range(len(cameras)):
        viewmat, K = (value[i].detach().double().contiguous() for value in (cameras.viewmats, cameras.Ks))
        native.count_views(points.contiguous(), viewmat, K, view_mesh(mesh, cameras, i).depth, count)
    return count


def blend_pictures(
    mesh: Mesh,
    points: Tensor,
    normals: Tensor,
    cameras: Cameras,
    pictures: Sequence[Tensor],
    facing_power: float,
    on_view: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """Mean colour of points in the pictures that see them, weighted by resolution and by how straight they are seen.

    Args:
        mesh: What hides points.
        points: On the mesh. [P, 3] float32
        normals: Unit. [P, 3] float32
        cameras: The views.
        pictures: One per view. [H, W, 3] uint8
        facing_power: Of the cosine between normal and ray: small values average many views, large ones take the best.
        on_view: Called after each view.

    Returns:
        sRGB in [0, 255], 0 where no view sees the point [P, 3], and the total weight [P].
    """
    native = _native()
    total, weight = torch.zeros(len(points), 3), torch.zeros(len(points))
    points, normals = points.contiguous(), normals.contiguous()
    for i in range(len(cameras)):
        viewmat, K = (value[i].detach().double().contiguous() for value in (cameras.viewmats, cameras.Ks))
        depth = view_mesh(mesh, cameras, i).depth
        mixed, picture = near_edges(depth).to(torch.uint8), pictures[i].contiguous()
        native.blend_picture(
            points, normals, viewmat, K, depth, mixed, picture, MIN_FACING, facing_power, total, weight
        )
        on_view()
    return total / weight.clamp_min(torch.finfo(torch.float32).tiny)[:, None], weight


def _native():  # type: ignore[no-untyped-def]
    if _cpu is None:
        raise BackendUnavailable("cpu", "the native module is not built", "Install with its native code: pip install .")
    return _cpu
