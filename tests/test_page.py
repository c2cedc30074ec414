"""The one-file web page: what is in it, and that a real browser draws with it what we draw."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import chromium
from PIL import Image
from strategies import random_gaussians
from tiny_capture import tiny_cameras, tiny_capture, tiny_scene, write_tiny_capture

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.gaussians import cat
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.camera_path import cameras_json
from scene3d.io.ply import read_ply
from scene3d.io.registry import write_scene
from scene3d.ops import quaternions
from scene3d.page.build import PageSettings, build_page
from scene3d.page.compose import viewer_digests, viewer_from_world, viewer_manifest
from scene3d.render.first_view import choose
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings
from scene3d.stages.export import Config, run

PLY = PageSettings("A <b>title</b>", suffix=".ply")
WIDTH, HEIGHT, FOV_DEG = 240, 180, 60.0
# The viewer shades in half floats; single pixels at the rim of near splats differ by more than that.
AGREEMENT_DB = 45.0
FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # OpenGL axes of a camera from OpenCV ones
Draw = Callable[[bool, Cameras, int], np.ndarray]


def parts(page: str) -> dict[str, str]:
    found = re.findall(r'<(?:script|template)[^>]* id="(\w+)"[^>]*>(.*?)</(?:script|template)>', page, re.DOTALL)
    return dict(found)


def config_of(page: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(parts(page)["config"])
    return config


def test_packed_viewer_is_the_one_written_down():
    assert viewer_digests() == viewer_manifest()["sha256"]


def test_page_holds_the_scene_and_names_nothing_outside(tmp_path: Path):
    scene = tiny_scene()
    page = build_page(scene, None, PLY)
    path = tmp_path / "scene.ply"
    path.write_bytes(base64.b64decode(parts(page)["scene"]))
    assert torch.equal(read_ply(path).payload.means, scene.payload.means)
    assert not re.search(r'(?:src|href)="(?!data:)', page.replace(parts(page)["viewer"], ""))


def test_title_cannot_break_out_of_the_page():
    page = build_page(tiny_scene(), None, replace(PLY, title="</title><script>alert(1)</script>{{scene}}"))
    assert "<script>alert" not in page
    assert page.count("<script") == 4


def test_licence_of_the_viewer_is_in_the_page():
    text = parts(build_page(tiny_scene(), None, PLY))["license"]
    assert "Permission is hereby granted" in text
    assert "PlayCanvas" in text


def test_antialiased_scenes_say_so():
    scene = tiny_scene()
    filtered = replace(scene, info=replace(scene.info, antialiased=True))
    assert not config_of(build_page(scene, None, PLY))["antialiased"]
    assert config_of(build_page(filtered, None, PLY))["antialiased"]


def test_formats_that_the_viewer_cannot_read_are_refused():
    with pytest.raises(ValueError, match=r"suffix: expected one of \.sog, \.compressed\.ply, \.ply, got '\.splat'"):
        build_page(tiny_scene(), None, replace(PLY, suffix=".splat"))


def test_an_empty_scene_has_a_page():
    assert config_of(build_page(Scene(random_gaussians(0).to(dtype=torch.float32)), None, PLY))["file"] == "scene.ply"


def test_export_stage_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    scene = tiny_scene()
    write_scene(scene, tmp_path / "scene.ply")
    capture = write_tiny_capture(tmp_path / "capture", scene)
    run(Config(tmp_path / "scene.ply", tmp_path / "page.html", capture, embed="compressed.ply", title="Mine"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<title>Mine</title>" in page
    assert config_of(page)["file"] == "scene.compressed.ply"
    assert f"-> {tmp_path / 'page.html'}" in capsys.readouterr().out


def test_cameras_left_by_a_fit_serve_for_the_first_view(tmp_path: Path):
    cameras = tiny_cameras()
    write_scene(tiny_scene(), tmp_path / "scene.ply")
    (tmp_path / "cameras.json").write_text(cameras_json(cameras))
    run(Config(tmp_path / "scene.ply", tmp_path / "page.html", embed="ply"))
    initial = config_of((tmp_path / "page.html").read_text(encoding="utf-8"))["settings"]["cameras"][0]["initial"]
    position = viewer_from_world(torch.tensor([0.0, 0.0, 1.0])).T @ torch.tensor(initial["position"])
    assert float((cameras.centers() - position).norm(dim=1).min()) < 1e-4


@pytest.mark.parametrize("up", [(0, -1, 0), (0, 0, 1), (0, 1, 0), (0.6, 0, 0.8), (-1, 0, 0)])
def test_up_of_the_scene_is_y_of_the_viewer(up: tuple[float, float, float]):
    direction = torch.tensor(up, dtype=torch.float64)
    rotation = viewer_from_world(direction)
    assert torch.allclose(rotation @ direction, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    assert torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1.0)


def test_first_view_stands_where_a_photo_was_taken():
    scene = tiny_scene()
    capture = tiny_capture(scene)
    view = choose(scene, capture.cameras.select(capture.train))
    train = capture.cameras.select(capture.train).centers().double()
    assert float((train - view.position).norm(dim=1).min()) < 1e-5
    assert float(view.up[2]) == pytest.approx(1.0, abs=1e-6)


def test_first_view_avoids_photos_that_look_away():
    scene = tiny_scene()
    capture = tiny_capture(scene)
    viewmats = capture.cameras.viewmats.clone()
    eye = capture.cameras.centers()[1]
    viewmats[1] = look_at(eye, 2 * eye + torch.tensor([1.0, 3.0, 0.0]), torch.tensor([0.0, 0.0, 1.0]))
    moved = replace(capture, cameras=replace(capture.cameras, viewmats=viewmats))
    assert float((choose(scene, moved.cameras.select(moved.train)).position - eye).norm()) > 0.1


def test_first_view_of_a_bare_scene_sees_its_middle():
    gaussians = random_gaussians(500, seed=1).to(dtype=torch.float32)
    picture = rasterize(gaussians, choose(Scene(gaussians), None).square(32)).alpha[0, ..., 0]
    assert float(picture[12:20, 12:20].mean()) > 0.5
    assert float(picture.mean()) < float(picture[12:20, 12:20].mean())


def wild_scene(antialiased: bool) -> Scene:
    """Splats that viewers get wrong: needles below a pixel, some wider than the window, bright and saturated ones."""
    many = random_gaussians(400, seed=5)
    tiny = random_gaussians(1000, seed=6)
    wide = random_gaussians(4, seed=7)
    tiny = replace(tiny, log_scales=tiny.log_scales - 3.5, opacity_logits=tiny.opacity_logits + 2)
    wide = replace(wide, means=wide.means * 6, log_scales=wide.log_scales + 3)
    return Scene(cat([many, tiny, wide]).to(dtype=torch.float32), SceneInfo(antialiased=antialiased, up=(0, 0, 1)))


def views() -> Cameras:
    eyes = [(3.5, 0, 0.5), (0, 3, 2), (-1.2, 0.3, 0), (2, -3, -1), (0.2, -0.4, 4)]
    rolls = [(0, 0, 1), (0, 0.2, 1), (0.3, 0, 1), (0, 0, -1), (0, 1, 0)]
    viewmats = [
        look_at(torch.tensor(e).float(), torch.zeros(3), torch.tensor(u).float())
        for e, u in zip(eyes, rolls, strict=True)
    ]
    focal = WIDTH / 2 / math.tan(math.radians(FOV_DEG) / 2)
    K = torch.tensor([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]])
    return Cameras(torch.stack(viewmats), K.repeat(len(eyes), 1, 1), torch.tensor([[WIDTH, HEIGHT]] * len(eyes)))


POSE = """(pose) => new Promise((resolve) => scene3d.ready.then(({ app }) => {
  app.off("framerender", window.hold);
  window.hold = () => {
    const camera = app.root.findByName("camera");
    camera.setPosition(...pose.position);
    camera.setRotation(...pose.rotation);
    Object.assign(camera.camera, { horizontalFov: true, fov: pose.fov, nearClip: 0.01, farClip: 1000 });
  };
  app.on("framerender", window.hold);
  app.autoRender = true;
  let frames = 0;
  const count = (camera, layer, ready) => {
    if (++frames < 4 || !ready) return;
    app.systems.gsplat.off("frame:ready", count);
    app.once("frameend", () => { app.autoRender = false; resolve(); });
  };
  app.systems.gsplat.on("frame:ready", count);
}))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as program:
        yield program


