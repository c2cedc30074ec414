"""The live viewer with viser: controls stand for looks, and a browser sees the picture."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import chromium
from PIL import Image
from tiny_capture import tiny_capture, tiny_scene, write_tiny_capture

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.io.camera_path import read_cameras
from scene3d.io.registry import read_scene
from scene3d.render.first_view import choose
from scene3d.stages import fit
from scene3d.view.address import free_port
from scene3d.view.door import Door
from scene3d.view.draw import Stock
from scene3d.view.live import Live
from scene3d.view.look import Box, Cut, Eye, Look
from scene3d.view.panel import bounds
from scene3d.view.server import Viewer

pytest.importorskip("viser", reason="viser is not installed")


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[Viewer]:
    scene = tiny_scene()
    view = choose(scene, None, (0, 0, 1))
    door = Door("127.0.0.1", free_port("127.0.0.1", 8765), "test")
    running = Viewer(door, Stock((scene, tiny_scene(10)), tiny_capture(scene)), view, tmp_path)
    yield running
    running.stop()


def test_controls_stand_for_a_look(viewer: Viewer, capsys: pytest.CaptureFixture[str]):
    panel = viewer.panel
    assert panel.look() == Look(sh_degree=1, photo=0)
    panel.mode.value, panel.side.value, panel.opacity.value, panel.degree.value = "depth", "split", 0.25, 0
    panel.is_cropped.value = True
    panel.axes[0].value = (-0.5, 0.5)
    look = panel.look()
    assert (look.mode, look.side, look.sh_degree) == ("depth", "split", 0)
    (_, y, z) = bounds(tiny_scene())
    assert look.cut == Cut(0.25, Box((-0.5, y[0], z[0]), (0.5, y[1], z[1])))
    assert capsys.readouterr().out == ""


def test_a_newer_state_of_a_fit_is_shown(viewer: Viewer):
    newer = tiny_scene(7)
    viewer.publish(newer, "step 300 of 1000")
    assert viewer.stock.scenes[0] is newer
    assert viewer.door.status.content == "7 Gaussians and 10 Gaussians. step 300 of 1000"


def test_browsers_draw_where_they_are_asked_to(viewer: Viewer):
    viewer.panel.is_local.value = True
    assert viewer._local is not None
    assert viewer._local[0].splats() is viewer.stock.scenes[0].splats()
    assert viewer._look() is None
    viewer.panel.opacity.value = 0.5
    assert len(viewer._local[0].splats()) < 30
    viewer.panel.is_local.value = False
    assert viewer._local is None
    assert viewer._look() == viewer.panel.look()


def test_views_become_a_camera_path(viewer: Viewer):
    up = torch.tensor([0.0, 0, 1])
    eyes = [Eye(look_at(torch.tensor([3.0, y, 1.0]), torch.zeros(3), up), 50.0) for y in (-1.0, 1.0)]
    viewer.route_panel._set(tuple(eyes))
    assert viewer.route_panel.count.content == "2 views"
    assert viewer.route_panel.route.keys == tuple(eyes)


@pytest.mark.slow
def test_a_browser_sees_the_picture(viewer: Viewer):
    viewer.panel.background.value = "white"
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": 640, "height": 400})
        outside: list[str] = []
        tab.on("request", lambda request: outside.append(request.url))
        tab.goto(f"http://127.0.0.1:{viewer.door.port}")
        for _ in range(60):
            tab.wait_for_timeout(250)
            pixels = np.asarray(Image.open(io.BytesIO(tab.screenshot(timeout=60_000))).convert("RGB"))[100:, :240]
            if pixels.mean() > 128 and pixels.std() > 5:
                break
        assert pixels.mean() > 128
        assert pixels.std() > 5
        assert all(url.startswith(("http://127.0.0.1", "blob:", "data:", "ws://127.0.0.1")) for url in outside)


@pytest.mark.slow
def test_buttons_collect_a_camera_path_and_send_files(viewer: Viewer, tmp_path: Path):
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": 640, "height": 700})
        tab.goto(f"http://127.0.0.1:{viewer.door.port}")
        tab.get_by_text("Camera path").click(timeout=60_000)
        tab.get_by_role("button", name="Add this view").click()
        for _ in range(40):
            tab.wait_for_timeout(100)
            if viewer.route_panel.route.keys:
                break
        center = Cameras(viewer.route_panel.route.keys[0].viewmat[None], torch.eye(3)[None], torch.ones(1, 2)).centers()
        assert torch.allclose(center[0].double(), viewer.view.position, atol=1e-3)
        with tab.expect_download(timeout=60_000) as path_file:
            tab.get_by_role("button", name="Save camera_path.json").click()
        assert len(read_cameras(Path(path_file.value.path()))) == 240
        assert (tmp_path / "camera_path.json").is_file()
        viewer.panel.opacity.value = 0.5
        with tab.expect_download(timeout=60_000) as scene_file:
            tab.get_by_role("button", name="Download what is shown").click()
        scene_file.value.save_as(tmp_path / "shown.ply")
        kept = read_scene(tmp_path / "shown.ply").splats()
        assert 0 < len(kept) < 30
        assert bool((kept.opacities >= 0.5).all())


class FakeViewer:
    def __init__(self) -> None:
        self.clients: dict[int, int] = {}
        self.published: list[tuple[int, str]] = []

    def publish(self, scene: Scene, status: str) -> None:
        self.published.append((len(scene.splats()), status))


def test_states_of_a_fit_are_copied_only_when_somebody_looks_and_not_too_often():
    now = [0.0]
    fake = FakeViewer()
    live = Live(fake, tiny_scene(), clock=lambda: now[0])
    copies = []

    def state() -> Gaussians:
        copies.append(now[0])
        return tiny_scene(5).splats()

    for second in range(4):
        now[0] = 0.6 * second
        fake.clients = {0: 0} if second >= 1 else {}
        live.show(100 * second, 0.1 * second, state)
    assert copies == pytest.approx([1.2])
    live.show(1000, 1.0, state)
    assert fake.published == [(5, "Step 200, 20% done."), (5, "Step 1,000, 100% done.")]


def test_a_fit_that_is_looked_at_gives_the_same_bytes(tmp_path: Path):
    capture = write_tiny_capture(tmp_path / "capture", tiny_scene())
    results = []
    for name, is_viewed in (("plain", False), ("viewed", True)):
        fit.run(fit.Config(capture, tmp_path / name, max_steps=20, view=is_viewed, view_port=8790))
        results.append((tmp_path / name / "scene.ply").read_bytes())
    assert results[0] == results[1]
