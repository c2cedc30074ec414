"""Scene to mesh: views, surface, finish, colours, in one call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Photo
from scene3d.core.mesh import Mesh, vertex_normals
from scene3d.core.progress import Progress
from scene3d.core.scene import Scene
from scene3d.meshing.background import Background, background_of, joined
from scene3d.meshing.block_grid import extract_surface
from scene3d.meshing.consistency import ConsistencySettings, keep_consistent
from scene3d.meshing.depth_guess import mesh_guess, own_guess
from scene3d.meshing.depth_views import DepthKind, SurfaceViews, ViewSettings, choose_views, render_views, resolve_depth
from scene3d.meshing.depth_votes import REACHES, settle, without_refuted
from scene3d.meshing.finish import FinishSettings, finish, is_closed, remove_specks
from scene3d.meshing.fusion import DepthImage, FusionSettings, fuse, suggest_voxel_size
from scene3d.meshing.photo_depth import LEAST_SHARE, better_depths
from scene3d.meshing.photo_votes import N_ROUNDS as N_VOTES
from scene3d.meshing.photo_votes import follow_photos
from scene3d.meshing.poisson import close_surface
from scene3d.meshing.silhouettes import N_ROUNDS, fit_silhouettes, picked_views
from scene3d.meshing.surfaces import SurfaceSettings, find_surface
from scene3d.meshing.texture import bake_texture, color_vertices, unwrap

# Longer side of the views in which the background is looked for: it has few triangles.
BACKGROUND_SIDE = 240


@dataclass(frozen=True)
class MeshSettings:
    """How a scene becomes a mesh.

    Attributes:
        views: How depth is rendered.
        consistency: Which depths are believed.
        surface: How the raw surface is found.
        finish: What happens to the raw surface.
        texture_size: Side of the texture, texels; 0 = colours at vertices.
        closed_resolution: Cells a side of the Poisson surface that closes the mesh; 0 = leave it open.
        background: Put a shell behind the mesh that shows what lies around it.
        photo_depth: Better the depth by comparing the photos, then move the mesh to where they show it.
        photo_colors: Take colours from the photos, where there are any, instead of renders.
        silhouettes: Move the surface until its outlines lie where those of the scene do: for pictures.
    """

    views: ViewSettings = field(default_factory=ViewSettings)
    consistency: ConsistencySettings = field(default_factory=ConsistencySettings)
    surface: SurfaceSettings = field(default_factory=SurfaceSettings)
    finish: FinishSettings = field(default_factory=FinishSettings)
    texture_size: int = 2048
    closed_resolution: int = 0
    background: bool = False
    photo_depth: bool = False
    photo_colors: bool = True
    silhouettes: bool = False

    def __post_init__(self) -> None:
        if self.texture_size and not 64 <= self.texture_size <= 16384:
            raise ValueError(f"texture_size: expected 0 or 64 to 16384 texels, got {self.texture_size}")


def mesh_scene(scene: Scene, cameras: Cameras, settings: MeshSettings, photos: Sequence[Photo] | None = None) -> Mesh:
    """The surface of a scene as a mesh with colours or texture.

    Args:
        scene: What to mesh.
        cameras: Views to take it from.
        settings: How.
        photos: Taken from there, one per camera; None where there are none. Colours of what their masks hide are taken
            from renders.

    Raises:
        ValueError: nothing of the scene is opaque, a setting asks for too much or for photos that are not there.
    """
    if settings.photo_depth and photos is None:
        raise ValueError("photo_depth: expected photos, got none")
    raw, views = raw_surface(scene, cameras, settings, photos)
    if settings.closed_resolution and raw.n_faces:
        raw = remove_specks(raw, settings.finish.min_component)
        raw = close_surface(raw, settings.closed_resolution, settings.surface.max_bytes)
    mesh = finish(raw, settings.finish)
    if settings.closed_resolution and not is_closed(mesh):
        raise ValueError("watertight: fewer triangles broke the closed surface. Use a larger --max-faces, or 0 for all")
    pictures = views.pictures
    if photos is not None and settings.photo_colors:
        pictures = tuple(_unmasked(*pair) for pair in zip(photos, views.pictures, strict=True))
    if mesh.n_faces == 0:
        raise ValueError(
            "mesh: expected a surface, got none. Leave --voxel-size to its default, about 1.6 pixels: larger ones "
            "swallow the scene, smaller ones leave gaps. Or use a smaller --min-weight"
        )
    n_own, shell = len(mesh.vertices), None
    if settings.background:
        shell = _background(scene, cameras, mesh, settings.views)
        mesh = joined(mesh, shell.mesh)
        mesh = replace(mesh, normals=vertex_normals(mesh))
    if settings.silhouettes:
        mesh = _with_outlines(mesh, views, n_own)
    packing = None if shell is None else torch.cat([mesh.vertices[:n_own], shell.packing])
    if not settings.texture_size:
        return color_vertices(mesh, views.cameras, pictures)
    with Progress(1, "unwrapping") as progress:
        unwrapped = unwrap(mesh, settings.texture_size, packing)
        progress.advance()
    with Progress(len(cameras), "baking texture") as progress:
        return bake_texture(unwrapped, views.cameras, pictures, settings.texture_size, progress.advance)


def raw_surface(
    scene: Scene, cameras: Cameras, settings: MeshSettings, photos: Sequence[Photo] | None
) -> tuple[Mesh, SurfaceViews]:
    """The raw surface of a scene, and what the views show, with the depths that others confirm.

    Args and errors are those of mesh_scene.
    """
    with Progress(len(cameras), "rendering depth") as progress:
        views = render_views(scene, cameras, settings.views, progress.advance)
    if settings.photo_depth and photos is not None:
        views = replace(views, depths=_compared(views, photos, settings))
    with Progress(len(cameras), "comparing views") as progress:
        agreed = replace(views, depths=keep_consistent(views.depths, cameras, settings.consistency, progress.advance))
    surface = _surface_settings(settings)
    raw = find_surface(scene, agreed, surface)
    if raw.n_faces == 0 or not surface.follows_depth:
        return raw, agreed
    if surface.method in ("levelset", "tetrahedra"):
        raw = _as_views_have_it(raw, views, resolve_depth(scene, settings.views.depth), settings.photo_depth)
    if settings.photo_depth and photos is not None:
        with Progress((N_VOTES + 1) * len(cameras), "following photos") as progress:
            raw = follow_photos(raw, photos, cameras, progress.advance)
    return raw, agreed


def _as_views_have_it(raw: Mesh, views: SurfaceViews, kind: DepthKind, is_bettered: bool) -> Mesh:
    """What views are against left out; moved to depths of discs and those bettered by photos.

    Median depths lie behind the surface and mean ones are worse: those move nothing, these say nothing. Places that one
    view alone shows have no other vote, so depths count that others do not confirm.
    """
    is_sharp = is_bettered or kind == "disc"
    if not is_sharp and kind != "median":
        return raw
    how, n_rounds = (settle, len(REACHES)) if is_sharp else (without_refuted, 1)
    with Progress(n_rounds * len(views.cameras), "asking views") as progress:
        return how(raw, views.depths, views.cameras, progress.advance)


def _surface_settings(settings: MeshSettings) -> SurfaceSettings:
    # Places of which photos say nothing have looks of less weight.
    share = LEAST_SHARE if settings.photo_depth else 1.0
    return replace(settings.surface, min_weight=share * settings.surface.min_weight)


def _compared(views: SurfaceViews, photos: Sequence[Photo], settings: MeshSettings) -> tuple[DepthImage, ...]:
    """Depths bettered by photos, from the scene's own, then from a mesh of what came of it."""
    cameras = views.cameras
    with Progress(2 * len(cameras), "comparing photos") as progress:
        own = own_guess(views)
        first = better_depths(views, photos, own, progress.advance)
        rough = _rough_mesh(first, cameras, settings)
        if rough.n_faces == 0:
            return first
        return better_depths(views, photos, mesh_guess(rough, own, cameras), progress.advance)


