"""The render stage: frames, files, sizes and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from strategies import front_camera, one_gaussian
from tiny_capture import HEIGHT, WIDTH, tiny_cameras, tiny_capture, tiny_scene, write_tiny_capture

from scene3d.core.errors import OutputError
from scene3d.core.scene import Scene
from scene3d.io.ply import write_ply
from scene3d.render.frames import FrameSettings, depth_range_of, frames
from scene3d.render.itinerary import Wish, fit_size, plan
from scene3d.render.scene_points import scene_points
from scene3d.stages.render import Config, run


@pytest.fixture(scope="module")
def scene() -> Scene:
    return tiny_scene()


@pytest.fixture
def files(tmp_path: Path, scene: Scene) -> tuple[Path, Path]:
    write_ply(scene, tmp_path / "scene.ply")
    return tmp_path / "scene.ply", write_tiny_capture(tmp_path / "capture", scene)


def wall(depth: float) -> Scene:
    """One opaque disc that faces the camera."""
    return Scene(one_gaussian((0.0, 0.0, depth), (3.0, 3.0, 1e-3), 0.999))


@pytest.mark.parametrize("mode", ["rgb", "depth", "normals", "alpha"])
def test_every_mode_gives_pictures_of_the_cameras_size(scene: Scene, mode) -> None:
    pictures = list(frames(scene, tiny_cameras(2), FrameSettings(mode=mode, backend="reference")))
    assert [picture.shape for picture in pictures] == [(HEIGHT, WIDTH, 3)] * 2
    assert all(picture.dtype == np.uint8 and picture.max() > 0 for picture in pictures)


def test_normal_of_a_facing_disc_points_at_the_camera() -> None:
    settings = FrameSettings(mode="normals", backend="reference")
    picture = next(frames(wall(4.0), front_camera(), settings))
    # Towards the camera at the origin is -z: red and green in the middle, no blue.
    assert np.allclose(picture[16, 16], [127, 127, 0], atol=2)


def test_large_pictures_are_drawn_in_strips_that_fit_together(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(scene.splats(), log_scales=scene.splats().log_scales.clamp(max=-3.5))
    views, settings = tiny_cameras(2), FrameSettings(backend="reference")
    whole = list(frames(Scene(small), views, settings))
    monkeypatch.setattr("scene3d.render.frames.STRIP_PIXELS", 7 * WIDTH)
    strips = list(frames(Scene(small), views, settings))
    # 24 rows in strips of 7, one of 3: any row in a wrong place would differ by far more than rounding.
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(whole, strips, strict=True))
    assert all(picture.max() > 50 for picture in whole)


def test_depth_range_is_one_for_the_whole_path() -> None:
    views = front_camera()
    near_and_far = Scene(wall(4.0).payload)
    low, high = depth_range_of(near_and_far, views, FrameSettings(mode="depth", backend="reference"))
    assert low == pytest.approx(4.0, rel=1e-2)
    assert high >= low


def test_depth_of_an_empty_scene_shows_the_background(scene: Scene) -> None:
    nothing = Scene(scene.payload.select(torch.zeros(len(scene.payload), dtype=torch.bool)))
    settings = FrameSettings(mode="depth", background=(1.0, 0.0, 0.0), backend="reference")
    picture = next(frames(nothing, tiny_cameras(1), settings))
    assert (picture == np.array([255, 0, 0])).all()


def test_bare_scene_is_rendered_to_numbered_pngs(files: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    out = tmp_path / "frames"
    run(Config(files[0], out, width=20, height=10, fps=2, seconds=1.5, backend="reference"))
    assert sorted(p.name for p in out.iterdir()) == ["00000.png", "00001.png", "00002.png"]
    with Image.open(out / "00000.png") as image:
        assert image.size == (20, 10)
    assert capsys.readouterr().out.startswith("3 frames of 20x10 (orbit, rgb) -> ")


def test_test_views_reproduce_the_photos(files: tuple[Path, Path], tmp_path: Path) -> None:
    scene, capture = files
    run(Config(scene, tmp_path / "out", capture, path="test", test_every=2, backend="reference"))
    with Image.open(tmp_path / "out" / "images_00.png") as mine, Image.open(capture / "images" / "00.png") as photo:
        difference = np.abs(np.asarray(mine).astype(int) - np.asarray(photo).astype(int))
    assert difference.max() <= 1


@pytest.mark.parametrize("name", ["v.mp4", "v.webm", "v.gif"])
def test_videos_are_written_by_suffix(files: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    run(Config(files[0], tmp_path / name, width=16, height=16, fps=4, seconds=0.5, backend="reference"))
    assert (tmp_path / name).stat().st_size > 100


def test_default_output_lies_beside_the_folder_of_the_scene(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "run" / "fit" / "scene.ply"
    path.parent.mkdir(parents=True)
    write_ply(scene, path)
    run(Config(path, width=16, height=16, fps=2, seconds=1, mode="alpha", backend="reference"))
    assert (tmp_path / "run" / "renders" / "orbit_alpha.mp4").is_file()


def test_camera_file_is_rendered_at_the_width_asked_for(files: tuple[Path, Path], tmp_path: Path) -> None:
    pose = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 5], [0, 0, 0, 1]]
    text = f'{{"render_width": 64, "render_height": 32, "camera_path": [{{"camera_to_world": {pose}, "fov": 60}}]}}'
    (tmp_path / "path.json").write_text(text)
    run(Config(files[0], tmp_path / "one.png", cameras=tmp_path / "path.json", width=32, backend="reference"))
    with Image.open(tmp_path / "one.png") as image:
        assert image.size == (32, 16)
        assert np.asarray(image).max() > 0


def test_views_are_reframed_not_stretched_at_another_aspect() -> None:
    cameras = fit_size(tiny_cameras(1), 48, 16)
    assert cameras.sizes.tolist() == [[48, 16]]
    assert float(cameras.Ks[0, 0, 0]) == pytest.approx(float(cameras.Ks[0, 1, 1]))
    assert cameras.Ks[0, :2, 2].tolist() == pytest.approx([24.0, 8.0])


@pytest.mark.parametrize("path", ["orbit", "ellipse", "spiral", "flight"])
def test_paths_of_a_capture_take_the_size_of_its_photos(scene: Scene, path) -> None:
    capture = tiny_capture(scene)
    found = plan(Wish(path, seconds=0.2, fps=20), scene_points(scene), capture, None)
    assert found.path == path
    assert found.cameras.sizes.tolist() == [[WIDTH, HEIGHT]] * 4


def test_auto_flies_where_photos_do_not_surround_the_scene(scene: Scene) -> None:
    capture = tiny_capture(scene)
    assert plan(Wish(seconds=0.1), scene_points(scene), capture, None).path == "flight"


def test_flight_without_capture_names_the_option(scene: Scene) -> None:
    with pytest.raises(ValueError, match=r"path: flight needs the cameras of a capture\. Add --capture"):
        plan(Wish("flight"), scene_points(scene), None, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 0}, "width: expected 1 to 16384 pixels, got 0"),
        ({"fps": 0.0}, "fps, seconds: expected positive"),
        ({"seconds": 1e9}, "seconds: expected at most 100000 frames"),
    ],
)
def test_impossible_wishes_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Wish(**options)


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.png", "expected one view for a .png file, got 2"), ("a.avi", "unknown format '.avi'")],
)
def test_wrong_outputs_are_refused_before_rendering(files: tuple[Path, Path], tmp_path: Path, name, words) -> None:
    with pytest.raises(OutputError, match=words):
        run(Config(files[0], tmp_path / name, width=8, height=8, fps=2, seconds=1, backend="reference"))
    assert not (tmp_path / name).exists()
