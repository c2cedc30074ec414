"""Density baked into bricks: images by them are those of the factors, and they go with what they were made from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from field_scenes import random_field
from tiny_capture import tiny_cameras

from scene3d.core.fields import Field, LeafLevel
from scene3d.core.scene import Scene
from scene3d.ops.image import psnr
from scene3d.ops.occupancy import overlapping
from scene3d.render import field_cpu
from scene3d.render.field_bricks import bake, takes
from scene3d.render.scene_view import on_device_of, render_scene
from scene3d.render.types import RasterSettings

if not field_cpu.is_available():
    pytest.skip("the native module is not built", allow_module_level=True)

SETTINGS = RasterSettings(background=(0.2, 0.5, 1.0))
# What may be left out: opacities of 0.1 % a sample, and colours of samples that weigh less than 0.8 %. Fog as here
# loses most by that; the objects of docs/benchmarks.md are the same to 58 dB and more.
LEAST_DB = 45.0
# Of rays that gather 2 to 20 %, brightened.
LEAST_HAZE_DB = 30.0


def leafy_field(is_shifted: bool = False, nodes: int = 5) -> Field:
    """Two sizes of leaves that end where bricks do; values of neighbours have nothing to do with each other."""
    generator = torch.Generator().manual_seed(3)
    first = LeafLevel(torch.rand(2, 2, 3, generator=generator) < 0.8, nodes)
    second = LeafLevel(
        torch.rand(*(3, 3, 4) if is_shifted else (4, 4, 6), generator=generator) < 0.7, nodes, is_shifted
    )
    base = random_field("trivec", has_occupancy=True).to(dtype=torch.float32)
    shapes = [(level.n_leaves, nodes) for level in (first, second) for _ in range(3)]
    density, color = (tuple(torch.randn(*shape, r, generator=generator) for shape in shapes) for r in base.ranks)
    return replace(base, density=density, color=color, levels=(first, second))


def fields() -> dict[str, Field]:
    made = {kind: random_field(kind, has_occupancy=True).to(dtype=torch.float32) for kind in ("vm", "cp")}
    for warp in ("cube", "frustum"):
        made[warp] = random_field("vm", nodes=(24, 20, 26), warp=warp, step=0.02).to(dtype=torch.float32)
    return made | {"trivec": leafy_field(), "no mask": replace(leafy_field(), occupancy=None)}


@pytest.mark.parametrize("name", ["vm", "cp", "trivec", "no mask", "cube", "frustum"])
def test_images_by_bricks_are_those_of_the_factors(name):
    field, cameras = fields()[name], tiny_cameras(1)
    want = render_scene(Scene(field), cameras, SETTINGS)
    before = field_cpu._cpu.simd_level()
    for level in field_cpu._cpu.simd_levels():
        field_cpu._cpu.set_simd_level(level)
        got = render_scene(Scene(bake(field)), cameras, SETTINGS)
        field_cpu._cpu.set_simd_level(before)
        assert psnr(got.rgb[0], want.rgb[0]) > LEAST_DB, level
        assert psnr(got.alpha[0], want.alpha[0]) > LEAST_DB, level
    assert want.alpha.max() > 0.8
    assert float((want.alpha > 0.1).float().mean()) > 0.05


def test_rays_that_gather_next_to_nothing_have_their_colour():
    haze = replace(fields()["vm"], density_scale=0.02, density_shift=0.0, occupancy=None)
    want, got = (render_scene(Scene(field), tiny_cameras(1)) for field in (haze, bake(haze)))
    assert 0.02 < want.alpha.max() < 0.2
    assert psnr(got.rgb[0] / want.rgb.max(), want.rgb[0] / want.rgb.max()) > LEAST_HAZE_DB


def test_bricks_fall_away_with_what_they_were_made_from():
    field = bake(fields()["vm"])
    assert field.bricks is not None
    assert replace(field, density=tuple(v.clone() for v in field.density)).bricks is None
    assert replace(field, step=2 * field.step).bricks is None
    assert replace(field, occupancy=None).bricks is None
    assert field.map(lambda v: v * 1).bricks is None
    assert replace(field, color=tuple(v + 1 for v in field.color)).bricks is field.bricks
    assert bake(field) is field


@pytest.mark.parametrize(
    "field",
    [
        random_field("vm"),
        leafy_field(is_shifted=True),
        leafy_field(nodes=4),
    ],
    ids=["float64", "cover", "leaves that end within bricks"],
)
def test_what_is_not_trilinear_in_bricks_stays_as_it_is(field):
    assert not takes(field)
    assert bake(field) is field


def test_a_field_without_matter_shows_the_background():
    empty = replace(fields()["vm"], density_shift=-200.0)
    baked = bake(empty)
    assert baked.bricks is not None
    assert len(baked.bricks.values) == 0
    image = render_scene(Scene(baked), tiny_cameras(1), SETTINGS)
    assert image.alpha.max() == 0
    assert torch.equal(image.rgb[0, 0, 0], torch.tensor(SETTINGS.background))


def test_scenes_are_baked_for_the_cpu_only():
    scene = Scene(fields()["vm"])
    assert on_device_of(scene, "cpu").field().bricks is not None
    assert on_device_of(scene, "reference").field().bricks is None


def test_overlapping_cells_are_those_that_share_some_inside():
    generator = torch.Generator().manual_seed(5)
    cells = torch.rand(5, 8, 3, generator=generator) < 0.3
    shape = (7, 4, 6)
    got = overlapping(cells, shape)
    for place in torch.cartesian_prod(*(torch.arange(n) for n in shape)).tolist():
        want = any(
            all(
                i * n_other < (p + 1) * n and p * n < (i + 1) * n_other
                for i, p, n, n_other in zip(cell, place, cells.shape, shape, strict=True)
            )
            for cell in cells.nonzero().tolist()
        )
        assert bool(got[tuple(place)]) == want, place
