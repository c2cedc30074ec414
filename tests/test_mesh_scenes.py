"""Captures made for measuring meshes: closed parts, exact depth, paint that stays where it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mesh_shapes import area_and_volume, is_closed
from PIL import Image

from scene3d.io.capture_files import read_capture
from scene3d.io.mesh_files import read_mesh
from scene3d.ops.triangles import closest_on_mesh, view_mesh
from scene3d.render import cpu

pytestmark = pytest.mark.skipif(cpu.why_unavailable() is not None, reason=f"native code: {cpu.why_unavailable()}")
pytest.importorskip("trimesh", reason="meshes are read by it: pip install scene3d[mesh]")

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import make_mesh_scenes  # noqa: E402 - found by the line above
import mesh_light  # noqa: E402
import mesh_parts  # noqa: E402

N_VIEWS = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes")
    config = make_mesh_scenes.Config(out, ("mechanical",), ("matte",), N_VIEWS, 64, 200, 4)
    make_mesh_scenes.make_capture("mechanical", "matte", out / "it", config)
    return out / "it"


@pytest.mark.parametrize("things", [make_mesh_scenes.mechanical(), make_mesh_scenes.thin(), make_mesh_scenes.room()])
def test_every_part_is_closed_and_faces_outwards(things: list[make_mesh_scenes.Thing]):
    for thing in things:
        assert is_closed(thing.mesh), thing.name
        assert area_and_volume(thing.mesh)[1] > 0, thing.name


def test_parts_have_their_volume():
    ring = mesh_parts.extrusion(mesh_parts.polygon(256, 1.0), 0.5, 0.5)
    assert area_and_volume(ring)[1] == pytest.approx(np.pi * 0.5 * 0.75, rel=1e-3)
    cone = mesh_parts.turned([(0, 0), (1, 0), (1e-6, 2), (0, 2)], 256)
    assert area_and_volume(cone)[1] == pytest.approx(2 * np.pi / 3, rel=1e-3)


def test_the_capture_is_read_like_any_other(folder: Path):
    capture = read_capture(folder)
    assert len(capture) == N_VIEWS
    assert len(capture.test) == 2
    assert capture.load(1).rgb.shape == (48, 64, 3)
    assert float(capture.load(1).rgb.float().std()) > 20
    assert 150 < len(capture.points) <= 250


def test_depth_and_ids_are_those_of_the_mesh(folder: Path):
    capture, mesh = read_capture(folder), read_mesh(folder / "mesh.ply")
    objects = json.loads((folder / "objects.json").read_text())
    depth = torch.from_numpy(np.array(Image.open(folder / "depth" / "000.png")).astype(np.float32)) * 1e-4
    ids = torch.from_numpy(np.array(Image.open(folder / "ids" / "000.png")).astype(np.int64))
    seen = view_mesh(mesh, capture.cameras, 0)
    assert bool(((depth > 0) == seen.hit).all())
    assert float((depth - seen.depth)[seen.hit].abs().max()) < 1e-4
    assert objects[-1]["first_face"] + objects[-1]["n_faces"] == mesh.n_faces
    starts = torch.tensor([row["first_face"] for row in objects])
    assert torch.equal(ids[seen.hit], torch.searchsorted(starts, seen.face[seen.hit].long(), right=True))


def test_points_lie_near_surfaces(folder: Path):
    capture = read_capture(folder)
    whole = make_mesh_scenes.build("mechanical", 0.0, 1).whole
    assert float(closest_on_mesh(whole, capture.points).distances.max()) < 0.08


def test_matte_paint_does_not_depend_on_the_view_and_coats_do():
    normals = torch.tensor([[0.0, 0, 1]]).repeat(2, 1)
    views = torch.nn.functional.normalize(torch.tensor([[0.3, 0, -1.0], [0.5, -0.4, -0.75]]), dim=1)
    matte = torch.full((2, 3), 0.3)
    assert torch.equal(mesh_light.coated(matte, torch.zeros(2), normals, views), matte)
    shiny = mesh_light.coated(matte, torch.ones(2), normals, views)
    assert float((shiny[0] - shiny[1]).abs().max()) > 0.02
    assert float(shiny.min()) >= 0


def test_shadows_fall_below_things():
    table, cube = mesh_parts.slab((2, 2, 0.1)), mesh_parts.placed(mesh_parts.slab((0.6, 0.6, 0.05)), (0, 0, 0.4))
    sky = mesh_light.make_sky(mesh_parts.merged([table, cube]), 12, 1.2)
    places, up = torch.tensor([[0.0, 0, 0.1], [0.9, 0.9, 0.1]]), torch.tensor([[0.0, 0, 1]]).repeat(2, 1)
    light = mesh_light.sky_light(sky, places, up, 0.012)
    assert float(light[0]) < 0.6 * float(light[1])
