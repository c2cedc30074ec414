"""cameras.json as trainers write it."""

import json
from pathlib import Path

import pytest
import torch
from tiny_capture import tiny_cameras

from scene3d.core.errors import FormatError
from scene3d.io.camera_path import cameras_json, find_cameras, read_cameras


def test_cameras_survive_their_file(tmp_path: Path):
    cameras = tiny_cameras()
    cameras.Ks[:, 0, 2] += 1.5
    (tmp_path / "cameras.json").write_text(cameras_json(cameras))
    again = read_cameras(tmp_path / "cameras.json")
    torch.testing.assert_close(again.viewmats, cameras.viewmats, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(again.Ks, cameras.Ks)
    assert torch.equal(again.sizes, cameras.sizes)
    assert again.names == cameras.names


def test_middle_of_the_image_is_the_centre_where_the_file_names_none(tmp_path: Path):
    entries = json.loads(cameras_json(tiny_cameras()))
    for entry in entries:
        del entry["cx"], entry["cy"]
    (tmp_path / "cameras.json").write_text(json.dumps(entries))
    again = read_cameras(tmp_path / "cameras.json")
    assert torch.equal(again.Ks[:, :2, 2], again.sizes / 2)


def test_centre_that_is_no_number_is_refused(tmp_path: Path):
    entries = json.loads(cameras_json(tiny_cameras()))
    entries[1]["cx"] = 1e999
    (tmp_path / "cameras.json").write_text(json.dumps(entries))
    with pytest.raises(FormatError, match="camera 1"):
        read_cameras(tmp_path / "cameras.json")


def test_cameras_are_found_beside_a_scene_and_above_it(tmp_path: Path):
    scene = tmp_path / "point_cloud" / "iteration_30000" / "point_cloud.ply"
    scene.parent.mkdir(parents=True)
    assert find_cameras(scene) is None
    (tmp_path / "cameras.json").write_text("[]")
    assert find_cameras(scene) == tmp_path / "cameras.json"
    (scene.parent / "cameras.json").write_text("[]")
    assert find_cameras(scene) == scene.parent / "cameras.json"
