"""Stamps: what makes a finished stage stale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scene3d.io import stamp as stamp_module
from scene3d.io.stamp import Stamp, digest

STAMP = Stamp({"max_steps": 200, "strategy.name": "mcmc"}, {"capture": "ab12"})


@pytest.fixture
def stamped(tmp_path: Path) -> tuple[Path, Path]:
    """A stamp and the output that it vouches for."""
    output = tmp_path / "scene.ply"
    output.write_bytes(b"ply")
    STAMP.write(tmp_path / "done.json")
    return tmp_path / "done.json", output


def test_same_settings_and_inputs_are_not_stale(stamped: tuple[Path, Path]):
    assert STAMP.why_stale(stamped[0], [stamped[1]]) is None


@pytest.mark.parametrize(
    ("stamp", "reason"),
    [
        (replace(STAMP, settings={**STAMP.settings, "max_steps": 300}), "setting max_steps changed: 200 -> 300"),
        (replace(STAMP, settings={"max_steps": 200}), "setting strategy.name changed: mcmc -> unset"),
        (replace(STAMP, inputs={"capture": "cd34"}), "input capture changed"),
        (replace(STAMP, version="99"), f"made by version {STAMP.version}, this is 99"),
    ],
)
def test_every_difference_is_named(stamp: Stamp, reason: str, stamped: tuple[Path, Path]):
    assert stamp.why_stale(stamped[0], [stamped[1]]) == reason


def test_missing_output_is_stale(stamped: tuple[Path, Path]):
    stamped[1].unlink()
    assert STAMP.why_stale(stamped[0], [stamped[1]]) == "scene.ply is gone"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": 3, "inputs": {}, "version": "1"}'])
def test_unreadable_stamp_counts_as_not_done(text: str, tmp_path: Path):
    path = tmp_path / "done.json"
    path.write_text(text)
    assert STAMP.why_stale(path, []) == "not done yet"


def test_digest_of_a_folder_sees_contents_and_names(tmp_path: Path):
    file = tmp_path / "a" / "1.jpg"
    file.parent.mkdir()
    file.write_bytes(b"1")
    first = digest(tmp_path)
    file.write_bytes(b"2")
    second = digest(tmp_path)
    file.rename(file.with_name("2.jpg"))
    assert len({first, second, digest(tmp_path)}) == 3


def test_digest_of_a_folder_skips_hidden_and_excluded_files(tmp_path: Path):
    (tmp_path / "1.jpg").write_bytes(b"1")
    first = digest(tmp_path)
    (tmp_path / ".cache").write_bytes(b"x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scene.ply").write_bytes(b"x")
    assert digest(tmp_path, exclude=tmp_path / "out") == first


def test_digest_of_a_large_file_sees_size_and_both_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stamp_module, "WHOLE_FILE_BYTES", 8)
    monkeypatch.setattr(stamp_module, "END_BYTES", 2)
    file = tmp_path / "video.mp4"
    digests = []
    for data in (b"ab......yz", b"ab......yZ", b"Ab......yz", b"ab.......yz"):
        file.write_bytes(data)
        digests.append(digest(file))
    assert len(set(digests)) == 4
