"""Atomic output: whole or not at all."""

import errno
import json
import os
import stat

import pytest

from scene3d.core.errors import OutputError
from scene3d.io import atomic
from scene3d.io.atomic import atomic_write, check_writable, write_bytes, write_json, write_text


def test_a_write_appears_under_its_name_and_leaves_nothing_else(tmp_path):
    write_text(tmp_path / "deep" / "note.txt", "grün\n")
    assert (tmp_path / "deep" / "note.txt").read_bytes() == "grün\n".encode()
    assert os.listdir(tmp_path / "deep") == ["note.txt"]


def write_then_raise(path, error):
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"half")
        raise error


def write_to_a_full_device(path):
    with atomic_write(path) as temporary:
        os.symlink("/dev/full", temporary)
        temporary.write_bytes(b"x")


def test_an_error_keeps_the_old_file_and_removes_the_new(tmp_path):
    write_bytes(tmp_path / "a.bin", b"old")
    with pytest.raises(KeyError):
        write_then_raise(tmp_path / "a.bin", KeyError())
    assert os.listdir(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"old"


def test_the_temporary_name_keeps_suffix_and_folder(tmp_path):
    with atomic_write(tmp_path / "a.png") as temporary:
        temporary.write_bytes(b"x")
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path):
    write_bytes(tmp_path / "atomic", b"")
    (tmp_path / "plain").write_bytes(b"")
    assert stat.S_IMODE((tmp_path / "atomic").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_full_disk_is_told_with_its_remedy(tmp_path):
    write_bytes(tmp_path / "scene.ply", b"old")
    with pytest.raises(OutputError, match=r"scene\.ply: cannot be written: no space.*free some space"):
        write_then_raise(tmp_path / "scene.ply", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert os.listdir(tmp_path) == ["scene.ply"]
    assert (tmp_path / "scene.ply").read_bytes() == b"old"


def test_a_real_full_device_is_told(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OutputError, match="no space"):
        write_to_a_full_device(tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path):
    write_bytes(tmp_path / "out", b"")
    with pytest.raises(OutputError, match=r"out.*cannot be written"):
        write_bytes(tmp_path / "out" / "scene.ply", b"x")


def test_a_folder_in_the_place_of_the_file_is_told(tmp_path):
    (tmp_path / "scene.ply").mkdir()
    with pytest.raises(OutputError, match="A folder has that name"):
        write_bytes(tmp_path / "scene.ply", b"x")


def test_a_folder_without_permission_is_told(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "a"))

    monkeypatch.setattr(atomic.os, "replace", refuse)
    with pytest.raises(OutputError, match=r"permission denied.*choose another output folder"):
        write_bytes(tmp_path / "a", b"x")
    assert os.listdir(tmp_path) == []


def test_a_missing_input_read_inside_keeps_its_own_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "out" / "a"):
        (tmp_path / "input.bin").read_bytes()
    assert os.listdir(tmp_path / "out") == []


def test_json_round_trips_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"psnr": 26.9, "views": [1, 2]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"psnr": 26.9, "views": [1, 2]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "b.json", {"psnr": float("nan")})
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    check_writable(tmp_path / "new" / "deep" / "mesh.glb")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="A file stands where a folder is needed"):
        check_writable(tmp_path / "file" / "mesh.glb")
    (tmp_path / "mesh.glb").mkdir()
    with pytest.raises(OutputError, match="A folder has that name"):
        check_writable(tmp_path / "mesh.glb")
