"""SOG files: what comes back, what is refused."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from format_files import v1_sog_files
from PIL import Image
from strategies import random_gaussians

from scene3d import _cpu
from scene3d.core.errors import FormatError, OutputError
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.registry import read_scene, scene_size, write_scene
from scene3d.io.sog_planes import palette_size
from scene3d.ops import morton
from scene3d.ops.covariance import from_quats_scales

COUNTS = [0, 1, 2, 255, 256, 257, 1030]


def scene(n: int = 300, sh_degree: int = 2, info: SceneInfo = SceneInfo()) -> Scene:  # noqa: B008 - frozen
    return Scene(random_gaussians(n, sh_degree=sh_degree, spread=3.0).to(dtype=torch.float32), info)


def in_file_order(gaussians: Gaussians) -> Gaussians:
    return gaussians.select(morton.order(gaussians.means))


@pytest.mark.parametrize("n", COUNTS)
def test_any_count_comes_back(n: int, tmp_path: Path) -> None:
    write_scene(scene(n, 1), tmp_path / "a.sog")
    back, truth = read_scene(tmp_path / "a.sog").payload, in_file_order(scene(n, 1).payload)
    assert len(back) == n
    torch.testing.assert_close(back.means, truth.means, atol=2e-3, rtol=0)
    torch.testing.assert_close(back.opacities, truth.opacities, atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(back.sh0, truth.sh0, atol=0.06, rtol=0)
    covars = [from_quats_scales(g.quats, (g.log_scales - g.log_scales.amax()).exp()) for g in (back, truth) if n]
    assert n == 0 or float((covars[0] - covars[1]).abs().max()) < 0.03


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_palette_of_a_small_scene_keeps_every_colour(degree: int, tmp_path: Path) -> None:
    write_scene(scene(60, degree), tmp_path / "a.sog")
    back, truth = read_scene(tmp_path / "a.sog").payload, in_file_order(scene(60, degree).payload)
    assert back.sh_degree == degree
    torch.testing.assert_close(back.shN, truth.shN, atol=0.02, rtol=0)


def test_facts_survive(tmp_path: Path) -> None:
    info = SceneInfo(True, (0.0, 0.0, 1.0), "fox", "a trainer", ("a note",))
    write_scene(scene(5, info=info), tmp_path / "a.sog")
    assert read_scene(tmp_path / "a.sog").info == info


def test_loose_files_hold_the_same_as_the_archive(tmp_path: Path) -> None:
    write_scene(scene(), tmp_path / "a.sog")
    write_scene(scene(), tmp_path / "loose" / "meta.json")
    one, two = (read_scene(tmp_path / name).payload.params() for name in ("a.sog", "loose/meta.json"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    on_disk = sum(file.stat().st_size for file in (tmp_path / "loose").iterdir())
    assert scene_size(tmp_path / "loose" / "meta.json") == on_disk


def test_bytes_do_not_depend_on_threads_or_time(tmp_path: Path) -> None:
    before, found = _cpu.n_threads(), []
    for n_threads in (1, 2):
        _cpu.set_threads(n_threads)
        write_scene(scene(1500, 1), tmp_path / "a.sog")
        found.append((tmp_path / "a.sog").read_bytes())
    _cpu.set_threads(before)
    assert found[0] == found[1]


def test_rows_that_mean_nothing_are_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = scene(10, 0)
    broken.payload.means[3, 0] = torch.nan
    broken.payload.quats[5] = 0
    write_scene(broken, tmp_path / "a.sog")
    assert len(read_scene(tmp_path / "a.sog").payload) == 8
    assert "left out 1 of 10 Gaussians that hold NaN" in caplog.text
    assert "left out 1 Gaussians whose quaternion is zero" in caplog.text


def test_a_scene_of_equal_gaussians_is_exact_in_place(tmp_path: Path) -> None:
    one = scene(1, 1).payload
    write_scene(Scene(one.select(torch.zeros(500, dtype=torch.long))), tmp_path / "a.sog")
    back = read_scene(tmp_path / "a.sog").payload
    torch.testing.assert_close(back.means, one.means.expand(500, 3))
    torch.testing.assert_close(back.shN, one.shN.expand(500, -1, -1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("count", "size"), [(0, 0), (7, 7), (1024, 1024), (3000, 2048), (10**7, 65536)])
def test_palette_follows_the_count(count: int, size: int) -> None:
    assert palette_size(count) == size


def repacked(path: Path, changes: dict[str, bytes | None]) -> Path:
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()} | changes
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            if data is not None:
                archive.writestr(name, data)
    return path


def changed_meta(path: Path, change) -> Path:
    with zipfile.ZipFile(path) as archive:
        meta = json.loads(archive.read("meta.json"))
    change(meta)
    return repacked(path, {"meta.json": json.dumps(meta).encode()})


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write_scene(scene(), tmp_path / "a.sog")
    return tmp_path / "a.sog"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(version=3), r"meta.json.version: expected a whole number from 2 to 2, got number 3"),
        (lambda m: m.update(count=10**12), "meta.json.count: expected a whole number"),
        (lambda m: m.update(count=10**5), "means_l.webp: expected at least 100000 pixels, got 20x16"),
        (lambda m: m.update(count=10**8), r"says it holds 100000000 Gaussians in \d+ bytes, which is too much"),
        (lambda m: m.update(count=True), "meta.json.count: expected a whole number"),
        (lambda m: m.pop("quats"), "meta.json.quats: expected an object, got nothing"),
        (lambda m: m["means"].update(mins=[0, 1]), "meta.json.means.mins: expected 3 finite numbers"),
        (lambda m: m["means"].update(mins=[0, 1, "x"]), "meta.json.means.mins: expected 3 finite numbers"),
        (lambda m: m["means"].update(maxs=[10**400, 0, 0]), "meta.json.means.maxs: expected 3 finite numbers"),
        (lambda m: m["sh0"].update(files=["../../etc/passwd"]), "expected a plain file name, got '../../etc/passwd'"),
        (lambda m: m["sh0"].update(files=["/etc/passwd"]), "expected a plain file name"),
        (lambda m: m["sh0"].update(files=["gone.webp"]), "the archive has no file 'gone.webp'"),
        (lambda m: m["sh0"].update(files=["meta.json"]), "meta.json: expected a whole WebP or PNG image"),
        (lambda m: m["sh0"].update(codebook=[0.0] * 257), "meta.json.sh0.codebook: expected a list of at most 256"),
        (lambda m: m["shN"].update(count=70_000), "meta.json.shN.count: expected a whole number from 1 to 65536"),
        (lambda m: m["shN"].update(count=5), "shN_labels.webp: expected entries below 5, got"),
        (lambda m: m["shN"].update(bands=1), "shN_centroids.webp: expected a width of 192 pixels for 1 bands, got 512"),
    ],
)
def test_wrong_metadata_is_told(archive: Path, change, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_scene(changed_meta(archive, change))


def test_metadata_that_is_no_json_is_told(archive: Path) -> None:
    with pytest.raises(FormatError, match=r"meta.json is no valid JSON"):
        read_scene(repacked(archive, {"meta.json": b'{"version": 2,'}))


def test_deep_json_does_not_overflow_the_stack(archive: Path) -> None:
    with pytest.raises(FormatError, match=r"no valid JSON|expected an object"):
        read_scene(repacked(archive, {"meta.json": b"[" * 200_000}))


def test_an_image_bomb_is_refused(archive: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4096, 4096, 3), np.uint8)).save(buffer, "WEBP", lossless=True)
    with pytest.raises(FormatError, match=r"means_l.webp: 4096x4096 pixels in \d+ bytes is too much"):
        read_scene(repacked(archive, {"means_l.webp": buffer.getvalue()}))


def test_a_zip_bomb_is_refused(archive: Path) -> None:
    data = bytearray(repacked(archive, {"quats.webp": bytes(50_000_000)}).read_bytes())
    # Deflate reaches 1030:1; a header that promises more lies.
    at = data.rindex(b"quats.webp") - 46
    data[at + 24 : at + 28] = (900_000_000).to_bytes(4, "little")
    archive.write_bytes(data)
    with pytest.raises(FormatError, match=r"quats.webp: says it unpacks \d+ to 900000000 bytes"):
        read_scene(archive)


def test_truncation_anywhere_is_a_format_error(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    for size in range(0, len(whole), 97):
        (tmp_path / "cut.sog").write_bytes(whole[:size])
        with pytest.raises(FormatError, match="expected a zip archive"):
            read_scene(tmp_path / "cut.sog")


def test_a_missing_loose_image_is_told(tmp_path: Path) -> None:
    write_scene(scene(), tmp_path / "meta.json")
    (tmp_path / "quats.webp").unlink()
    with pytest.raises(FormatError, match=r"quats.webp: no such file"):
        read_scene(tmp_path / "meta.json")


def test_a_loose_export_that_fails_leaves_the_old_files(tmp_path: Path) -> None:
    write_scene(scene(10), tmp_path / "meta.json")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    (tmp_path / "shN_labels.webp").unlink()
    (tmp_path / "shN_labels.webp").mkdir()
    with pytest.raises(Exception, match="cannot be written"):
        write_scene(scene(20), tmp_path / "meta.json")
    after = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    assert after == {name: data for name, data in before.items() if name != "shN_labels.webp"}


def test_version_1_is_read(tmp_path: Path) -> None:
    v1_sog_files(tmp_path)
    gaussians = read_scene(tmp_path / "meta.json").payload
    e = torch.e
    torch.testing.assert_close(gaussians.means, torch.tensor([[e - 1, e**2 - 1, e**3 - 1], [1 - e] * 3]))
    assert gaussians.log_scales.tolist() == [[-1, -1, -1], [1, 2, 3]]
    assert gaussians.opacity_logits.tolist() == [-4, 4]
    assert gaussians.sh0[1, 0].tolist() == [1, 2, 3]
    assert gaussians.quats.abs().argmax(dim=1).tolist() == [0, 2]


def streamed_sog(folder: Path) -> dict:
    """Two leaves of one chunk of 6; the second has a coarser level too. Returns what lod-meta.json says."""
    write_scene(scene(6), folder / "0_0" / "meta.json")
    leaves = [
        {"lods": {"0": {"file": 0, "offset": 0, "count": 4}}},
        {"lods": {"1": {"file": 0, "offset": 0, "count": 1}, "0": {"file": 0, "offset": 4, "count": 2}}},
    ]
    meta = {"version": 1, "lodLevels": 2, "filenames": ["0_0/meta.json"], "tree": {"children": leaves}}
    (folder / "lod-meta.json").write_text(json.dumps(meta))
    return meta


def test_the_finest_level_of_a_streamed_sog_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    streamed_sog(tmp_path)
    whole = read_scene(tmp_path / "0_0" / "meta.json").splats()
    found = read_scene(tmp_path / "lod-meta.json").splats()
    assert torch.equal(found.means, whole.means)
    assert torch.equal(found.shN, whole.shN)
    assert "read the finest of 2 levels of detail" in caplog.text
    assert scene_size(tmp_path / "lod-meta.json") == sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version: expected a whole number from 1 to 1, got number 2"),
        ({"filenames": ["../0_0/meta.json"]}, r"expected a plain file name, got '\.\.'"),
        ({"filenames": ["0_1/meta.json"]}, "no such file"),
        ({"tree": {"lods": {"0": {"file": 1, "offset": 0, "count": 1}}}}, "file: expected a whole number from 0 to 0"),
        ({"tree": {"lods": {"0": {"file": 0, "offset": 5, "count": 2}}}}, "expected at least 7 Gaussians"),
    ],
)
def test_a_wrong_streamed_sog_is_told(change: dict, message: str, tmp_path: Path) -> None:
    meta = streamed_sog(tmp_path)
    (tmp_path / "lod-meta.json").write_text(json.dumps(meta | change))
    with pytest.raises(FormatError, match=message):
        read_scene(tmp_path / "lod-meta.json")


def test_streamed_sog_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="unknown scene format"):
        write_scene(scene(6), tmp_path / "lod-meta.json")
