"""Readers and files that are damaged: what is sound still reads, everything else is refused in one line.

The damage is that of tools/fuzz_readers.py, which runs as long as one likes; here a little of it, always the same.
"""

from __future__ import annotations

import importlib.util
import random
import struct
import sys
import zlib
from pathlib import Path

import pytest

from scene3d.core.errors import FormatError
from scene3d.io.registry import read_scene

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tools"))
import fuzz_readers  # noqa: E402 - found on the line above

CORPUS, FOUND = HERE / "corpus", HERE / "found"
HAS_USD = importlib.util.find_spec("pxr") is not None
TARGETS = sorted(p.name for p in CORPUS.iterdir() if HAS_USD or not p.name.startswith("a.usd"))
N_DAMAGED, MAX_CUTS = 20, 25
# Each reading of USD starts a process.
N_DAMAGED_USD, MAX_CUTS_USD = 2, 2
N_BOMB = 2_000_000
CASES = sorted(p.name for p in FOUND.iterdir() if p.is_dir() and (HAS_USD or not p.name.startswith("a.usd")))


@pytest.mark.parametrize("target", TARGETS)
def test_sound_files_of_every_version_still_read(target: str) -> None:
    fuzz_readers.reader_of(target)(CORPUS / target)


@pytest.mark.parametrize("target", TARGETS)
def test_damaged_files_are_refused_or_sound(target: str, tmp_path: Path) -> None:
    n = N_DAMAGED_USD if "usd" in target else N_DAMAGED
    for i, case in enumerate(fuzz_readers.cases(target, CORPUS / target, random.Random(target), n)):
        fuzz_readers.place(case, tmp_path / str(i))
        problem = fuzz_readers.problem_of(target, tmp_path / str(i))
        assert not problem, f"{case.name}: {problem}"


@pytest.mark.parametrize("target", TARGETS)
def test_cut_files_are_refused_or_sound(target: str, tmp_path: Path) -> None:
    path = fuzz_readers.damageable(CORPUS / target)[0]
    whole = path.read_bytes()
    n = MAX_CUTS_USD if "usd" in target else MAX_CUTS
    for size in range(0, len(whole), max(1, len(whole) // n)):
        case = fuzz_readers.Case(target, CORPUS / target, path.relative_to(CORPUS / target).as_posix(), whole[:size])
        fuzz_readers.place(case, tmp_path / str(size))
        problem = fuzz_readers.problem_of(target, tmp_path / str(size))
        assert not problem, f"{case.name} cut to {size} bytes: {problem}"


@pytest.mark.parametrize("case", CASES)
def test_what_fuzzing_found_once_stays_repaired(case: str) -> None:
    problem = fuzz_readers.problem_of(case.rpartition("-")[0], FOUND / case)
    assert not problem, problem


def test_zeros_that_unpack_to_millions_of_gaussians_are_refused(tmp_path: Path) -> None:
    header = struct.pack("<IIIBBBB", 0x5053474E, 3, N_BOMB, 0, 12, 0, 0)
    (tmp_path / "a.spz").write_bytes(zlib.compress(header + bytes(20 * N_BOMB), wbits=31))
    with pytest.raises(FormatError, match=r"says 2000000 Gaussians, 40000000 bytes, which cannot be packed into \d+"):
        read_scene(tmp_path / "a.spz")
