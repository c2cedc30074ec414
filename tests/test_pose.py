"""Structure from motion: a real capture, photos that cannot work, and the parts without pycolmap."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scene3d.core.errors import CaptureError, OutputError
from scene3d.recon.pose import PoseReport, PoseSettings, estimate_poses
from scene3d.recon.pose_diagnosis import diagnose
from scene3d.recon.pose_frame import upright_frame
from scene3d.recon.pose_pairs import all_pairs, neighbour_pairs, similar_pairs
from scene3d.recon.pose_photos import Photo, check_photos, find_mask, group_by_camera, write_upright_copy
from scene3d.recon.pose_recipe import colmap_camera_model, ladder

SCEAUX = Path(__file__).parents[2] / "shared" / "data" / "sceaux" / "images"
FAST = PoseSettings(quality="fast", threads=2)
N_SCEAUX = 8


def make_photo(path: Path, seed: int = 0, size: tuple[int, int] = (160, 120), orientation: int = 1) -> Path:
    noise = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path, exif=exif)
    return path


def make_facts(name: str, **changes: object) -> Photo:
    values = {
        "name": name,
        "width": 160,
        "height": 120,
        "orientation": 1,
        "camera_key": "",
        "sharpness": 500.0,
        "brightness": 120.0,
        "sha256": "",
    }
    return Photo(**{**values, **changes})


def read_image_poses(model: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> rotation [3, 3] and translation [3], world to camera, from COLMAP's images.bin."""
    data, at, poses = (model / "images.bin").read_bytes(), 8, {}
    for _ in range(struct.unpack_from("<Q", data)[0]):
        w, x, y, z, *translation = struct.unpack_from("<7d", data, at + 4)
        end = data.index(b"\0", at + 64)
        n_points = struct.unpack_from("<Q", data, end + 1)[0]
        rotation = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
        poses[data[at + 64 : end].decode()] = (np.array(rotation), np.array(translation))
        at = end + 9 + 24 * n_points
    return poses


@pytest.fixture(scope="module")
def posed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PoseReport]:
    """Eight reduced photos, one stored sideways under a name with a space, and a broken one."""
    if not SCEAUX.is_dir():
        pytest.skip(f"the capture {SCEAUX.parent.name} is not on this machine")
    folder = tmp_path_factory.mktemp("capture")
    for i, path in enumerate(sorted(SCEAUX.iterdir())[:N_SCEAUX]):
        with Image.open(path) as image:
            exif = image.getexif()
            small = image.resize((800, 601), Image.Resampling.LANCZOS)
        if i == 3:
            exif[0x0112] = 6
            small.transpose(Image.Transpose.ROTATE_90).save(folder / "side ways.jpg", quality=95, exif=exif)
        else:
            small.save(folder / path.name, quality=95, exif=exif)
    whole = (folder / "100_7100.jpg").read_bytes()
    (folder / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("not a photo")
    out = folder.parent / "posed out"
    return out, estimate_poses(folder, out, FAST)


def test_all_photos_get_a_pose(posed: tuple[Path, PoseReport]) -> None:
    out, report = posed
    assert (report.n_registered, report.n_photos) == (N_SCEAUX, N_SCEAUX)
    assert set(read_image_poses(out / "sparse" / "0")) == set(report.registered)


def test_focal_length_is_that_of_the_camera(posed: tuple[Path, PoseReport]) -> None:
    # The capture's own calibration: 2905.88 px at 2832 px width.
    expected = 2905.88 * 800 / 2832
    assert posed[1].cameras[0].params[0] == pytest.approx(expected, rel=0.05)


def test_sideways_photo_shares_the_camera(posed: tuple[Path, PoseReport]) -> None:
    (camera,) = posed[1].cameras
    assert (camera.width, camera.height, camera.n_photos) == (800, 601, N_SCEAUX)


def test_sideways_photo_is_copied_upright(posed: tuple[Path, PoseReport]) -> None:
    out, report = posed
    assert report.photo_copies
    assert "side ways.jpg" in report.registered
    with Image.open(out / "images" / "side ways.jpg") as image:
        assert image.size == (800, 601)
        assert image.getexif()[0x0112] == 1
        assert image.getexif().get_ifd(0x8769)[0x920A] > 0


def test_broken_photo_is_left_out_by_name(posed: tuple[Path, PoseReport]) -> None:
    (left_out,) = posed[1].left_out
    assert left_out.name == "broken.jpg"
    assert any("broken.jpg" in notice for notice in posed[1].notices)


def test_up_is_z_and_median_camera_is_at_distance_one(posed: tuple[Path, PoseReport]) -> None:
    poses = read_image_poses(posed[0] / "sparse" / "0").values()
    ups = np.stack([-rotation[1] for rotation, _ in poses])
    centres = np.stack([-rotation.T @ translation for rotation, translation in poses])
    assert ups.mean(axis=0)[2] > 0.9
    assert np.median(np.linalg.norm(centres, axis=1)) == pytest.approx(1.0, abs=1e-9)


def test_report_file_holds_the_report(posed: tuple[Path, PoseReport]) -> None:
    out, report = posed
    data = json.loads((out / "pose_report.json").read_text())
    assert data == json.loads(json.dumps(report.to_json()))
    assert data["attempts"][0]["label"] == "fast"


def test_nothing_but_the_result_is_left(posed: tuple[Path, PoseReport]) -> None:
    out = posed[0]
    assert sorted(path.name for path in out.iterdir()) == ["images", "pose_report.json", "sparse"]
    names = {"cameras.bin", "images.bin", "points3D.bin", "rigs.bin", "frames.bin"}
    assert {path.name for path in (out / "sparse" / "0").iterdir()} == names


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    if not SCEAUX.is_dir():
        pytest.skip(f"the capture {SCEAUX.parent.name} is not on this machine")
    for i, path in enumerate(sorted(SCEAUX.iterdir())[:4]):
        with Image.open(path) as image:
            (tmp_path / "photos").mkdir(exist_ok=True)
            image.resize((640, 481)).save(tmp_path / "photos" / f"{i}.jpg", exif=image.getexif())
    for name in ("a", "b"):
        estimate_poses(tmp_path / "photos", tmp_path / name, FAST)
    for path in (tmp_path / "a" / "sparse" / "0").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "sparse" / "0" / path.name).read_bytes(), path.name
    assert (tmp_path / "a" / "images").resolve() == (tmp_path / "photos").resolve()


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"nowhere: expected a folder of photos, it does not exist"):
        estimate_poses(tmp_path / "nowhere", tmp_path / "out", FAST)
    assert not (tmp_path / "out").exists()


