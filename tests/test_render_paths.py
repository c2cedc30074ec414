"""Camera paths: where they lead, what they look at, how evenly they move."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from strategies import random_gaussians

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.errors import FormatError
from scene3d.core.scene import Scene
from scene3d.io.camera_path import read_cameras
from scene3d.render import paths, surround
from scene3d.render.paths import Shot
from scene3d.render.scene_points import scene_points

SHOT = Shot(width=40, height=30, n_frames=16)
# Poses pass through float32, scene units near 1.
CLOSE = 1e-4


def ring(n: int = 12, radius: float = 3.0, height: float = 1.0, arc: float = 2 * math.pi) -> Cameras:
    """Views on a circle around (1, 2, 0), z up."""
    target = torch.tensor([1.0, 2.0, 0.0])
    angles = [arc * i / n for i in range(n)]
    eyes = [target + torch.tensor([radius * math.cos(a), radius * math.sin(a), height]) for a in angles]
    viewmats = torch.stack([look_at(eye, target, torch.tensor([0.0, 0.0, 1.0])) for eye in eyes])
    K = torch.tensor([[50.0, 0, 32], [0, 50.0, 24], [0, 0, 1]]).repeat(n, 1, 1)
    return Cameras(viewmats, K, torch.tensor([[64, 48]]).repeat(n, 1))


def angle_to(cameras: Cameras, point: torch.Tensor) -> torch.Tensor:
    """Angle between each line of sight and the way to `point`, radians."""
    away = torch.nn.functional.normalize(point.float() - cameras.centers(), dim=1)
    return torch.acos((away * cameras.viewmats[:, 2, :3]).sum(dim=1).clamp(-1, 1))


def test_surround_of_a_ring_finds_its_target_up_and_distance() -> None:
    found = surround.from_cameras(ring())
    assert torch.allclose(found.focus, torch.tensor([1.0, 2.0, 0.0]).double(), atol=CLOSE)
    assert torch.allclose(found.up, torch.tensor([0.0, 0.0, 1.0]).double(), atol=CLOSE)
    assert found.distance == pytest.approx(3.0, abs=CLOSE)
    assert found.height == pytest.approx(1.0, abs=CLOSE)
    assert found.arc_deg == pytest.approx(330, abs=0.1)


@pytest.mark.parametrize(("tilt_deg", "is_axis"), [(0, True), (6, True), (20, False)])
def test_up_is_an_axis_of_the_frame_where_one_is_near(tilt_deg: float, is_axis: bool) -> None:
    tilt = math.radians(tilt_deg)
    turn = torch.tensor([[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]])
    cameras = ring()
    viewmats = cameras.viewmats.clone()
    viewmats[:, :3, :3] = viewmats[:, :3, :3] @ turn.T
    up = surround.up_axis(Cameras(viewmats, cameras.Ks, cameras.sizes))
    expected = (0.0, 0.0, 1.0) if is_axis else (0.0, -math.sin(tilt), math.cos(tilt))
    assert up == pytest.approx(expected, abs=CLOSE)


def test_surround_of_a_single_view_looks_along_it() -> None:
    view = ring(1)
    found = surround.from_cameras(view)
    assert float(angle_to(view, found.focus)[0]) < 1e-3


def test_surround_of_parallel_views_looks_ahead_of_them() -> None:
    viewmats = torch.eye(4).repeat(5, 1, 1)
    viewmats[:, 0, 3] = torch.arange(5.0)
    cameras = Cameras(viewmats, torch.eye(3).repeat(5, 1, 1), torch.tensor([[8, 8]]).repeat(5, 1))
    found = surround.from_cameras(cameras)
    assert float(found.focus[2]) > 0.1
    assert torch.allclose(found.up, torch.tensor([0.0, -1.0, 0.0]).double(), atol=CLOSE)


def test_surround_of_a_bare_scene_ignores_far_outliers() -> None:
    gaussians = random_gaussians(200, seed=1)
    gaussians.means[:3] = 1e6
    found = surround.from_points(scene_points(Scene(gaussians)))
    assert float(found.focus.norm()) < 0.5
    assert found.distance < 20


def test_surround_of_an_empty_scene_is_finite() -> None:
    found = surround.from_points(scene_points(Scene(random_gaussians(0))))
    assert paths.orbit(found, SHOT).viewmats.isfinite().all()


def test_orbit_looks_at_the_focus_from_one_distance() -> None:
    around = surround.from_cameras(ring())
    cameras = paths.orbit(around, SHOT)
    distances = (cameras.centers() - around.focus.float()).norm(dim=1)
    assert torch.allclose(distances, torch.full_like(distances, math.hypot(3, 1)), atol=1e-3)
    assert float(angle_to(cameras, around.focus).max()) < 1e-3


def test_orbit_closes_with_one_even_step() -> None:
    centers = paths.orbit(surround.from_cameras(ring()), SHOT).centers()
    steps = (centers - centers.roll(1, dims=0)).norm(dim=1)
    assert torch.allclose(steps, steps[:1].expand(len(steps)), rtol=1e-3)


def test_orbit_elevation_is_that_asked_for() -> None:
    around = surround.from_cameras(ring())
    offsets = paths.orbit(around, SHOT, elevation_deg=30).centers() - around.focus.float()
    sines = offsets[:, 2] / offsets.norm(dim=1)
    assert torch.allclose(sines, torch.full_like(sines, 0.5), atol=1e-3)


def test_orbit_straight_from_above_stays_finite() -> None:
    assert paths.orbit(surround.from_cameras(ring()), SHOT, elevation_deg=90).viewmats.isfinite().all()


def test_ellipse_of_a_circle_is_that_circle() -> None:
    around = surround.from_cameras(ring(48))
    cameras = paths.ellipse(ring(48), around, SHOT)
    flat = (cameras.centers() - around.focus.float())[:, :2].norm(dim=1)
    assert torch.allclose(flat, torch.full_like(flat, 3.0), rtol=0.03)


def test_spiral_stays_near_the_mean_view() -> None:
    views = ring(8, arc=0.4)
    around = surround.from_cameras(views)
    cameras = paths.spiral(views, around, SHOT)
    distances = (cameras.centers() - views.centers().mean(dim=0)).norm(dim=1)
    assert float(distances.max()) < 1.5
    assert float(angle_to(cameras, around.focus).max()) < 1e-3


def test_flight_begins_and_ends_at_the_first_and_last_view() -> None:
    views = ring(6, arc=3.0)
    cameras = paths.through(views, SHOT)
    for mine, given in ((0, 0), (-1, -1)):
        assert torch.allclose(cameras.viewmats[mine], views.viewmats[given], atol=CLOSE)


def test_flight_moves_at_constant_speed() -> None:
    centers = paths.through(ring(6, arc=3.0), Shot(40, 30, 60)).centers()
    steps = centers.diff(dim=0).norm(dim=1)
    assert float(steps.max() / steps.min()) < 1.3


def test_flight_rotations_are_rotations() -> None:
    rotations = paths.through(ring(7), SHOT, is_closed=True).viewmats[:, :3, :3]
    assert torch.allclose(rotations @ rotations.transpose(1, 2), torch.eye(3).expand(16, 3, 3), atol=CLOSE)


@pytest.mark.parametrize("n_views", [1, 2])
def test_flight_works_with_few_views(n_views: int) -> None:
    cameras = paths.through(ring(n_views), SHOT, is_closed=True)
    assert len(cameras) == 16
    assert cameras.viewmats.isfinite().all()


def test_unordered_photos_are_visited_nearest_next() -> None:
    views = ring(12)
    shuffled = views.select([0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11])
    centers = shuffled.select(paths.tour(shuffled)).centers()
    assert float(centers.diff(dim=0).norm(dim=1).max()) < 1.6


def test_field_of_view_is_kept_at_another_size() -> None:
    views = ring()
    cameras = paths.through(views, Shot(128, 96, 3))
    assert float(cameras.Ks[0, 0, 0]) == pytest.approx(100.0, rel=1e-5)


def test_shot_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="n_frames: expected at least 1, got 0"):
        Shot(10, 10, 0)


def test_camera_path_json_turns_opengl_into_opencv(tmp_path: Path) -> None:
    pose = [1, 0, 0, 5, 0, 1, 0, 6, 0, 0, 1, 7, 0, 0, 0, 1]
    data = {"render_width": 64, "render_height": 48, "camera_path": [{"camera_to_world": pose, "fov": 90}]}
    (tmp_path / "p.json").write_text(json.dumps(data))
    cameras = read_cameras(tmp_path / "p.json")
    assert torch.allclose(cameras.centers(), torch.tensor([[5.0, 6.0, 7.0]]))
    assert cameras.viewmats[0, 2, :3].tolist() == [0, 0, -1]
    assert float(cameras.Ks[0, 1, 1]) == pytest.approx(24.0)


def test_cameras_json_gives_names_sizes_and_centers(tmp_path: Path) -> None:
    entry = {"position": [1, 2, 3], "rotation": torch.eye(3).tolist(), "fx": 9, "fy": 8, "width": 7, "height": 5}
    (tmp_path / "c.json").write_text(json.dumps([{**entry, "img_name": "a.jpg"}]))
    cameras = read_cameras(tmp_path / "c.json")
    assert cameras.names == ("a.jpg",)
    assert cameras.sizes.tolist() == [[7, 5]]
    assert cameras.centers().tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("{}", "holds no cameras"),
        ("[]", "lists no cameras"),
        ("[3]", "camera 0: expected an object, got int"),
        ('{"camera_path": [{"camera_to_world": [1, 2]}]}', "camera 0: pose: expected 16 finite numbers"),
        ('{"camera_path": [], "render_width": "x"}', "render_width: expected a number, got x"),
        ('[{"width": 1e9, "height": 3}]', "camera 0: size: expected 1 to 16384 pixels"),
        ('{"camera_path": [{"camera_to_world": [' + ",".join(["0"] * 16) + "]}]}", "expected a rotation"),
        ('{"camera_path": [{"camera_to_world": [' + ",".join(["NaN"] * 16) + "]}]}", "finite numbers"),
    ],
)
def test_bad_camera_files_say_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(FormatError, match=words):
        read_cameras(tmp_path / "bad.json")