@pytest.fixture(scope="module")
def draw(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Draw:
    """What the browser shows of wild_scene from view i; pages are opened once."""
    folder = tmp_path_factory.mktemp("pages")
    opened: dict[bool, Any] = {}

    def picture(antialiased: bool, cameras: Cameras, i: int) -> np.ndarray:
        scene = wild_scene(antialiased)
        if antialiased not in opened:
            path = folder / f"{antialiased}.html"
            path.write_text(build_page(scene, None, PLY), encoding="utf-8")
            opened[antialiased] = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            opened[antialiased].goto(f"{path.as_uri()}?noui")
        page = opened[antialiased]
        turn = viewer_from_world(torch.tensor([0.0, 0.0, 1.0]))
        rotation = turn @ cameras.viewmats[i, :3, :3].T @ FLIP
        w, x, y, z = quaternions.from_rotmat(rotation[None])[0].tolist()
        position = (turn @ cameras.centers()[i]).tolist()
        page.evaluate(POSE, {"position": position, "rotation": [x, y, z, w], "fov": FOV_DEG})
        return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))

    return picture


@pytest.mark.slow
@pytest.mark.parametrize("i", range(5))
@pytest.mark.parametrize("antialiased", [False, True], ids=["classic", "antialiased"])
def test_the_browser_draws_what_we_draw(draw: Draw, antialiased: bool, i: int):
    scene, cameras = wild_scene(antialiased), views()
    settings = RasterSettings(antialiased=antialiased)
    ours = rasterize(scene.payload, cameras.select([i]), settings).rgb[0].clamp(0, 1).numpy()
    theirs = draw(antialiased, cameras, i) / 255
    psnr = -10 * math.log10(float(np.mean((ours - theirs) ** 2)) + 1e-12)
    assert psnr >= AGREEMENT_DB