def test_empty_folder_tells_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"found none\. Give a folder with at least 2 overlapping photos"):
        estimate_poses(tmp_path, tmp_path / "out", FAST)


def test_foreign_formats_get_a_hint(tmp_path: Path) -> None:
    (tmp_path / "a.HEIC").write_bytes(b"x")
    with pytest.raises(CaptureError, match=r"found only \.heic. Convert them to JPEG"):
        estimate_poses(tmp_path, tmp_path / "out", FAST)


def test_one_photo_is_not_enough(tmp_path: Path) -> None:
    make_photo(tmp_path / "p" / "a.jpg")
    with pytest.raises(CaptureError, match=r"expected at least 2 usable photos, got 1\. Take 20"):
        estimate_poses(tmp_path / "p", tmp_path / "out", FAST)


def test_broken_photos_are_named_when_too_few_are_left(tmp_path: Path) -> None:
    data = make_photo(tmp_path / "p" / "a.jpg").read_bytes()
    (tmp_path / "p" / "empty.jpg").write_bytes(b"")
    (tmp_path / "p" / "half.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "p" / "text.png").write_text("hello")
    with pytest.raises(CaptureError, match="got 1 of 4 usable") as caught:
        estimate_poses(tmp_path / "p", tmp_path / "out", FAST)
    for words in ("empty.jpg cannot be read: empty file", "half.jpg cannot be read", "text.png cannot be read: not an"):
        assert words in str(caught.value)


def test_photos_without_overlap_fail_with_causes_and_leave_nothing(tmp_path: Path) -> None:
    for i in range(3):
        make_photo(tmp_path / "p" / f"{i}.png", seed=i)
    with pytest.raises(CaptureError, match="no two of the 3 photos fit together") as caught:
        estimate_poses(tmp_path / "p", tmp_path / "out", FAST)
    assert "global mapper" in str(caught.value)
    assert "0.png:" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_output_below_a_file_is_refused(tmp_path: Path) -> None:
    for i in range(2):
        make_photo(tmp_path / "p" / f"{i}.jpg", seed=i)
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OutputError, match="hoose another output folder"):
            estimate_poses(tmp_path / "p", out, FAST)


def test_models_and_photos_of_others_are_not_overwritten(tmp_path: Path) -> None:
    for i in range(2):
        make_photo(tmp_path / "p" / f"{i}.jpg", seed=i)
    (tmp_path / "colmap" / "sparse" / "0").mkdir(parents=True)
    (tmp_path / "mine" / "images").mkdir(parents=True)
    with pytest.raises(OutputError, match="holds a model that scene3d did not write"):
        estimate_poses(tmp_path / "p", tmp_path / "colmap", FAST)
    with pytest.raises(OutputError, match="holds other photos, which would be replaced"):
        estimate_poses(tmp_path / "p", tmp_path / "mine", FAST)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_copy_looks_as_viewers_show_it(tmp_path: Path, orientation: int) -> None:
    source = make_photo(tmp_path / "a.png", size=(64, 48), orientation=orientation)
    write_upright_copy(source, tmp_path / "b.jpg")
    operations = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
        8: lambda a: np.rot90(a, 1),
    }
    with Image.open(source) as stored, Image.open(tmp_path / "b.jpg") as upright:
        expected = operations[orientation](np.asarray(stored).astype(float))
        assert upright.size == (expected.shape[1], expected.shape[0])
        assert np.abs(np.asarray(upright) - expected).mean() < 3
        assert upright.getexif()[0x0112] == 1


