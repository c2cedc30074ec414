"""The nearest depth goes with the size of a scene: small and large ones are rendered and fitted alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from field_scenes import random_field
from strategies import F64, one_gaussian, random_gaussians, ring_of_cameras
from tiny_capture import tiny_capture, tiny_scene

from scene3d.meshing.opacity_field import splat_opacity
from scene3d.ops.rigid import Sim3, transform_cameras, transform_gaussians
from scene3d.recon.fit import fit
from scene3d.recon.settings import FitSettings, LearningRates, StrategySettings
from scene3d.render.near import nearest, with_near, with_near_of_field
from scene3d.render.rasterize import rasterize
from scene3d.render.surfels import rasterize_surfels
from scene3d.render.types import USUAL_NEAR, RasterSettings

SCENE, VIEWS = random_gaussians(40).to(dtype=torch.float32), ring_of_cameras(2).to(dtype=torch.float32)
SIZES = [1e-6, 1e-3, 1e3]


def scaling(size: float) -> Sim3:
    return Sim3(torch.eye(3, dtype=F64), torch.zeros(3, dtype=F64), size)


def test_scenes_of_usual_size_keep_the_usual_depth():
    assert with_near(RasterSettings(), SCENE.means, VIEWS).near == USUAL_NEAR
    assert nearest(0.6) == nearest(20.0) == nearest(None) == USUAL_NEAR


def test_what_is_asked_for_is_kept():
    asked = RasterSettings(near=3.0)
    assert with_near(asked, SCENE.means, VIEWS) is asked
    assert with_near_of_field(asked, random_field()) is asked


def test_nothing_in_front_of_the_cameras_is_no_error():
    behind = one_gaussian(mean=(0.0, 0.0, -3.0)).means
    assert with_near(RasterSettings(), behind, ring_of_cameras(1)).near is not None
    assert with_near(RasterSettings(), behind[:0], ring_of_cameras(1)).near == USUAL_NEAR
    assert with_near(RasterSettings(), torch.full_like(behind, torch.nan), ring_of_cameras(1)).near == USUAL_NEAR


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_scenes_of_all_sizes_look_the_same(backend: str, size: float):
    scene, views = transform_gaussians(SCENE, scaling(size)), transform_cameras(VIEWS, scaling(size))
    found, expected = rasterize(scene, views, backend=backend), rasterize(SCENE, VIEWS, backend=backend)
    assert float(expected.alpha.mean()) > 0.1
    assert float((found.rgb - expected.rgb).abs().mean()) < 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_discs_and_opacities_of_places_go_with_the_size(size: float):
    scene, views = transform_gaussians(SCENE, scaling(size)), transform_cameras(VIEWS, scaling(size))
    seen = [
        rasterize_surfels(g, v.select([0]), RasterSettings(), u).render.alpha
        for g, v, u in ((scene, views, size), (SCENE, VIEWS, 1.0))
    ]
    assert float((seen[0] - seen[1]).abs().mean()) < 1e-3
    opaque = [splat_opacity(g, v, g.means).opacity for g, v in ((scene, views), (SCENE, VIEWS))]
    assert float(opaque[1].max()) > 0.1
    assert float((opaque[0] - opaque[1]).abs().max()) < 1e-3


def test_small_fields_are_looked_at_from_nearer():
    field = random_field()
    small = replace(field, box=field.box * 1e-5)
    near = with_near_of_field(RasterSettings(), small).near
    assert near is not None
    assert 0 < near < float(small.box[1, 0] - small.box[0, 0]) / 50
    assert with_near_of_field(RasterSettings(), field).near == USUAL_NEAR


@pytest.mark.parametrize("size", [1e-3, 1e3])
def test_fits_of_all_sizes_come_as_near_to_the_photos(size: float):
    scene = tiny_scene()
    capture, gaussians = tiny_capture(scene), scene.splats()
    first = replace(gaussians, sh0=gaussians.sh0 + 0.3)
    settings = FitSettings(
        max_steps=20,
        sh_degree=1,
        lrs=LearningRates(means=1e-3, means_final=1.0, sh0=2e-2),
        strategy=StrategySettings("mcmc", cap_max=40, refine_every=10),
    )
    other = replace(capture, cameras=transform_cameras(capture.cameras, scaling(size)))
    found = fit(other, transform_gaussians(first, scaling(size)), settings)
    expected = fit(capture, first, settings)
    assert found.validation is not None
    assert expected.validation is not None
    assert expected.validation.psnr > 20
    assert found.validation.psnr == pytest.approx(expected.validation.psnr, abs=0.2)
    torch.testing.assert_close(found.gaussians.means / size, expected.gaussians.means, atol=2e-3, rtol=2e-3)