PLACE = """() => scene3d.ready.then(({ app }) => {
  const { x, y, z } = app.root.findByName("camera").getPosition();
  return [x, y, z];
})"""


@pytest.fixture(scope="module")
def small_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "page.html"
    path.write_text(build_page(tiny_scene(), None, PLY), encoding="utf-8")
    return path


def moved(tab: Any, before: list[float]) -> tuple[float, float]:
    """How far the camera went, and how much its distance from the middle of the scene changed, once it is still."""
    tab.wait_for_timeout(1500)
    after = np.array(tab.evaluate(PLACE))
    start = np.array(before)
    return float(np.linalg.norm(after - start)), float(np.linalg.norm(after) - np.linalg.norm(start))


@pytest.mark.slow
def test_the_mouse_turns_and_zooms(browser: Any, small_page: Path):
    tab = browser.new_page(viewport={"width": 300, "height": 200})
    tab.goto(small_page.as_uri())
    before = tab.evaluate(PLACE)
    tab.mouse.move(150, 100)
    tab.mouse.down()
    tab.mouse.move(210, 100, steps=5)
    tab.mouse.up()
    distance, nearer = moved(tab, before)
    assert distance > 0.3
    assert abs(nearer) < 0.5 * distance
    before = tab.evaluate(PLACE)
    tab.mouse.wheel(0, 400)
    assert moved(tab, before)[1] > 0.1
    tab.close()


@pytest.mark.slow
def test_fingers_turn_and_pinch(browser: Any, small_page: Path):
    context = browser.new_context(viewport={"width": 200, "height": 300}, has_touch=True, is_mobile=True)
    tab = context.new_page()
    tab.goto(small_page.as_uri())
    before = tab.evaluate(PLACE)
    session = context.new_cdp_session(tab)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})
        tab.wait_for_timeout(60)

    touch("touchStart", (80, 120))
    for step in range(1, 6):
        touch("touchMove", (80 + 12 * step, 120))
    touch("touchEnd")
    assert moved(tab, before)[0] > 0.3
    before = tab.evaluate(PLACE)
    touch("touchStart", (90, 120), (110, 120))
    for step in range(1, 6):
        touch("touchMove", (90 - 10 * step, 120), (110 + 10 * step, 120))
    touch("touchEnd")
    assert moved(tab, before)[1] < -0.1
    context.close()


@pytest.mark.slow
def test_the_page_needs_no_network_and_asks_nobody_for_anything(browser: Any, small_page: Path):
    context = browser.new_context(offline=True)
    tab = context.new_page()
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(small_page.as_uri())
    tab.evaluate("() => scene3d.ready.then(() => 0)")
    assert not [url for url in asked if not url.startswith(("file:", "blob:", "data:"))]
    context.close()


@pytest.mark.slow
def test_a_damaged_scene_is_explained_over_the_poster(browser: Any, tmp_path: Path):
    page = build_page(tiny_scene(), None, PLY)
    broken = page.replace(parts(page)["scene"], base64.b64encode(b"ply\nnot really").decode())
    path = tmp_path / "broken.html"
    path.write_text(broken, encoding="utf-8")
    tab = browser.new_page()
    tab.goto(path.as_uri())
    tab.wait_for_selector("#message:not([hidden])", timeout=20_000)
    assert "the scene inside is damaged" in tab.text_content("#message")
    assert tab.is_visible("#poster")
