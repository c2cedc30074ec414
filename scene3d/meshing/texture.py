"""Texture: a mesh unwrapped onto an image whose texels take their colours from pictures of the scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.mesh import Mesh, vertex_normals
from scene3d.ops.triangles import MeshView, blend_pictures, view_mesh

# Texels between charts: bilinear lookups and a few mipmaps never reach the neighbour.
PADDING = 4
GREY = 128.0
# See blend_pictures.
FACING_POWER = 3.0


def color_vertices(mesh: Mesh, cameras: Cameras, pictures: Sequence[Tensor]) -> Mesh:
    """The mesh with colours at its vertices; vertices that no picture shows take those of their neighbours."""
    mesh = replace(mesh, normals=mesh.normals if mesh.normals is not None else vertex_normals(mesh))
    assert mesh.normals is not None
    colors, weight = blend_pictures(mesh, mesh.vertices, mesh.normals, cameras, pictures, FACING_POWER)
    colors = _spread_over_edges(mesh, colors, weight > 0)
    return replace(mesh, colors=colors.round().clamp(0, 255).to(torch.uint8))


def unwrap(mesh: Mesh, size: int) -> Mesh:
    """The mesh cut into charts that lie side by side on a square image of `size` texels.

    Vertices on cuts are doubled. Normals are kept.
    """
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices.numpy(), mesh.faces.numpy().astype(np.uint32))
    charts, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    charts.max_iterations = 1
    packing.resolution = size
    packing.padding = PADDING
    packing.bilinear = True
    packing.create_image = False
    packing.bruteForce = False
    atlas.generate(charts, packing)
    origin, faces, uvs = atlas[0]
    rows = torch.from_numpy(origin.astype(np.int64))
    return Mesh(
        mesh.vertices[rows],
        torch.from_numpy(faces.astype(np.int64)),
        normals=None if mesh.normals is None else mesh.normals[rows],
        uvs=torch.from_numpy(np.ascontiguousarray(uvs, dtype=np.float32)),
    )


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
    normals = torch.nn.functional.normalize((mesh.normals[corners] * weights).sum(dim=1), dim=1)
    colors, weight = blend_pictures(mesh, points, normals, cameras, pictures, FACING_POWER, on_view)
    image = torch.zeros(size, size, 3)
    known = torch.zeros(size, size, dtype=torch.bool)
    seen = weight > 0
    image[rows[seen], columns[seen]] = colors[seen]
    known[rows[seen], columns[seen]] = True
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
    """Colours of unknown vertices from known neighbours, ring by ring; what is cut off from all becomes grey."""
    edges = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    edges = torch.cat([edges, edges.flip(1)])
    while not bool(known.all()):
        wanted = edges[~known[edges[:, 0]] & known[edges[:, 1]]]
        if len(wanted) == 0:
            break
        total = torch.zeros_like(colors).index_add_(0, wanted[:, 0], colors[wanted[:, 1]])
        count = torch.zeros(len(colors)).index_add_(0, wanted[:, 0], torch.ones(len(wanted)))
        reached = count > 0
        colors = torch.where(reached[:, None], total / count.clamp_min(1)[:, None], colors)
        known = known | reached
    return torch.where(known[:, None], colors, GREY)
