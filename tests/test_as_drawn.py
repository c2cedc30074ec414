"""Splats as wide as pictures show them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from mesh_shapes import ring_cameras
from test_stage_mesh import ball

from scene3d.core.scene import Scene
from scene3d.meshing.as_drawn import as_drawn, mean_footprint
from scene3d.meshing.depth_views import ViewSettings, render_views
from scene3d.meshing.surfaces import SurfaceSettings, find_surface
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings

pytest.importorskip("scipy", reason="meshes need it: pip install scene3d[mesh]")


def test_blur_in_space_is_that_of_the_picture():
    scene, camera = ball(200), ring_cameras(1)
    exact = RasterSettings(eps2d=0.0)
    shown = rasterize(scene.splats(), camera).alpha
    blurred = rasterize(as_drawn(scene, camera).splats(), camera, exact).alpha
    bare = rasterize(scene.splats(), camera, exact).alpha
    # The mean footprint is not each splat's in perspective, and depth is blurred too.
    assert float((blurred - shown).abs().mean()) < 0.25 * float((bare - shown).abs().mean())


def test_antialiased_splats_lose_the_opacity_that_they_gain_in_area():
    scene, camera = ball(200), ring_cameras(1)
    scene = Scene(scene.splats(), replace(scene.info, antialiased=True))
    wide = as_drawn(scene, camera).splats()
    seen = mean_footprint(scene.splats(), camera) > 0
    area = (scene.splats().scales / wide.scales).sort(dim=1).values[:, 1:].prod(dim=1)
    torch.testing.assert_close((wide.opacities / scene.splats().opacities)[seen], area[seen], atol=1e-3, rtol=1e-3)


def test_splats_that_no_view_shows_stay_as_they_are():
    scene = ball(50)
    away = ring_cameras(1)
    away = replace(away, viewmats=torch.diag(torch.tensor([-1.0, 1, -1, 1])) @ away.viewmats)
    assert bool((mean_footprint(scene.splats(), away) == 0).all())
    torch.testing.assert_close(as_drawn(scene, away).splats().scales, scene.splats().scales)


def test_surfaces_for_pictures_are_thicker():
    scene, cameras = ball(), ring_cameras(8)
    views = render_views(scene, cameras, ViewSettings("median"))
    thin, thick = (
        find_surface(scene, views, SurfaceSettings("tetrahedra", 0.08, as_drawn=on)).vertices.norm(dim=1)
        for on in (False, True)
    )
    assert float(thick.mean()) > float(thin.mean()) + 0.002
