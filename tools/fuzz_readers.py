"""Feed damaged files to every reader: each must refuse them with a FormatError (or CaptureError), or read them soundly.

    python tools/fuzz_readers.py [--seconds 60] [--targets a.spz colmap_bin] [--seed 0] [--keep findings]

Anything else is a finding: another exception, a crash, no end within seconds, more memory than files of a few kilobytes
can need, a scene that is not finite. Findings are kept as folders that tests/fuzz reads as its corpus `found`.
Files to damage are those of tests/fuzz/corpus, one folder a target.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

import torch
import tyro
from fuzz_mutations import mutate

from scene3d.core.errors import CaptureError, FormatError
from scene3d.io.camera_path import read_cameras
from scene3d.io.capture_files import read_capture
from scene3d.io.colmap_model import read_model
from scene3d.io.mesh_files import read_mesh
from scene3d.io.ply import read_points_ply
from scene3d.io.registry import read_scene

CORPUS = Path(__file__).resolve().parents[1] / "tests" / "fuzz" / "corpus"
REFUSALS = (FormatError, CaptureError)
SECONDS_A_CASE = 5
# More than what was used before. What 4 kB can stand for at the ratios that readers accept, and room for the libraries.
ROOM_KB = 600_000
# Address space that libraries and threads reserve without using it.
SPARE_KB = 1_500_000
BATCH = 200


@dataclass(frozen=True)
class Config:
    """What to damage, and for how long."""

    targets: tuple[str, ...] = ()
    """Folders of the corpus. Default: all."""
    seconds: float = 60.0
    """Time for all of them together."""
    seed: int = 0
    """Of the damage; the same seed gives the same files."""
    corpus: Path = CORPUS
    """Folder of sound files, one folder a target."""
    keep: Path = Path("findings")
    """Folder for what should not have happened: a folder a case, with the damaged files."""


@dataclass(frozen=True)
class Case:
    """One damaged file.

    Attributes:
        target: Name of a folder of the corpus.
        folder: Where the files of that target lie, one of them damaged.
        name: Of the damaged file.
        data: Its bytes.
    """

    target: str
    folder: Path
    name: str
    data: bytes


class Hang(BaseException):
    """A reader did not come to an end. No Exception: readers that catch everything must not catch this."""


def reader_of(target: str) -> Callable[[Path], object]:
    """What reads the folder of a target; its name says which."""
    kinds: dict[str, Callable[[Path], object]] = {
        "colmap": lambda folder: (read_model(folder / "sparse" / "0"), read_capture(folder)),
        "transforms": read_capture,
        "blender": read_capture,
        "cameras": lambda folder: read_cameras(_only(folder)),
        "mesh": lambda folder: read_mesh(_only(folder)),
        "points": lambda folder: read_points_ply(_only(folder)),
        "streamed": lambda folder: _sound(folder / "lod-meta.json"),
        "loose": lambda folder: _sound(folder / "meta.json"),
        "gltf": lambda folder: _sound(folder / "a.gltf"),
    }
    return kinds.get(target.split("_")[0], lambda folder: _sound(_only(folder)))


def cases(target: str, folder: Path, chance: random.Random, n: int) -> list[Case]:
    """`n` damaged files of the target whose sound ones lie in `folder`."""
    files, found = damageable(folder), []
    for _ in range(n):
        path = chance.choice(files)
        name = path.relative_to(folder).as_posix()
        found.append(Case(target, folder, name, mutate(path.read_bytes(), chance)))
    return found


def damageable(folder: Path) -> list[Path]:
    """Files of a target, but for photos, which are read by a library of their own."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".png", ".jpg"))


def problem_of(target: str, folder: Path) -> str:
    """What is wrong with how the files in `folder` are read; empty where they are read or refused as they should be."""
    before = _peak_kb()
    signal.signal(signal.SIGALRM, _raise_hang)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_A_CASE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader_of(target)(folder)
    except REFUSALS as error:
        if isinstance(error.__cause__, MemoryError) or isinstance(error.__context__, MemoryError):
            return f"memory was asked for that is not there: {error}"
        if "\n" in str(error) or len(str(error)) > 2000:
            return f"a message of more than a line: {str(error)[:200]!r}"
    except Hang:
        return f"no end within {SECONDS_A_CASE} seconds"
    except Exception:
        return traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    grown = _peak_kb() - before
    return f"{grown} kB of memory" if grown > ROOM_KB else ""


