"""Captures as a whole: detection, split, sizes, masks, what goes wrong; and the real ones."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from captures import WIDTH, colmap_model, ring_cameras, write_colmap_capture, write_photos, write_transforms_capture
from PIL import Image
from tiny_capture import tiny_scene, write_tiny_capture

from scene3d.core.errors import CaptureError, FormatError
from scene3d.io.capture_files import CaptureOptions, find_photos, has_poses, read_capture
from scene3d.io.colmap_model import ColmapCamera, write_model

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared(name):
    if not (DATA / name).is_dir():
        pytest.skip(f"no capture at {DATA / name}")
    return DATA / name


@pytest.mark.parametrize("write", [write_colmap_capture, write_transforms_capture])
def test_both_formats_give_the_same_capture(tmp_path, write):
    cameras = write(tmp_path, 10)
    capture = read_capture(tmp_path)
    torch.testing.assert_close(capture.cameras.viewmats, cameras.viewmats.float())
    torch.testing.assert_close(capture.cameras.Ks, cameras.Ks.float())
    assert capture.cameras.sizes.tolist() == [[24, 16]] * 10
    assert capture.test == (0, 8)
    assert capture.train == (1, 2, 3, 4, 5, 6, 7, 9)
    truth = np.array(Image.open(tmp_path / "images" / "0003.png"))
    assert torch.equal(capture.load(3).rgb, torch.from_numpy(truth))


@pytest.mark.parametrize(("test_every", "expected"), [(0, ()), (3, (0, 3, 6, 9)), (100, (0,))])
def test_every_nth_photo_by_name_is_held_out(tmp_path, test_every, expected):
    write_colmap_capture(tmp_path, 10)
    assert read_capture(tmp_path, CaptureOptions(test_every=test_every)).test == expected


def test_reduction_scales_the_cameras_along(tmp_path):
    write_colmap_capture(tmp_path, 4)
    capture = read_capture(tmp_path, CaptureOptions(data_factor=4))
    assert capture.cameras.sizes[0].tolist() == [6, 4]
    assert capture.cameras.Ks[0].tolist() == [[5, 0, 2.875], [0, 5.25, 2.125], [0, 0, 1]]
    assert capture.load(1).rgb.shape == (4, 6, 3)
    assert "reduced 4 times by area mean; 6x4" in capture.protocol


def test_a_largest_size_holds_for_every_photo(tmp_path):
    write_colmap_capture(tmp_path, 4)
    capture = read_capture(tmp_path, CaptureOptions(max_size=18))
    assert capture.cameras.sizes[0].tolist() == [18, 12]
    assert capture.load(0).rgb.shape == (12, 18, 3)
    assert capture.cameras.Ks[0, 0, 0] == pytest.approx(15)
    assert "Lanczos to at most 18 pixels" in capture.protocol


def test_photos_of_another_size_scale_the_intrinsics_with_a_notice(tmp_path):
    cameras = write_colmap_capture(tmp_path, 4)
    write_photos(tmp_path / "images", cameras.names, size=(12, 8))
    capture = read_capture(tmp_path)
    assert capture.cameras.sizes[0].tolist() == [12, 8]
    assert capture.cameras.Ks[0, 0].tolist() == [10, 0, 5.75]
    expected = "4 photos have another size than their camera (12x8 instead of 24x16): intrinsics were scaled"
    assert capture.notices == (expected,)


def test_photos_of_another_shape_are_refused(tmp_path):
    cameras = write_colmap_capture(tmp_path, 4)
    write_photos(tmp_path / "images", cameras.names[2:3], size=(16, 24))
    with pytest.raises(CaptureError, match=r"0002\.png: expected a photo of 24x16 pixels, got 16x24"):
        read_capture(tmp_path)


def test_a_photo_lying_down_is_turned_where_its_camera_stands(tmp_path):
    cameras = write_colmap_capture(tmp_path, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    # Stored a quarter turn to the left of upright.
    Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(
        tmp_path / "images" / "x.jpg", exif=exif, quality=100, subsampling=0
    )
    model = colmap_model(cameras)
    write_model(
        replace(model, images={**model.images, 2: replace(model.images[2], name="x.jpg")}), tmp_path / "sparse" / "0"
    )
    capture = read_capture(tmp_path)
    photo = capture.load(capture.cameras.names.index("x.jpg"))
    assert np.abs(photo.rgb.numpy().astype(int) - upright).mean() < 5
    assert "1 photos were turned upright" in capture.notices[0]


def test_photos_of_several_sizes_live_in_one_capture(tmp_path):
    cameras = write_colmap_capture(tmp_path, 4)
    model = colmap_model(cameras)
    images = {i: replace(image, camera_id=2 if i == 2 else 1) for i, image in model.images.items()}
    small = ColmapCamera("SIMPLE_RADIAL", 40, 30, (33.0, 20, 15, -0.01))
    write_model(replace(model, cameras={**model.cameras, 2: small}, images=images), tmp_path / "sparse" / "0")
    write_photos(tmp_path / "images", ("0001.png",), size=(40, 30))
    capture = read_capture(tmp_path)
    sizes = capture.cameras.sizes.tolist()
    assert sizes[0] == [24, 16]
    assert sizes[1][0] >= 40
    assert capture.load(1).rgb.shape == (sizes[1][1], sizes[1][0], 3)


@pytest.mark.parametrize("mask_name", ["0001.png", "0001.png.png"])
def test_masks_beside_the_images_are_used(tmp_path, mask_name):
    write_colmap_capture(tmp_path, 3)
    (tmp_path / "masks").mkdir()
    mask = np.zeros((16, 24), np.uint8)
    mask[:8] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / mask_name)
    capture = read_capture(tmp_path)
    assert torch.equal(capture.load(1).mask, torch.from_numpy(mask))
    assert capture.load(0).mask is None
    assert capture.notices == ("2 of 3 photos have no mask",)
    assert read_capture(tmp_path, CaptureOptions(masks=False)).load(1).mask is None


def test_alpha_is_known_before_a_photo_is_loaded(tmp_path):
    write_colmap_capture(tmp_path, 3)
    assert not read_capture(tmp_path).has_alpha
    for path in (tmp_path / "images").iterdir():
        Image.open(path).convert("RGBA").save(path)
    capture = read_capture(tmp_path)
    assert capture.has_alpha
    assert capture.load(0).alpha.unique().tolist() == [255]


def test_memory_does_not_grow_with_the_number_of_photos(tmp_path):
    write_colmap_capture(tmp_path, 10)
    size_bytes = WIDTH * 16 * 3
    capture = read_capture(tmp_path, CaptureOptions(cache_bytes=3 * size_bytes))
    cache = capture.load.__self__
    for i in range(10):
        capture.prefetch([(i + 1) % 10])
        capture.load(i)
        assert cache.size_bytes <= 3 * size_bytes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), r"holds no photos and no poses .*Check the path"),
        (("a.png",), r"holds one photo, a\.png; .*Take 20 or more"),
        (("a.png", "b.jpg"), r"holds 2 photos but no camera poses .*Run: scene3d pose "),
    ],
)
def test_folders_without_poses_say_what_to_run(tmp_path, names, message):
    write_photos(tmp_path, names)
    with pytest.raises(CaptureError, match=message):
        read_capture(tmp_path)
    assert not has_poses(tmp_path)
    assert [path.name for path in find_photos(tmp_path)] == list(names)


def test_other_things_than_captures_are_told(tmp_path):
    (tmp_path / "film.MP4").write_bytes(b"x")
    (tmp_path / "note.txt").write_bytes(b"x")
    with pytest.raises(CaptureError, match="no such file or folder"):
        read_capture(tmp_path / "nothing")
    with pytest.raises(CaptureError, match=r"is a video without camera poses. Run: scene3d pose"):
        read_capture(tmp_path / "film.MP4")
    with pytest.raises(CaptureError, match=r"is no capture\. Give a folder"):
        read_capture(tmp_path / "note.txt")


def test_a_json_file_is_a_capture_by_itself(tmp_path):
    write_transforms_capture(tmp_path, 4)
    (tmp_path / "transforms.json").rename(tmp_path / "other.json")
    assert not has_poses(tmp_path)
    assert len(read_capture(tmp_path / "other.json")) == 4


def test_one_posed_photo_is_too_few(tmp_path):
    write_colmap_capture(tmp_path, 1)
    with pytest.raises(CaptureError, match="expected at least 2 posed photos, got 1"):
        read_capture(tmp_path)


def test_a_damaged_photo_is_named_when_the_capture_is_read(tmp_path):
    write_colmap_capture(tmp_path, 4)
    (tmp_path / "images" / "0002.png").write_bytes(b"")
    with pytest.raises(CaptureError, match=r"0002\.png: the file is empty"):
        read_capture(tmp_path)


def test_a_photo_cut_short_is_named_when_it_is_loaded(tmp_path):
    write_colmap_capture(tmp_path, 4)
    path = tmp_path / "images" / "0002.png"
    path.write_bytes(path.read_bytes()[:300])
    capture = read_capture(tmp_path)
    capture.prefetch([2])
    with pytest.raises(CaptureError, match=r"0002\.png: the image is truncated or damaged"):
        capture.load(2)


def test_a_damaged_model_is_a_format_error(tmp_path):
    write_colmap_capture(tmp_path, 4)
    path = tmp_path / "sparse" / "0" / "images.bin"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FormatError, match=r"images\.bin at byte"):
        read_capture(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data_factor": 0}, "data_factor: expected 1 or more"),
        ({"test_every": 1}, "test_every: expected 0 .no test views. or 2 and more"),
        ({"max_size": 2}, "max_size: expected 16 or more"),
    ],
)
def test_options_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        CaptureOptions(**values)


def test_a_factor_that_leaves_no_pixel_is_told(tmp_path):
    write_colmap_capture(tmp_path, 4)
    with pytest.raises(CaptureError, match=r"reduced 100 times.* Use a smaller data factor"):
        read_capture(tmp_path, CaptureOptions(data_factor=100))


def test_a_focal_length_of_zero_is_told(tmp_path):
    cameras = ring_cameras(3)
    write_photos(tmp_path / "images", cameras.names)
    model = colmap_model(cameras)
    write_model(replace(model, cameras={1: ColmapCamera("PINHOLE", 24, 16, (0, 0, 12, 8))}), tmp_path / "sparse")
    with pytest.raises(CaptureError, match="expected a positive focal length"):
        read_capture(tmp_path)


def test_fox_is_read_undistorted_and_without_the_photos_that_do_not_exist():
    capture = read_capture(shared("fox"), CaptureOptions(data_factor=4))
    assert len(capture) == 50
    assert len(capture.test) == 7
    assert capture.cameras.names[0] == "images/0001.jpg"
    assert "17 photos that are not there" in capture.notices[0]
    assert "lens undone" in capture.protocol
    width, height = capture.cameras.sizes[0].tolist()
    assert 260 <= width <= 270
    assert 465 <= height <= 480
    assert capture.cameras.Ks[0, 0, 0] == pytest.approx(1375.52 / 4)
    photo = capture.load(0)
    assert photo.rgb.shape == (height, width, 3)
    assert photo.mask is None


def test_plush_projects_its_points_into_its_photos():
    capture = read_capture(shared("plush"), CaptureOptions(data_factor=2))
    assert len(capture) == 93
    assert len(capture.points) == 9055
    homogeneous = torch.cat([capture.points, torch.ones(len(capture.points), 1)], dim=1)
    in_cam = (capture.cameras.viewmats[10] @ homogeneous.T)[:3]
    pixels = (capture.cameras.Ks[10] @ in_cam)[:2] / in_cam[2]
    size = capture.cameras.sizes[10][:, None]
    is_seen = (in_cam[2] > 0) & ((pixels > 0) & (pixels < size)).all(dim=0)
    assert is_seen.float().mean() > 0.5


def test_chair_has_its_given_split_and_alpha():
    capture = read_capture(shared("chair"))
    assert (len(capture.train), len(capture.test)) == (100, 25)
    assert all(capture.cameras.names[i].startswith("test/") for i in capture.test)
    assert capture.has_alpha
    assert capture.load(capture.test[0]).alpha.min() == 0
    # Every camera of the chair looks at the origin from about 4 units.
    assert capture.cameras.centers().norm(dim=1).sub(4.03).abs().max() < 0.01


def test_plain_photos_are_told_to_be_posed():
    with pytest.raises(CaptureError, match=r"holds 11 photos but no camera poses .*Run: scene3d pose .*images"):
        read_capture(shared("sceaux"))


def test_fox_points_at_what_its_frames_say():
    capture = read_capture(shared("fox"), CaptureOptions(data_factor=4))
    data = json.loads((DATA / "fox" / "transforms.json").read_text())
    first = next(f for f in data["frames"] if f["file_path"] == "images/0001.jpg")
    matrix = torch.tensor(first["transform_matrix"])
    torch.testing.assert_close(capture.cameras.centers()[0], matrix[:3, 3], atol=1e-5, rtol=0)
    # The third row of cam_from_world is the line of sight: minus OpenGL's z axis.
    torch.testing.assert_close(capture.cameras.viewmats[0, 2, :3], -matrix[:3, 2], atol=1e-5, rtol=0)


def moved_capture(folder, offset, size=1.0):
    write_tiny_capture(folder, tiny_scene())
    path = folder / "transforms.json"
    content = json.loads(path.read_text())
    for frame in content["frames"]:
        for axis in range(3):
            frame["transform_matrix"][axis][3] = frame["transform_matrix"][axis][3] * size + offset[axis]
    path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("offset", "size"), [((1000.0, -700.0, 300.0), 1.0), ((0.0, 0.0, 0.0), 1e-4), ((9e5, 0, 0), 1e4)]
)
def test_places_that_32_bits_can_hold_are_read_without_a_word(tmp_path, offset, size):
    assert read_capture(moved_capture(tmp_path, offset, size)).notices == ()


def test_a_capture_far_from_its_origin_says_what_rounding_does(tmp_path):
    notices = read_capture(moved_capture(tmp_path, (1e5, 0.0, 0.0))).notices
    assert len(notices) == 1
    assert "Subtract (100000, 0, 1) from the positions of cameras and points" in notices[0]


def test_a_capture_so_far_away_that_nothing_is_left_of_it_is_refused(tmp_path):
    expected = r"rounding to 32 bits moves things by 3\.\d pixels. Subtract \(400000, 5000000, 101\) from"
    with pytest.raises(CaptureError, match=expected):
        read_capture(moved_capture(tmp_path, (4e5, 5e6, 100.0)))
