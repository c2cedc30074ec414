"""Teacher: what a conversion may ask of a scene or mesh, whatever it is. Photos are not needed.

view     colours over black, opacity and depth from any camera; everything has it
points   places of matter and their weights; everything has it
density  per scene unit at points: exact of fields, of splats spread over cells; meshes have none
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.mesh import Mesh, face_normals
from scene3d.core.scene import Scene
from scene3d.core.warp import Warp
from scene3d.ops.occupancy import cells_with
from scene3d.ops.triangles import sample_surface, view_mesh
from scene3d.ops.warp import stretch, world_points
from scene3d.render.density import density_at
from scene3d.render.scene_points import ScenePoints, scene_points
from scene3d.render.scene_view import on_device_of, render_scene
from scene3d.render.splat_matter import MatterGrid, splat_matter
from scene3d.render.surround import is_object
from scene3d.render.types import RasterSettings

# Share of the weight that may lie outside of the box, on every side of every axis.
OBJECT_OUTLIERS, SCENE_OUTLIERS = 0.001, 0.02
MARGIN = 0.03
MATTER_CELLS = 128
SURFACE_POINTS = 200_000
# Optical depth of a cell that the surface of a mesh passes.
SOLID_DEPTH = 4.0
# A mesh has hard edges: its pixels are means of so many by so many.
SUPERSAMPLING = 2
GREY, AMBIENT = 0.75, 0.35


@dataclass(frozen=True)
class View:
    """What a teacher shows.

    Attributes:
        rgb: Over black. [H, W, 3]
        alpha: [H, W]
        depth: z in the camera, 0 where nothing is. [H, W]
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor


@dataclass(frozen=True)
class Teacher:
    """Something that is converted.

    Attributes:
        name: What it is, in words.
        kind: mesh, or the kind of the scene.
        box: Around its matter, in the frame of the warp. [2, 3]
        points: Where its matter is.
        view: Renders view i of cameras.
        density: At points of the world. [P, 3] to [P]
        warp: Of the world to the frame of the box, of fields without bounds; None = the box lies in the world.
    """

    name: str
    kind: str
    box: Tensor
    points: ScenePoints
    view: Callable[[Cameras, int], View]
    density: Callable[[Tensor], Tensor]
    warp: Warp | None = None

    def density_in_frame(self, points: Tensor) -> Tensor:
        """Density per length of the frame of the box, at points of it. [P, 3] to [P]"""
        if self.warp is None:
            return self.density(points)
        return self.density(world_points(self.warp, points)) / stretch(self.warp, points)


def teacher_of_scene(scene: Scene) -> Teacher:
    """A scene as a teacher; of one with a background, far splats stay out of the box.

    Raises:
        ValueError: the scene is empty.
    """
    points = scene_points(scene)
    if len(points.positions) == 0:
        raise ValueError("scene: expected something in it, got nothing to convert")
    if "splats" in scene.capabilities:
        box = _box_of(points, OBJECT_OUTLIERS if is_object(points) else SCENE_OUTLIERS)
        grid = splat_matter(scene.splats().select(scene.splats().is_finite()), box, _cells(box))
        return Teacher(scene.size_text(), scene.kind, box, points, _scene_view(scene), grid.at)
    field = scene.field()
    view = _scene_view(scene)
    return Teacher(
        scene.size_text(), scene.kind, field.box.float(), points, view, lambda p: density_at(field, p), field.warp
    )


def teacher_of_mesh(mesh: Mesh) -> Teacher:
    """A mesh as a teacher: unlit colours or texture; grey and shaded where it has neither.

    Raises:
        ValueError: it has no area.
    """
    positions, _ = sample_surface(mesh, SURFACE_POINTS)
    points = ScenePoints(positions, torch.ones(len(positions)))
    box = _box_of(points, 0.0)
    shape = _cells(box)
    # Cells with surface in them are so dense that little light passes.
    edge = float(((box[1] - box[0]) / torch.tensor(list(reversed(shape)))).mean())
    grid = MatterGrid(box, cells_with(positions, box, shape).float() * (SOLID_DEPTH / edge))
    name = f"a mesh of {mesh.n_faces:,} triangles"
    return Teacher(name, "mesh", box, points, lambda cameras, i: _mesh_view(mesh, cameras, i), grid.at)


