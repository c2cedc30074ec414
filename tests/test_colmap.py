"""COLMAP models: both encodings, what COLMAP itself writes and reads, damage."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from captures import colmap_model, ring_cameras, write_colmap_capture, write_photos

from scene3d.core.errors import CaptureError, FormatError
from scene3d.io.colmap import find_models, read_colmap
from scene3d.io.colmap_model import MODELS, ColmapCamera, count_images, read_model, write_model

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.mark.parametrize("text", [False, True])
def test_a_model_round_trips_exactly(tmp_path, text):
    model = colmap_model(ring_cameras(5))
    write_model(model, tmp_path, text)
    back = read_model(tmp_path)
    assert back.cameras == model.cameras
    assert back.images == model.images
    for name in ("points", "colors", "errors"):
        assert np.array_equal(getattr(back, name), getattr(model, name))
    assert count_images(tmp_path) == 5


@pytest.mark.parametrize("text", [False, True])
def test_every_camera_model_round_trips(tmp_path, text):
    model = colmap_model(ring_cameras(2))
    cameras = {
        i: ColmapCamera(name, 10 + i, 20, tuple(0.1 * k for k in range(n))) for i, (name, n) in enumerate(MODELS)
    }
    write_model(replace(model, cameras=cameras), tmp_path, text)
    assert read_model(tmp_path).cameras == cameras


@pytest.mark.parametrize("text", [False, True])
def test_colmap_reads_what_is_written(tmp_path, text):
    pycolmap = pytest.importorskip("pycolmap")
    cameras = ring_cameras(4)
    write_model(colmap_model(cameras), tmp_path, text)
    reconstruction = pycolmap.Reconstruction(str(tmp_path))
    assert reconstruction.num_points3D() == 3
    for image in reconstruction.images.values():
        expected = cameras.viewmats[cameras.names.index(image.name)][:3].numpy()
        assert np.allclose(image.cam_from_world().matrix(), expected, atol=1e-12)


@pytest.mark.parametrize("text", [False, True])
def test_what_colmap_writes_is_read(tmp_path, text):
    pycolmap = pytest.importorskip("pycolmap")
    if not DATA.is_dir():
        pytest.skip(f"no captures at {DATA}")
    reconstruction = pycolmap.Reconstruction(str(DATA / "plush" / "sparse" / "0"))
    reconstruction.write_text(str(tmp_path)) if text else reconstruction.write_binary(str(tmp_path))
    model = read_model(tmp_path)
    assert (len(model.images), len(model.points)) == (93, 9055)
    expected = np.sort(np.array([point.xyz for point in reconstruction.points3D.values()]), axis=0)
    assert np.allclose(np.sort(model.points, axis=0), expected, atol=1e-9)
    assert set(model.images) == set(reconstruction.images)


def test_poses_points_and_intrinsics_arrive(tmp_path):
    cameras = write_colmap_capture(tmp_path, 6)
    posed = read_colmap(tmp_path)
    assert [view.name for view in posed.views] == list(cameras.names)
    for view, viewmat in zip(posed.views, cameras.viewmats, strict=True):
        assert np.allclose(view.cam_from_world, viewmat.numpy(), atol=1e-12)
    assert posed.views[0].focal == (20.0, 21.0)
    assert posed.views[0].center == (11.5, 8.5)
    assert posed.points.dtype == torch.float32
    assert posed.point_colors[0].tolist() == [255, 0, 0]
    assert posed.notices == ()


@pytest.mark.parametrize("where", ["sparse", "sparse/0", "colmap/sparse/0", "."])
def test_models_are_found_where_tools_put_them(tmp_path, where):
    write_model(colmap_model(ring_cameras(2)), tmp_path / where)
    assert find_models(tmp_path) == [tmp_path / where]


def test_of_several_models_the_one_with_most_photos_is_taken(tmp_path):
    cameras = write_colmap_capture(tmp_path, 6)
    full = colmap_model(cameras)
    write_model(replace(full, images=dict(list(full.images.items())[:2])), tmp_path / "sparse" / "0")
    write_model(full, tmp_path / "sparse" / "1")
    posed = read_colmap(tmp_path)
    assert len(posed.views) == 6
    assert posed.notices == ("2 models: took sparse/1 with 6 photos, left out 0 (2)",)


def test_a_missing_photo_is_left_out_with_a_notice(tmp_path):
    write_colmap_capture(tmp_path, 4)
    (tmp_path / "images" / "0002.png").unlink()
    posed = read_colmap(tmp_path)
    assert len(posed.views) == 3
    assert "1 photos of the model are not in" in posed.notices[0]
    assert "0002.png" in posed.notices[0]


@pytest.mark.parametrize("broken", [{"translation": (0.0, float("nan"), 0.0)}, {"quat": (0.0, 0.0, 0.0, 0.0)}])
def test_a_pose_that_is_none_is_left_out_with_a_notice(tmp_path, broken):
    cameras = write_colmap_capture(tmp_path, 4)
    model = colmap_model(cameras)
    images = {**model.images, 2: replace(model.images[2], **broken)}
    points = model.points.copy()
    points[1, 0] = np.inf
    write_model(replace(model, images=images, points=points), tmp_path / "sparse" / "0")
    posed = read_colmap(tmp_path)
    assert len(posed.views) == 3
    assert len(posed.points) == 2
    assert posed.notices == (
        "1 photos have no valid pose (NaN or zero rotation): 0001.png",
        "1 points are not finite and were left out",
    )


def test_no_photo_at_all_is_a_capture_error_that_says_where_to_put_them(tmp_path):
    write_model(colmap_model(ring_cameras(3)), tmp_path / "sparse" / "0")
    with pytest.raises(CaptureError, match=r"none of the 3 photos .* Put the photos into images/"):
        read_colmap(tmp_path)


def test_a_lens_that_is_not_supported_is_told(tmp_path):
    model = colmap_model(ring_cameras(2))
    write_photos(tmp_path / "images", ("0000.png", "0001.png"))
    write_model(replace(model, cameras={1: ColmapCamera("FOV", 24, 16, (20, 20, 12, 8, 0.1))}), tmp_path / "sparse")
    with pytest.raises(CaptureError, match=r"camera model FOV is not supported\. Use one of SIMPLE_PINHOLE"):
        read_colmap(tmp_path)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_truncation_at_every_byte_is_a_format_error_with_its_offset(tmp_path, name):
    write_model(colmap_model(ring_cameras(3)), tmp_path)
    whole = (tmp_path / name).read_bytes()
    for size in range(len(whole)):
        (tmp_path / name).write_bytes(whole[:size])
        with pytest.raises(FormatError, match=f"{name} at byte [0-9]+: .*copy or make it again") as error:
            read_model(tmp_path)
        assert error.value.offset is not None
        assert error.value.offset <= size


@pytest.mark.parametrize("name", ["cameras.txt", "images.txt", "points3D.txt"])
def test_truncated_text_is_a_format_error_or_a_shorter_model(tmp_path, name):
    model = colmap_model(ring_cameras(3))
    write_model(model, tmp_path, text=True)
    whole = (tmp_path / name).read_bytes()
    n_errors = 0
    for size in range(len(whole)):
        (tmp_path / name).write_bytes(whole[:size])
        try:
            found = read_model(tmp_path)
            assert len(found.images) <= 3
            assert len(found.points) <= 3
        except FormatError:
            n_errors += 1
    assert n_errors > 10


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_a_huge_count_takes_no_memory(tmp_path, name):
    write_model(colmap_model(ring_cameras(2)), tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes((2**60).to_bytes(8, "little") + whole[8:])
    with pytest.raises(FormatError, match=f"says {2**60} "):
        read_model(tmp_path)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_random_damage_never_escapes_as_another_exception(tmp_path, name):
    write_model(colmap_model(ring_cameras(2)), tmp_path)
    whole = (tmp_path / name).read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(whole)
        for position in generator.integers(0, len(whole), 3):
            damaged[position] = generator.integers(256)
        (tmp_path / name).write_bytes(bytes(damaged))
        with suppress(FormatError):
            assert len(read_model(tmp_path).images) <= 2


def test_wrong_text_names_its_line(tmp_path):
    write_model(colmap_model(ring_cameras(2)), tmp_path, text=True)
    (tmp_path / "cameras.txt").write_text("# comment\n1 PINHOLE wide 16 20 21 11 8\n")
    with pytest.raises(FormatError, match=r"cameras\.txt: line 2: expected CAMERA_ID MODEL WIDTH HEIGHT PARAMS"):
        read_model(tmp_path)


def test_an_unknown_camera_number_is_told(tmp_path):
    model = colmap_model(ring_cameras(2))
    write_model(replace(model, cameras={9: model.cameras[1]}), tmp_path)
    with pytest.raises(FormatError, match=r"image '0000.png' has camera 1, which is not there"):
        read_model(tmp_path)