def place(case: Case, folder: Path) -> None:
    """Lay the sound files of the target and the damaged one into the empty folder `folder`."""
    shutil.copytree(case.folder, folder, dirs_exist_ok=True)
    (folder / case.name).write_bytes(case.data)


def main(config: Config) -> None:
    """Fuzz all targets in turn, in processes of their own, and say what was found."""
    torch.set_num_threads(1)
    names = config.targets or tuple(sorted(p.name for p in config.corpus.iterdir() if p.is_dir()))
    until, batch, n_files = time.monotonic() + config.seconds, 0, 0
    found: set[tuple[str, str]] = set()
    while time.monotonic() < until:
        for name in names:
            chance = random.Random(f"{config.seed} {name} {batch}")
            work = cases(name, config.corpus / name, chance, BATCH)
            n_files += len(work)
            for case, problem in _run_apart(work):
                kind = _kind(problem)
                if (name, kind) not in found:
                    found.add((name, kind))
                    print(f"{name}: {kind} -> {_keep(config.keep, case, problem)}", flush=True)
            if time.monotonic() > until:
                break
        batch += 1
    print(f"{n_files:,} files read, {len(found)} findings")
    sys.exit(1 if found else 0)


def _run_apart(work: list[Case]) -> list[tuple[Case, str]]:
    """Run cases in a process of their own, a new one after each that dies; what was found."""
    findings: list[tuple[Case, str]] = []
    done = 0
    while done < len(work):
        for problem in _answers(work[done:]):
            if problem:
                findings.append((work[done], problem))
            done += 1
    return findings


def _answers(work: list[Case]) -> Iterator[str]:
    """The problem of each case; ends early after a case that killed the process."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(work, theirs))
    process.start()
    theirs.close()
    try:
        for _ in work:
            # Native code that hangs does not hear the alarm of the process itself.
            if not ours.poll(3 * SECONDS_A_CASE):
                yield f"no end within {3 * SECONDS_A_CASE} seconds, in native code"
                return
            yield ours.recv()
    except EOFError:
        process.join()
        yield f"the process died with code {process.exitcode}"
    finally:
        process.kill()
        process.join()


def _work(work: list[Case], pipe: Connection) -> None:
    """In the process apart: answers one problem a case."""
    used_kb = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() // 1024
    resource.setrlimit(resource.RLIMIT_AS, ((used_kb + ROOM_KB + SPARE_KB) * 1024,) * 2)
    logging.disable()
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nothing:
        # USD's library writes to the file descriptor.
        os.dup2(nothing.fileno(), 2)
        for i, case in enumerate(work):
            place(case, Path(folder) / str(i))
            pipe.send(problem_of(case.target, Path(folder) / str(i)))
            shutil.rmtree(Path(folder) / str(i))


def _keep(folder: Path, case: Case, problem: str) -> Path:
    """Lay the case into a folder that names target and damage; the problem stands beside it."""
    kept = folder / f"{case.target}-{hashlib.sha256(case.data).hexdigest()[:8]}"
    place(case, kept)
    Path(f"{kept}.txt").write_text(f"{case.name}\n{problem}\n", encoding="utf-8")
    return kept


def _kind(problem: str) -> str:
    """Where and how it went wrong: many damaged files find the same."""
    lines = problem.strip().splitlines()
    places = [line.strip() for line in lines if line.strip().startswith("File ") and "scene3d" in line]
    return f"{lines[-1].split(':')[0][:60]} {places[-1] if places else lines[-1][:100]}"


def _only(folder: Path) -> Path:
    return next(path for path in folder.iterdir() if path.is_file())


def _sound(path: Path) -> None:
    scene = read_scene(path)
    if scene.kind == "gaussians" and not bool(scene.splats().is_finite().all()):
        raise ValueError("the scene that was read is not finite")


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _raise_hang(number: int, frame: FrameType | None) -> None:
    raise Hang


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