def _scene_view(scene: Scene) -> Callable[[Cameras, int], View]:
    settings = RasterSettings(antialiased=scene.info.antialiased, with_depth=True)
    scene = on_device_of(scene)

    def view(cameras: Cameras, i: int) -> View:
        render = render_scene(scene, cameras.select([i]), settings)
        depth = render.depth if render.median_depth is None else render.median_depth
        assert depth is not None
        rgb, alpha, z = (image[0].float().cpu() for image in (render.rgb, render.alpha, depth))
        return View(rgb, alpha[..., 0], z[..., 0])

    return view


def _mesh_view(mesh: Mesh, cameras: Cameras, i: int) -> View:
    camera = cameras.select([i])
    fine = camera.resized(camera.sizes * SUPERSAMPLING)
    seen = view_mesh(mesh, fine)
    hit = seen.hit
    colors = torch.zeros(*hit.shape, 3)
    colors[hit] = _mesh_colors(mesh, seen.face[hit].long(), seen.weights[hit])

    def mean(image: Tensor) -> Tensor:  # [H', W', C] -> [H, W, C]
        return torch.nn.functional.avg_pool2d(image.movedim(-1, 0)[None], SUPERSAMPLING)[0].movedim(0, -1)

    alpha = mean(hit[..., None].float())
    depth = mean(seen.depth[..., None]) / alpha.clamp_min(1e-6)
    return View(mean(colors), alpha[..., 0], depth[..., 0])


def _mesh_colors(mesh: Mesh, faces: Tensor, weights: Tensor) -> Tensor:  # [P], [P, 3] -> [P, 3]
    corners = mesh.faces[faces]
    if mesh.texture is not None and mesh.uvs is not None:
        uv = (mesh.uvs[corners] * weights[..., None]).sum(dim=1)
        image = mesh.texture.movedim(-1, 0)[None].float() / 255
        # grid_sample runs from -1 to 1 downwards, v upwards.
        place = torch.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1]], dim=1)[None, None]
        found = torch.nn.functional.grid_sample(image, place, padding_mode="border", align_corners=False)
        return found[0, :, 0].T
    if mesh.colors is not None:
        return (mesh.colors[corners].float() / 255 * weights[..., None]).sum(dim=1)
    normals = torch.nn.functional.normalize(face_normals(mesh), dim=1)[faces]
    light = torch.nn.functional.normalize(torch.tensor([0.4, 0.5, 0.8]), dim=0)
    shade = AMBIENT + (1 - AMBIENT) * (0.5 + 0.5 * normals @ light)
    return (GREY * shade)[:, None].expand(-1, 3)


def _box_of(points: ScenePoints, outliers: float) -> Tensor:
    """Around all but the outliers on every side, by weight."""
    positions, weights = points.positions.float().cpu(), points.weights.float().cpu()
    bounds = []
    for axis in positions.unbind(dim=1):
        order = axis.argsort()
        mass = weights[order].cumsum(dim=0)
        picked = torch.searchsorted(mass, mass[-1] * torch.tensor([outliers, 1 - outliers]))
        bounds.append(axis[order[picked.clamp(0, len(order) - 1)]])
    low, high = torch.stack(bounds, dim=1)
    margin = MARGIN * (high - low).amax().clamp_min(1e-6)
    return torch.stack([low - margin, high + margin])


def _cells(box: Tensor) -> tuple[int, int, int]:
    size = box[1] - box[0]
    x, y, z = (size / size.amax() * MATTER_CELLS).round().clamp_min(4).long().tolist()
    return z, y, x
