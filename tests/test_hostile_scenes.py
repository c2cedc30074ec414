"""Damaged scene files of every format: a FormatError or a sound scene, never anything else."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import pytest
from format_files import ALL, small_scene, write_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scene3d.core.errors import FormatError
from scene3d.io.registry import read_scene

MAX_CUTS = 120
ANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Half a gigabyte more than what was used before: no reader may need it for files of a few kilobytes.
ROOM_KB = 500_000


def read_or_refuse(path: Path) -> None:
    with contextlib.suppress(FormatError):
        assert bool(read_scene(path).payload.is_finite().all())


def peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    return {name: write_file(folder, name, small_scene(40, 1)) for name in ALL}


@pytest.mark.parametrize("name", ALL)
def test_cut_files_are_refused_or_sound(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    whole = files[name].read_bytes()
    for size in range(0, len(whole), max(1, len(whole) // MAX_CUTS)):
        (tmp_path / name).write_bytes(whole[:size])
        read_or_refuse(tmp_path / name)


@pytest.mark.parametrize("name", ALL)
@ANY
@given(data=st.data())
def test_flipped_bits_are_refused_or_sound(name: str, files: dict[str, Path], tmp_path: Path, data) -> None:
    before, damaged = peak_kb(), bytearray(files[name].read_bytes())
    # Headers are where it hurts: half of the flips go there.
    places = st.integers(0, len(damaged) - 1) | st.integers(0, min(len(damaged), 200) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=4)):
        damaged[place] ^= value
    (tmp_path / name).write_bytes(damaged)
    read_or_refuse(tmp_path / name)
    assert peak_kb() - before < ROOM_KB


@pytest.mark.parametrize("name", ALL)
@ANY
@given(data=st.data())
def test_any_bytes_are_refused_or_sound(name: str, files: dict[str, Path], tmp_path: Path, data) -> None:
    head = files[name].read_bytes()[: data.draw(st.sampled_from([0, 4, 16, 32, 64]))]
    (tmp_path / name).write_bytes(head + data.draw(st.binary(max_size=300)))
    read_or_refuse(tmp_path / name)


@pytest.mark.parametrize("name", ALL)
def test_a_folder_or_nothing_is_a_format_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        read_scene(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(FormatError, match="expected a file, got a folder"):
        read_scene(tmp_path / name)
