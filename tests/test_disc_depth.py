"""Depth of flat splats: exact on their planes, there wherever colours are, the same whoever renders."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from strategies import front_camera, one_gaussian, random_gaussians, ring_of_cameras

from scene3d.core.gaussians import Gaussians
from scene3d.ops.pinhole import pixel_rays
from scene3d.render import cpu
from scene3d.render.disc_depth import disc_depth
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings

if cpu.why_unavailable() is not None:
    pytest.skip("the native module is not built", allow_module_level=True)

DEPTH = RasterSettings(with_depth=True)
CAMERA = front_camera().to(dtype=torch.float32)


def seen(gaussians: Gaussians) -> torch.Tensor:
    single = gaussians.to(dtype=torch.float32)
    return disc_depth(single, CAMERA, DEPTH, rasterize(single, CAMERA, DEPTH))


def joined(parts: list[Gaussians]) -> Gaussians:
    return Gaussians(**{name: torch.cat([p.params()[name] for p in parts]) for name in parts[0].params()})


@pytest.mark.parametrize("angle_deg", [0, 30, 60])
def test_a_tilted_disc_has_the_depth_of_its_plane(angle_deg: float):
    angle = math.radians(angle_deg)
    turn = (math.cos(angle / 2), math.sin(angle / 2), 0.0, 0.0)  # about x
    found = seen(one_gaussian(scales=(0.5, 0.5, 1e-4), opacity=0.98, quat=turn))
    y = pixel_rays(CAMERA, found)[1]
    # The plane through (0, 0, 4) with normal (0, -sin, cos).
    expected = 4 * math.cos(angle) / (math.cos(angle) - y * math.sin(angle))
    is_known = found > 0
    assert int(is_known.sum()) > 30
    assert float((found - expected)[is_known].abs().max()) < 1e-4


def test_lines_thinner_than_a_pixel_have_depth_where_they_have_colour():
    # A pixel at a depth of 4 is 0.1 wide.
    needles = [one_gaussian((0.0, y, 4.0), (1.2, 0.02, 1e-4), 0.97) for y in (-0.23, 0.22)]
    wall = one_gaussian((0.0, 0.0, 8.0), (9.0, 9.0, 1e-4), 0.97)
    scene = joined([*needles, wall])
    render = rasterize(scene.to(dtype=torch.float32), CAMERA, DEPTH)
    assert render.median_ids is not None
    found = seen(scene)
    is_line = render.median_ids[0] < 2
    assert int(is_line.sum()) > 30
    assert float((found[is_line] - 4).abs().max()) < 1e-3
    assert float((found[~is_line] - 8).abs().max()) < 1e-3


def test_discs_seen_from_the_side_stay_within_themselves():
    turn = (math.cos(math.pi / 4), math.sin(math.pi / 4), 0.0, 0.0)
    found = seen(one_gaussian(scales=(0.5, 0.1, 1e-4), opacity=0.98, quat=turn))
    known = found[found > 0]
    assert len(known) > 0
    assert float((known - 4).abs().max()) <= 0.3 + 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backends_name_the_same_median(dtype: torch.dtype):
    scene, views = random_gaussians(60).to(dtype=dtype), ring_of_cameras(3).to(dtype=dtype)
    ours, dense = (rasterize(scene, views, DEPTH, name) for name in ("cpu", "reference"))
    assert ours.median_ids is not None
    assert dense.median_ids is not None
    assert int((dense.median_ids >= 0).sum()) > 100
    assert float((ours.median_ids == dense.median_ids).double().mean()) > 0.999
    assert bool(((ours.median_ids >= 0) == (ours.median_depth[..., 0] > 0)).all())


def test_a_backend_that_names_none_asks_the_cpu():
    scene = one_gaussian(scales=(0.5, 0.4, 1e-3), opacity=0.95).to(dtype=torch.float32)
    render = rasterize(scene, CAMERA, DEPTH)
    assert torch.equal(
        disc_depth(scene, CAMERA, DEPTH, render), disc_depth(scene, CAMERA, DEPTH, replace(render, median_ids=None))
    )


def test_nothing_has_no_depth():
    assert float(seen(one_gaussian(opacity=0.3)).abs().max()) == 0
