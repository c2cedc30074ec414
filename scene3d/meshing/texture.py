"""Texture: a mesh unwrapped onto an image whose texels take their colours from pictures of the scene."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.mesh import Mesh, face_edges, face_normals, vertex_normals
from scene3d.ops.triangles import MeshView, blend_pictures, view_mesh

# Texels between charts: bilinear lookups and a few mipmaps never reach the neighbour.
PADDING = 4
GREY = 128.0
# The time of unwrapping grows with the square of the faces, so parts of a mesh have charts of their own.
FACES_AT_ONCE = 1500
# See blend_pictures.
FACING_POWER = 3.0


def color_vertices(mesh: Mesh, cameras: Cameras, pictures: Sequence[Tensor]) -> Mesh:
    """The mesh with colours at its vertices; vertices that no picture shows take those of their neighbours."""
    mesh = replace(mesh, normals=mesh.normals if mesh.normals is not None else vertex_normals(mesh))
    assert mesh.normals is not None
    colors, weight = blend_pictures(mesh, mesh.vertices, mesh.normals, cameras, pictures, FACING_POWER)
    colors = _spread_over_edges(mesh, colors, weight > 0)
    return replace(mesh, colors=colors.round().clamp(0, 255).to(torch.uint8))


def unwrap(mesh: Mesh, size: int, packing: Tensor | None = None) -> Mesh:
    """The mesh cut into charts that lie side by side on a square image of `size` texels.

    Vertices on cuts are doubled. Normals and the order of faces are kept.

    Args:
        mesh: To unwrap.
        size: Side of the image, texels.
        packing: Vertices that decide where cuts are and how many texels faces get; None takes those of the mesh. [V, 3]
    """
    import xatlas

    atlas = xatlas.Atlas()
    shape = _of_usual_size(mesh.vertices if packing is None else packing)
    parts = split_faces(shape[mesh.faces].mean(dim=1), FACES_AT_ONCE)
    used = [torch.unique(mesh.faces[part], return_inverse=True) for part in parts]
    for rows, faces in used:
        atlas.add_mesh(shape[rows].numpy(), faces.numpy().astype(np.uint32))
    charts, options = xatlas.ChartOptions(), xatlas.PackOptions()
    charts.max_iterations = 1
    options.resolution = size
    options.padding = PADDING
    options.bilinear = True
    options.create_image = False
    options.bruteForce = False
    atlas.generate(charts, options)
    sources, corners, places, n = [], torch.empty_like(mesh.faces), [], 0
    for k, (part, (rows, _)) in enumerate(zip(parts, used, strict=True)):
        origin, faces, uvs = atlas[k]
        sources.append(rows[torch.from_numpy(origin.astype(np.int64))])
        corners[part] = torch.from_numpy(faces.astype(np.int64)) + n
        places.append(torch.from_numpy(np.ascontiguousarray(uvs, dtype=np.float32)))
        n += len(origin)
    source = torch.cat(sources)
    normals = None if mesh.normals is None else mesh.normals[source]
    return Mesh(mesh.vertices[source], corners, normals, uvs=torch.cat(places))


def _of_usual_size(vertices: Tensor) -> Tensor:
    """Scaled without rounding to 2 to 4 units: small triangles are no triangles to xatlas."""
    longest = float((vertices.amax(dim=0) - vertices.amin(dim=0)).max()) if len(vertices) else 0.0
    return vertices if longest == 0 else vertices * 2.0 ** (1 - math.floor(math.log2(longest)))


def split_faces(centers: Tensor, at_most: int) -> list[Tensor]:
    """Parts of at most so many faces, halved across their longest side again and again.

    Args:
        centers: Of the faces. [F, 3]
        at_most: Faces in a part.

    Returns:
        Indices of the faces of each part, each face in one.
    """
    parts, left = [], [torch.arange(len(centers))]
    while left:
        part = left.pop()
        if len(part) <= at_most:
            parts.append(part)
            continue
        mine = centers[part]
        axis = int((mine.amax(dim=0) - mine.amin(dim=0)).argmax())
        order = part[mine[:, axis].argsort(stable=True)]
        left += [order[len(order) // 2 :], order[: len(order) // 2]]
    return parts


def bake_texture(
    mesh: Mesh, cameras: Cameras, pictures: Sequence[Tensor], size: int, on_view: Callable[[], None] = lambda: None
) -> Mesh:
    """The unwrapped mesh with a texture.

    Args:
        mesh: With uvs and normals.
        cameras: Views of the scene.
        pictures: One per view. [H, W, 3] uint8
        size: Side of the texture, texels.
        on_view: Called after each view.
    """
    if mesh.uvs is None or mesh.normals is None:
        raise ValueError("mesh: expected uvs and normals. Use unwrap first")
    texels = texel_view(mesh, size)
    rows, columns = texels.hit.nonzero(as_tuple=True)
    corners = mesh.faces[texels.face[rows, columns].long()]
    weights = texels.weights[rows, columns][:, :, None]
    points = (mesh.vertices[corners] * weights).sum(dim=1)
    # Normals of vertices on sharp edges look past both sides: with those of faces the right views count.
    normals = torch.nn.functional.normalize(face_normals(mesh), dim=1)[texels.face[rows, columns].long()]
    n = len(points)
    colors, weight = blend_pictures(
        mesh,
        torch.cat([points, mesh.vertices]),
        torch.cat([normals, mesh.normals]),
        cameras,
        pictures,
        FACING_POWER,
        on_view,
    )
    # What no picture shows takes the colours of what lies around it on the surface.
    around = _spread_over_edges(mesh, colors[n:], weight[n:] > 0)
    unseen = weight[:n] == 0
    colors = colors[:n]
    colors[unseen] = (around[corners[unseen]] * weights[unseen]).sum(dim=1)
    image = torch.zeros(size, size, 3)
    known = torch.zeros(size, size, dtype=torch.bool)
    image[rows, columns] = colors
    known[rows, columns] = True
    filled = fill_unknown(image, known)
    return replace(mesh, texture=filled.round().clamp(0, 255).to(torch.uint8))


def texel_view(mesh: Mesh, size: int) -> MeshView:
    """The face that lies over every texel centre, row 0 at the top."""
    assert mesh.uvs is not None
    # The uv plane at z = 1 before a camera of focal length `size`: x / z is then the column, y / z the row.
    flat = torch.stack([mesh.uvs[:, 0], 1 - mesh.uvs[:, 1], torch.ones(len(mesh.uvs))], dim=1)
    K = torch.tensor([[size, 0, 0], [0, size, 0], [0, 0, 1]], dtype=torch.float64)
    camera = Cameras(torch.eye(4, dtype=torch.float64)[None], K[None], torch.tensor([[size, size]]))
    return view_mesh(Mesh(flat, mesh.faces), camera)


def fill_unknown(image: Tensor, known: Tensor) -> Tensor:
    """Fill texels that nothing is known of, coarse to fine, from the known ones around them (pull and push).

    Args:
        image: [S, S, 3]
        known: [S, S] bool
    """
    if not bool(known.any()):
        return torch.full_like(image, GREY)
    if bool(known.all()) or min(image.shape[:2]) <= 1:
        return image
    height, width = image.shape[:2]
    weights = known.float()[None, None]
    colors = (image * known[..., None]).permute(2, 0, 1)[None]
    pad = (0, width % 2, 0, height % 2)
    weights, colors = (torch.nn.functional.pad(value, pad) for value in (weights, colors))
    share = torch.nn.functional.avg_pool2d(weights, 2)
    coarse = torch.nn.functional.avg_pool2d(colors, 2) / share.clamp_min(1e-6)
    below = fill_unknown(coarse[0].permute(1, 2, 0), share[0, 0] > 0).permute(2, 0, 1)[None]
    smooth = torch.nn.functional.interpolate(below, scale_factor=2, mode="bilinear", align_corners=False)
    smooth = smooth[0, :, :height, :width].permute(1, 2, 0)
    return torch.where(known[..., None], image, smooth)


def _spread_over_edges(mesh: Mesh, colors: Tensor, known: Tensor) -> Tensor:
    """Colours of unknown vertices from known neighbours, ring by ring; what is cut off from all becomes grey.

    Vertices at one place, as on both sides of a cut, are neighbours too.
    """
    places, place = torch.unique(mesh.vertices, dim=0, return_inverse=True)
    share = torch.zeros(len(places)).index_add_(0, place, known.float())
    mean = torch.zeros(len(places), 3).index_add_(0, place, colors * known[:, None])
    mean, reached = mean / share.clamp_min(1)[:, None], share > 0
    edges = face_edges(place[mesh.faces])
    edges = torch.cat([edges, edges.flip(1)])
    while not bool(reached.all()):
        wanted = edges[~reached[edges[:, 0]] & reached[edges[:, 1]]]
        if len(wanted) == 0:
            break
        total = torch.zeros_like(mean).index_add_(0, wanted[:, 0], mean[wanted[:, 1]])
        count = torch.zeros(len(places)).index_add_(0, wanted[:, 0], torch.ones(len(wanted)))
        found = count > 0
        mean = torch.where(found[:, None], total / count.clamp_min(1)[:, None], mean)
        reached = reached | found
    spread = torch.where(reached[:, None], mean, GREY)[place]
    return torch.where(known[:, None], colors, spread)