def _rough_mesh(depths: Sequence[DepthImage], cameras: Cameras, settings: MeshSettings) -> Mesh:
    """A first mesh, no finer than the pixels of the views."""
    kept, surface = keep_consistent(depths, cameras, settings.consistency), _surface_settings(settings)
    if not any(bool(image.is_known().any()) for image in kept):
        return Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    voxel_size = max(suggest_voxel_size(kept, cameras), surface.voxel_size or 0.0)
    fusion = FusionSettings(voxel_size, surface.truncation_voxels, surface.min_weight, surface.max_bytes)
    return finish(extract_surface(fuse(kept, cameras, fusion)), replace(settings.finish, max_faces=0))


def _with_outlines(mesh: Mesh, views: SurfaceViews, n_free: int) -> Mesh:
    """The mesh with its first n_free vertices moved to the outlines of the scene."""
    is_fixed = torch.arange(len(mesh.vertices)) >= n_free
    with Progress(N_ROUNDS * len(picked_views(len(views.cameras))), "fitting outlines") as progress:
        return fit_silhouettes(mesh, views, is_fixed, progress.advance)


def _unmasked(photo: Photo, render: Tensor) -> Tensor:
    return photo.rgb if photo.mask is None else torch.where(photo.mask[..., None] > 0, photo.rgb, render)


def _background(scene: Scene, cameras: Cameras, mesh: Mesh, settings: ViewSettings) -> Background:
    small = choose_views(cameras, len(cameras), BACKGROUND_SIDE)
    with Progress(len(cameras), "looking past the mesh") as progress:
        return background_of(mesh, render_views(scene, small, replace(settings, far=math.inf), progress.advance))
