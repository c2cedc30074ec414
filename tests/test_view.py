"""The live viewer without a browser: what is drawn, how coarse, along which path, and where it listens."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from field_scenes import random_field
from strategies import one_gaussian, random_gaussians
from tiny_capture import tiny_capture, tiny_scene

from scene3d.core.cameras import look_at
from scene3d.core.gaussians import cat
from scene3d.core.scene import Scene
from scene3d.io.camera_path import camera_path_json, read_cameras
from scene3d.ops.colormap import HEAT, colorize
from scene3d.render.rasterize import rasterize
from scene3d.view import ellipsoids
from scene3d.view.address import AddressError, announcement, free_port
from scene3d.view.draw import Stale, Stock, draw
from scene3d.view.local import local_splats
from scene3d.view.look import MODES, Box, Cut, Eye, Look
from scene3d.view.pace import MIN_SHARE, Pace
from scene3d.view.route import Route

WIDTH, HEIGHT = 48, 32
EYE = Eye(look_at(torch.tensor([4.0, 0, 1]), torch.zeros(3), torch.tensor([0.0, 0, 1])), 50.0)


def shot(scene: Scene, look: Look = Look(), *others: Scene) -> np.ndarray:  # noqa: B008 - frozen
    return draw(Stock((scene, *others)), EYE, look, WIDTH, HEIGHT)


def test_colour_is_what_the_rasterizer_gives():
    scene = tiny_scene()
    rgb = rasterize(scene.payload, EYE.camera(WIDTH, HEIGHT)).rgb[0]
    assert np.array_equal(shot(scene), (rgb.clamp(0, 1) * 255).round().byte().numpy())


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_a_picture(mode: str):
    scene = tiny_scene()
    picture = draw(Stock((scene,), tiny_capture(scene)), EYE, Look(mode=mode, photo=1), WIDTH, HEIGHT)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 0


@pytest.mark.parametrize("mode", ["rgb", "depth", "alpha"])
def test_fields_are_drawn_in_bands_that_can_be_given_up(mode: str, monkeypatch: pytest.MonkeyPatch):
    scene, look = Scene(random_field("vm").to(dtype=torch.float32)), Look(mode=mode)
    whole = shot(scene, look)
    monkeypatch.setattr("scene3d.view.draw.BAND_ROWS", 10)
    assert np.abs(shot(scene, look).astype(int) - whole).max() <= 1
    answers = iter((False, False, True))
    with pytest.raises(Stale):
        draw(Stock((scene,)), EYE, look, WIDTH, HEIGHT, lambda: next(answers))
    assert next(answers, "asked three times") == "asked three times"


def test_empty_scenes_show_the_background():
    empty = Scene(random_gaussians(0).to(dtype=torch.float32))
    for mode in ("rgb", "depth", "normals", "ellipsoids"):
        assert (shot(empty, Look(mode=mode, background=(1.0, 0.0, 0.0))) == [255, 0, 0]).all()


def test_cut_keeps_what_is_opaque_and_inside():
    scene = tiny_scene()
    gaussians = scene.payload
    cut = Cut(0.5, Box((-1, -1, 0), (1, 1, 9)))
    kept = cut.apply(gaussians)
    assert 0 < len(kept) < len(gaussians)
    assert bool((kept.opacities >= 0.5).all())
    assert bool((kept.means[:, 2] >= 0).all())
    assert Cut().apply(gaussians) is gaussians


def test_a_box_needs_corners_in_order():
    with pytest.raises(ValueError, match="box: expected low <= high on every axis"):
        Box((0, 0, 1), (1, 1, 0))


def test_cuts_are_remembered_until_the_scene_changes():
    stock = Stock((tiny_scene(),))
    cut = Cut(0.3)
    first = stock.shown(0, cut)
    assert stock.shown(0, Cut(0.3)) is first
    stock.replace(0, tiny_scene(10))
    assert stock.shown(0, cut) is not first


def test_split_shows_the_first_left_and_the_second_right():
    a, b = tiny_scene(), tiny_scene(10)
    both = shot(a, Look(side="split", split=0.25), b)
    assert np.array_equal(both[:, :12], shot(a)[:, :12])
    assert np.array_equal(both[:, 12:], shot(b)[:, 12:])


def test_equal_scenes_do_not_differ():
    black = colorize(torch.zeros(1), HEAT).numpy()
    assert (shot(tiny_scene(), Look(side="difference"), tiny_scene()) == black).all()
    assert not (shot(tiny_scene(), Look(side="difference"), tiny_scene(10)) == black).all()


def test_error_of_a_perfect_scene_is_nothing_inside_the_photo():
    scene = tiny_scene()
    stock = Stock((scene,), tiny_capture(scene))
    picture = draw(stock, EYE, Look(mode="error", photo=2), 64, 24)
    assert (picture[:, :16] == 40).all()
    inside = picture[:, 16:48].astype(int)
    assert np.abs(inside - colorize(torch.zeros(1), HEAT).numpy()).max() <= 12


def test_error_without_photos_is_refused():
    with pytest.raises(ValueError, match="the error needs the photos of a capture"):
        Stock((tiny_scene(),)).photo(0)


def test_an_ellipsoid_of_a_ball_is_a_disc_of_its_radius():
    ball = one_gaussian(mean=(0, 0, 5), scales=(0.5, 0.5, 0.5), rgb=(1, 1, 1)).to(dtype=torch.float32)
    camera = Eye(torch.eye(4), 60.0).camera(101, 101)
    picture = ellipsoids.draw(ball, camera, (0.0, 0.0, 0.0))
    radius = float(camera.Ks[0, 0, 0]) * 0.5 / (25 - 0.25) ** 0.5  # of the tangent cone
    assert float((picture[..., 0] > 0).sum()) == pytest.approx(np.pi * radius**2, rel=0.05)
    assert float(picture[50, 50, 0]) == pytest.approx(1.0, abs=1e-3)


def test_the_nearer_ellipsoid_hides_the_other_in_any_order():
    near = one_gaussian(mean=(0, 0, 3), rgb=(1, 0, 0)).to(dtype=torch.float32)
    far = one_gaussian(mean=(0, 0, 4), scales=(2, 2, 0.001), rgb=(0, 1, 0)).to(dtype=torch.float32)
    camera = Eye(torch.eye(4), 60.0).camera(33, 33)
    one, other = (ellipsoids.draw(cat(list(order)), camera, (0.0, 0.0, 0.0)) for order in ((near, far), (far, near)))
    assert torch.equal(one, other)
    assert float(one[16, 16, 0]) > 0.9
    assert float(one[16, 16, 1]) == pytest.approx(0.0, abs=1e-6)


def test_many_ellipsoids_are_drawn_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch):
    gaussians = random_gaussians(300, seed=2).to(dtype=torch.float32)
    camera = EYE.camera(WIDTH, HEIGHT)
    whole = ellipsoids.draw(gaussians, camera, (0.0, 0.0, 0.0))
    monkeypatch.setattr(ellipsoids, "PAIRS_AT_ONCE", 500)
    assert torch.equal(ellipsoids.draw(gaussians, camera, (0.0, 0.0, 0.0)), whole)


def test_browsers_get_one_colour_and_shape_for_each_sound_gaussian():
    ball = one_gaussian(mean=(1, 2, 3), scales=(0.5, 0.25, 0.25), opacity=0.75, rgb=(1, 0.5, 0)).to(dtype=torch.float32)
    broken = replace(ball, means=ball.means * torch.nan)
    splats = local_splats(cat([ball, broken]))
    assert splats.centers.tolist() == [[1, 2, 3]]
    assert sorted(np.linalg.eigvalsh(splats.covariances[0])) == pytest.approx([0.0625, 0.0625, 0.25], abs=1e-6)
    assert splats.opacities.tolist() == [[pytest.approx(0.75)]]
    assert splats.rgbs[0] == pytest.approx([1, 0.5, 0], abs=1e-6)


def test_too_many_gaussians_are_not_sent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scene3d.view.local.MAX_LOCAL", 10)
    with pytest.raises(ValueError, match="expected at most 10 Gaussians to draw in the browser, got 30"):
        local_splats(tiny_scene().splats())


def test_slow_pictures_get_coarser_and_fast_ones_finer():
    pace = Pace(seconds=0.05, share=0.5)
    pace.took(0.2)
    assert pace.size(600, 300) == (200, 100)
    for _ in range(20):
        pace.took(10.0)
    assert pace.share == MIN_SHARE
    for _ in range(20):
        pace.took(0.001)
    assert pace.size(600, 300) == (600, 300)


def test_route_passes_its_keys_and_can_be_read_back(tmp_path: Path):
    eyes = [look_at(torch.tensor([4.0, y, 1.0]), torch.zeros(3), torch.tensor([0.0, 0, 1])) for y in (-1.0, 3.0, 0.0)]
    route = Route(tuple(Eye(e, 40.0) for e in eyes), seconds=1.0, fps=11.0)
    flight = route.views(64, 48)
    assert len(flight) == 11
    assert torch.allclose(flight.viewmats[0], eyes[0], atol=1e-4)
    assert torch.allclose(flight.viewmats[-1], eyes[2], atol=1e-4)
    (tmp_path / "camera_path.json").write_text(camera_path_json(flight, 11.0))
    again = read_cameras(tmp_path / "camera_path.json")
    assert torch.allclose(again.viewmats, flight.viewmats, atol=1e-5)
    assert torch.allclose(again.Ks, flight.Ks, rtol=1e-4)
    assert again.sizes.tolist() == flight.sizes.tolist()
    assert route.eyes()[0].fov_deg == pytest.approx(40.0, abs=1e-3)


def test_a_route_without_views_is_refused():
    with pytest.raises(ValueError, match="camera path: expected at least one view, got none"):
        replace(Route(), seconds=2.0).views(64, 48)


def test_a_taken_port_gives_the_next():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = free_port("127.0.0.1", port)
    assert found > port
    assert announcement("127.0.0.1", found, port, {})[0] == f"port {port} is taken, using {found}"


def test_hosts_of_others_are_refused():
    with pytest.raises(AddressError, match=r"cannot listen on 203\.0\.113\.7.*Choose another --host or --port"):
        free_port("203.0.113.7", 8080)
    with pytest.raises(ValueError, match="port: expected 1 to 65535, got 0"):
        free_port("127.0.0.1", 0)


def test_local_viewers_say_how_to_come_through_ssh():
    assert announcement("127.0.0.1", 8080, 8080, {}) == ["open http://localhost:8080"]
    hint = announcement("127.0.0.1", 8080, 8080, {"SSH_CONNECTION": "1 2 3 4"})[1]
    assert "ssh -L 8080:localhost:8080 " in hint


def test_open_viewers_warn_and_name_the_machine():
    lines = announcement("0.0.0.0", 8080, 8080, {})
    assert lines[0] == f"open http://{socket.gethostname()}:8080"
    assert "everyone who can reach this machine can look at the scene" in lines[1]