def test_photos_of_one_size_and_lens_share_a_camera(tmp_path: Path) -> None:
    make_photo(tmp_path / "a.jpg")
    make_photo(tmp_path / "b.jpg", size=(120, 160), orientation=6)
    make_photo(tmp_path / "c.jpg", size=(120, 160))
    photos, _ = check_photos(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    assert [[photo.name for photo in group] for group in group_by_camera(photos)] == [["a.jpg", "b.jpg"], ["c.jpg"]]


@pytest.mark.parametrize("mask", ["s/a.jpg.png", "s/a.png"])
def test_mask_is_found_by_either_name(tmp_path: Path, mask: str) -> None:
    make_photo(tmp_path / mask)
    assert find_mask(tmp_path, "s/a.jpg") == tmp_path / mask
    assert find_mask(tmp_path, "s/b.jpg") is None


def test_ladder_ends_with_the_global_mapper() -> None:
    labels = [recipe.label for recipe in ladder("fast", retry=True)]
    assert labels == ["fast", "more features", "relaxed thresholds", "global mapper"]
    assert len(ladder("fast", retry=False)) == 1


def test_few_photos_get_the_simple_lens() -> None:
    assert (colmap_camera_model("auto", 14), colmap_camera_model("auto", 15)) == ("SIMPLE_RADIAL", "OPENCV")
    assert colmap_camera_model("pinhole", 3) == "PINHOLE"


def test_pairs_are_ordered_and_unique() -> None:
    assert all_pairs(4) == {(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)}
    assert neighbour_pairs(6, overlap=2) == {(i, j) for i in range(6) for j in range(i + 1, 6) if j - i in (1, 2, 4)}
    assert neighbour_pairs(1, overlap=5) == set()


def test_similar_pairs_find_a_loop() -> None:
    rng = np.random.default_rng(0)
    tables = [rng.integers(0, 255, (50, 128), dtype=np.uint8) for _ in range(6)]
    tables[5] = np.concatenate([tables[0][:20], tables[5][:30]])
    tables[2] = np.zeros((0, 128), np.uint8)
    assert similar_pairs(tables, n_partners=2) == {(0, 5)}


@pytest.mark.parametrize("arc", [0.02, 0.5, 2.0, 6.28])
def test_upright_frame_undoes_any_frame(arc: float) -> None:
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    poses, centres = [], []
    for angle in np.linspace(0, arc, 12):
        centre = np.array([2 * np.cos(angle), 2 * np.sin(angle), 0.6])
        forward = -centre / np.linalg.norm(centre)
        right = np.cross(forward, [0, 0, 1]) / np.linalg.norm(np.cross(forward, [0, 0, 1]))
        rotation = np.stack([right, np.cross(forward, right), forward]) @ turn.T
        source = 3 * turn @ centre + [1, 2, 3]
        poses.append(np.column_stack([rotation, -rotation @ source]))
        centres.append(source)
    points = 3 * rng.normal(size=(200, 3)) * 0.1 @ turn.T + [1, 2, 3]
    frame = upright_frame(np.stack(poses), points)
    up = frame.rotation @ turn @ [0, 0, 1]
    # Cameras on a short arc leave the tilt open: their common downward look cannot be told from a tilted scene.
    assert up[2] > (0.99 if arc > 1 else 0.9)
    moved = frame.scale * np.stack(centres) @ frame.rotation.T + frame.translation
    assert np.median(np.linalg.norm(moved, axis=1)) == pytest.approx(1.0)
    assert np.linalg.det(frame.rotation) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changes", "fact", "cause"),
    [
        ({"sharpness": 20.0}, (900, 50), "blurred"),
        ({"brightness": 5.0}, (900, 50), "too dark"),
        ({"brightness": 250.0}, (900, 50), "overexposed"),
        ({}, (30, 5), "too little texture"),
        ({}, (900, 16), r"no overlap with other photos \(16"),
        ({}, (900, 80), "shares 80 points with a.jpg, but fits no common model"),
    ],
)
def test_diagnosis_names_the_likely_cause(changes: dict[str, float], fact: tuple[int, int], cause: str) -> None:
    photos = [make_facts("a.jpg"), make_facts("b.jpg", **changes)]
    facts = {"b.jpg": {"n_features": fact[0], "best_inliers": fact[1], "best_partner": "a.jpg"}}
    (found,) = diagnose(photos, {"a.jpg"}, facts)
    assert (found.name, found.n_features, found.best_inliers) == ("b.jpg", *fact)
    assert re.search(cause, found.cause)
