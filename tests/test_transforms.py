"""transforms.json and Blender captures: axes, intrinsics, splits, damage."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from captures import colmap_model, ring_cameras, write_photos, write_transforms_capture

from scene3d.core.errors import CaptureError, FormatError
from scene3d.io.colmap_model import write_model
from scene3d.io.posed_views import rigid
from scene3d.io.transforms_json import read_blender, read_transforms, write_transforms_json
from scene3d.ops.lens import Lens

# OpenGL axes: this camera sits at (0, 0, 5) and looks down along -z, y up.
ABOVE = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 5], [0, 0, 0, 1]]


def write_json_capture(folder, frames, name="transforms.json", **shared):
    for frame in frames:
        if not (folder / frame["file_path"]).exists() and "missing" not in frame["file_path"]:
            path = frame["file_path"]
            write_photos(folder, (path if "." in path.rsplit("/", 1)[-1] else f"{path}.png",))
    (folder / name).write_text(json.dumps({**shared, "frames": frames}))
    return folder / name


def frame(path="images/a.png", matrix=ABOVE, **values):
    return {"file_path": path, "transform_matrix": matrix, **values}


def test_opengl_axes_become_opencv_axes(tmp_path):
    posed = read_transforms(write_json_capture(tmp_path, [frame()], fl_x=20))
    pose = posed.views[0].cam_from_world
    in_front, above = pose @ [0, 0, 0, 1], pose @ [0, 1, 0, 1]
    assert in_front.tolist() == [0, 0, 5, 1]  # ahead is +z
    assert above.tolist() == [0, -1, 5, 1]  # up in the world is -y in the image


def test_what_is_written_is_read_back(tmp_path):
    cameras = write_transforms_capture(tmp_path, 5)
    points = torch.randn(4, 3)
    colors = torch.randint(0, 256, (4, 3), dtype=torch.uint8)
    paths = [f"images/{name}" for name in cameras.names]
    write_transforms_json(cameras, tmp_path / "transforms.json", paths, points, colors)
    posed = read_transforms(tmp_path / "transforms.json")
    assert [view.name for view in posed.views] == paths
    assert torch.equal(posed.points, points)
    assert torch.equal(posed.point_colors, colors)
    for view, viewmat in zip(posed.views, cameras.viewmats, strict=True):
        assert np.allclose(view.cam_from_world, viewmat.numpy(), atol=1e-12)
    assert posed.views[0].focal == (20, 21)
    assert posed.views[0].center == (11.5, 8.5)
    assert posed.views[0].size == (24, 16)
    assert posed.notices == ()


def test_shared_values_hold_unless_a_frame_has_its_own(tmp_path):
    frames = [frame("images/a.png"), frame("images/b.png", fl_x=30, k1=0.2, w=48.0, h=32.0)]
    path = write_json_capture(tmp_path, frames, fl_x=20, fl_y=21, cx=12, cy=8, w=24.0, h=16.0, k1=0.1, p2=0.01)
    a, b = read_transforms(path).views
    assert (a.focal, a.size, a.lens) == ((20, 21), (24, 16), Lens(False, (0.1, 0, 0, 0), (0, 0.01)))
    assert (b.focal, b.size, b.lens) == ((30, 21), (48, 32), Lens(False, (0.2, 0, 0, 0), (0, 0.01)))


@pytest.mark.parametrize(
    ("values", "lens"),
    [
        ({"camera_model": "OPENCV_FISHEYE", "k1": 0.1, "k4": 0.2}, Lens(True, (0.1, 0, 0, 0.2))),
        ({"is_fisheye": True, "k2": 0.1}, Lens(True, (0, 0.1, 0, 0))),
        ({"camera_model": "PINHOLE", "k1": 0.1}, Lens()),
        ({"k3": 0.1}, Lens(False, (0, 0, 0.1, 0))),
    ],
)
def test_camera_models_choose_the_lens(tmp_path, values, lens):
    assert read_transforms(write_json_capture(tmp_path, [frame()], fl_x=20, **values)).views[0].lens == lens


def test_an_angle_stands_for_a_focal_length(tmp_path):
    view = read_transforms(write_json_capture(tmp_path, [frame()], camera_angle_x=1.0)).views[0]
    assert view.focal is None
    assert view.angle_x == 1.0


def test_paths_without_suffix_and_with_foreign_slashes_are_found(tmp_path):
    write_photos(tmp_path, ("train/r_0.png", "images/b.jpg"))
    frames = [{**frame("./train/r_0")}, {**frame("images\\b.jpg")}]
    (tmp_path / "transforms.json").write_text(json.dumps({"fl_x": 20, "frames": frames}))
    views = read_transforms(tmp_path / "transforms.json").views
    assert [view.name for view in views] == ["train/r_0", "images/b.jpg"]
    assert views[0].image_path.name == "r_0.png"


def test_missing_photos_and_broken_poses_are_left_out_with_notices(tmp_path):
    mirrored = [[-1, 0, 0, 0], *ABOVE[1:]]
    frames = [frame(), frame("images/missing1.png"), frame("images/missing2.png")]
    frames += [frame("images/nan.png", [[math.nan] * 4] * 4), frame("images/flat.png", [[1, 0, 0, 0]])]
    frames += [frame("images/none.png", None), frame("images/mirror.png", mirrored)]
    posed = read_transforms(write_json_capture(tmp_path, frames, fl_x=20))
    assert len(posed.views) == 1
    assert posed.notices == (
        "transforms.json names 2 photos that are not there: images/missing1.png, images/missing2.png",
        "4 photos have no valid pose (NaN, mirrored, no 4x4): images/nan.png, images/flat.png, images/none.png"
        " and 1 more",
    )


@pytest.mark.parametrize(("times", "n"), [((0.0, 0.5, 1.0), 1), ((0.5, 0.5), 0), ((0.5, "late", None), 0)])
def test_instants_that_differ_are_noticed(tmp_path, times, n):
    frames = [frame(f"images/{i}.png", time=time) for i, time in enumerate(times)]
    posed = read_transforms(write_json_capture(tmp_path, frames, fl_x=20))
    notices = [text for text in posed.notices if "instants" in text]
    assert len(notices) == n
    assert all(f"is of {len(set(times))} instants" in text for text in notices)


def test_a_scale_in_the_pose_is_taken_out_with_a_notice(tmp_path):
    scaled = (np.diag([2.0, 2, 2, 1]) @ ABOVE).tolist()
    posed = read_transforms(write_json_capture(tmp_path, [frame(matrix=scaled)], fl_x=20))
    rotation = posed.views[0].cam_from_world[:3, :3]
    assert np.allclose(rotation @ rotation.T, np.eye(3))
    assert "scale or shear" in posed.notices[0]


def test_three_rows_are_a_pose_too(tmp_path):
    posed = read_transforms(write_json_capture(tmp_path, [frame(matrix=ABOVE[:3])], fl_x=20))
    assert posed.views[0].cam_from_world[2, 3] == 5


def test_rigid_keeps_rotations_to_the_last_bit():
    cameras = ring_cameras(3)
    for viewmat in cameras.viewmats.numpy():
        found = rigid(viewmat)
        assert found is not None
        assert np.array_equal(found[0], viewmat)
        assert not found[1]


def test_given_lists_decide_the_split(tmp_path):
    frames = [frame(f"images/{name}.png") for name in "abcd"]
    lists = {"train_filenames": ["images/a.png"], "test_filenames": ["images/b.png"], "val_filenames": ["images/c.png"]}
    views = read_transforms(write_json_capture(tmp_path, frames, fl_x=20, **lists)).views
    assert [view.split for view in views] == ["train", "test", "test", "unused"]


@pytest.mark.parametrize(("names", "held_out"), [(("train", "test", "val"), "test"), (("train", "val"), "val")])
def test_blender_files_give_the_split(tmp_path, names, held_out):
    for name in names:
        write_json_capture(tmp_path, [frame(f"./{name}/r_0")], f"transforms_{name}.json", camera_angle_x=0.7)
    posed = read_blender(tmp_path)
    assert {view.name: view.split for view in posed.views} == {"train/r_0": "train", f"{held_out}/r_0": "test"}
    assert any("transforms_val.json is not used" in notice for notice in posed.notices) == (held_out == "test")


def test_a_mask_path_is_kept_where_the_mask_is(tmp_path):
    write_photos(tmp_path, ("m/a.png",))
    frames = [frame("images/a.png", mask_path="m/a.png"), frame("images/b.png", mask_path="m/b.png")]
    a, b = read_transforms(write_json_capture(tmp_path, frames, fl_x=20)).views
    assert a.mask_path == tmp_path / "m" / "a.png"
    assert b.mask_path is None


def test_points_of_colmap_are_brought_into_the_frame_of_the_file(tmp_path):
    model = colmap_model(ring_cameras(2))
    write_model(model, tmp_path / "colmap" / "sparse" / "0")
    applied = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 2.0]]
    posed = read_transforms(write_json_capture(tmp_path, [frame()], fl_x=20, applied_transform=applied))
    x, y, z = model.points.T
    assert np.allclose(posed.points.numpy(), np.stack([y, x, 2 - z], axis=1))
    # The poses are those of the file.
    assert posed.views[0].cam_from_world[2, 3] == 5


def test_points_that_are_not_there_are_noticed(tmp_path):
    posed = read_transforms(write_json_capture(tmp_path, [frame()], fl_x=20, ply_file_path="sparse.ply"))
    assert posed.notices == ("transforms.json names the points sparse.ply, which are not there",)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({}, CaptureError, r"images/a\.png has no focal length\. Give fl_x"),
        ({"fl_x": "wide"}, FormatError, "fl_x: expected a finite number, got 'wide'"),
        ({"fl_x": math.inf}, FormatError, "fl_x: expected a finite number"),
        ({"fl_x": 20, "k1": math.nan}, FormatError, "k1: expected a finite number"),
        ({"fl_x": 20, "w": -3}, FormatError, "expected a sensible size"),
        ({"fl_x": 20, "camera_model": "EQUIRECTANGULAR"}, CaptureError, "EQUIRECTANGULAR is not supported"),
    ],
)
def test_wrong_values_are_told(tmp_path, values, error, message):
    with pytest.raises(error, match=message):
        read_transforms(write_json_capture(tmp_path, [frame()], **values))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no valid JSON"),
        ("[" * 100_000, "is no valid JSON"),
        ("[]", "expected an object with a list 'frames'"),
        ('{"frames": {}}', "expected an object with a list 'frames'"),
        ('{"frames": [1]}', "every entry of 'frames' to be an object"),
        ('{"frames": [{"transform_matrix": []}]}', "frame 0: expected a file_path"),
    ],
)
def test_files_of_another_kind_are_told(tmp_path, text, message):
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(FormatError, match=message):
        read_transforms(tmp_path / "transforms.json")


def test_no_usable_frame_is_a_capture_error_that_says_why(tmp_path):
    with pytest.raises(CaptureError, match=r"none of the 1 frames can be used; .*missing\.png.* Check file_path"):
        read_transforms(write_json_capture(tmp_path, [frame("missing.png")], fl_x=20))


def test_truncation_at_every_byte_is_a_format_error(tmp_path):
    path = write_json_capture(tmp_path, [frame()], fl_x=20)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError):
            read_transforms(path)


@pytest.mark.parametrize(("key", "value"), [("fl_x", 10**400), ("w", float("inf")), ("cx", None)])
def test_numbers_that_no_float_holds_are_told(key: str, value: object, tmp_path: Path) -> None:
    write_transforms_capture(tmp_path, 3)
    data = json.loads((tmp_path / "transforms.json").read_text())
    data["frames"][0][key] = value
    (tmp_path / "transforms.json").write_text(json.dumps(data))
    with pytest.raises(FormatError, match=f"{key}: expected a finite number"):
        read_transforms(tmp_path / "transforms.json")


def test_a_photo_of_an_impossible_name_is_not_there(tmp_path: Path) -> None:
    write_transforms_capture(tmp_path, 3)
    data = json.loads((tmp_path / "transforms.json").read_text())
    data["frames"][0]["file_path"] = "x" * 5000
    data["frames"][1]["file_path"] = "a\0b"
    (tmp_path / "transforms.json").write_text(json.dumps(data))
    assert "names 2 photos that are not there" in read_transforms(tmp_path / "transforms.json").notices[0]
