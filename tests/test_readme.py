"""The README's commands, run as written, in order, in a folder with photos.

`python3 tools/quickstart.py` and `pip install` are not run here: CI calls the script itself.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import scene3d

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SAMPLE = ROOT / "data" / "sample" / "images"
N_PHOTOS = 10
INSTALLING = ("python3 tools/quickstart.py", "pip install")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("bash") for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with `photos`, and an environment in which `scene3d` is this package."""
    if len(list(SAMPLE.glob("*.jpg"))) < N_PHOTOS:
        pytest.skip("the sample capture is not there: its photos are the input")
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    for photo in sorted(SAMPLE.glob("*.jpg"))[:N_PHOTOS]:
        shutil.copy(photo, folder / "photos")
    program = folder / "bin" / "scene3d"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m scene3d "$@"\n')
    program.chmod(0o755)
    package = str(Path(scene3d.__file__).resolve().parents[1])
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return folder, {**os.environ, "PATH": path, "PYTHONPATH": package}


def test_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_every_stage_is_called_in_the_readme():
    from scene3d.cli import COMMANDS

    called = {words.split()[1] for words in commands() if words.startswith("scene3d ")}
    assert called | {"demo"} == set(COMMANDS)


def test_every_command_is_of_a_kind_that_is_tested():
    assert all(command.startswith(("scene3d ", *INSTALLING)) for command in commands())


def test_ci_calls_what_is_not_run_here():
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "tools/quickstart.py demo" in text
    assert "tools/quickstart.py test" in text


def assert_it_serves(command: str, folder: Path, environment: dict[str, str]) -> None:
    """The viewer runs until it is stopped: it must say where it listens, and end when asked to."""
    pytest.importorskip("viser", reason="viser is not installed")
    viewer = subprocess.Popen(shlex.split(command), cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert viewer.stdout is not None
    lines = []
    for line in viewer.stdout:
        lines.append(line)
        if line.startswith("open http://localhost:"):
            break
    viewer.terminate()
    assert viewer.wait(60) == 0, lines
    assert lines[-1].startswith("open http://localhost:"), lines


@pytest.mark.slow
def test_commands_run_as_written(workplace: tuple[Path, dict[str, str]]):
    folder, environment = workplace
    for command in [words for words in commands() if words.startswith("scene3d ")]:
        if command.startswith("scene3d view"):
            assert_it_serves(command, folder, environment)
            continue
        result = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    code = "\n".join(blocks("python"))
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (folder / "runs" / "mine" / "report.html").is_file()
    assert (folder / "mine" / "report.html").is_file()
