"""The command line: what it prints, how it ends, and that it stays light."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from scene3d import __version__, cli
from scene3d.core.errors import CaptureError
from scene3d.io.atomic import atomic_write


@dataclass(frozen=True)
class FakeConfig:
    """A stage without options."""


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch):
    """Makes `scene3d info` raise a given exception."""

    def install(error: BaseException) -> None:
        def run(config: FakeConfig) -> None:
            raise error

        stage = SimpleNamespace(Config=FakeConfig, run=run, __doc__="A stage.")
        monkeypatch.setattr(cli.importlib, "import_module", lambda name: stage)

    return install


def python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=120)


def test_help_imports_neither_torch_nor_numpy_nor_tyro():
    imported = "{'torch', 'numpy', 'tyro'} & set(sys.modules)"
    result = python("-c", f"import sys; from scene3d.cli import main; main(['--help']); print({imported})")
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("set()\n")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.COMMANDS)


def test_no_argument_prints_the_help(capsys: pytest.CaptureFixture[str]):
    assert cli.main([]) == 0
    assert "usage: scene3d" in capsys.readouterr().out


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"scene3d {__version__}\n"


def test_module_runs_as_the_command():
    result = python("-m", "scene3d", "--version")
    assert (result.returncode, result.stdout) == (0, f"scene3d {__version__}\n")


@pytest.mark.parametrize(("typed", "meant"), [("fti", "fit"), ("eval", "evaluate"), ("reder", "render")])
def test_unknown_command_suggests_the_nearest(typed: str, meant: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main([typed, "x"]) == 2
    assert capsys.readouterr().err == f"scene3d: unknown command {typed!r}. Did you mean {meant!r}?\n"


def test_unknown_command_far_from_all_lists_them(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["zzzzzz"]) == 2
    assert "Commands: run, demo, pose, fit" in capsys.readouterr().err


def test_every_command_has_a_config_and_a_run():
    for command in cli.COMMANDS.values():
        stage = cli.importlib.import_module(command.module)
        assert stage.__doc__
        assert isinstance(stage.Config, type)
        assert callable(stage.run)


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_help_of_every_command_parses(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as leaving:
        cli.main([name, "--help"])
    assert leaving.value.code == 0
    assert f"scene3d {name}" in capsys.readouterr().out


def test_wrong_option_exits_with_2(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as leaving:
        cli.main(["doctor", "--no-such-option"])
    assert leaving.value.code == 2
    assert "no-such-option" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (CaptureError("photos", "no images found", "Name a folder of photos"), "photos: no images found. Name a"),
        (ValueError("steps: expected 1 or more, got 0"), "steps: expected 1 or more, got 0"),
        (FileNotFoundError(2, "No such file or directory", "a.ply"), "a.ply: no such file or directory"),
        (MemoryError(), "out of memory. Use smaller images"),
        (MemoryError("the lists need 2 GiB. Render smaller images"), "the lists need 2 GiB. Render smaller images"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory. Use smaller images"),
        (ModuleNotFoundError("No module named 'open3d'", name="open3d"), "the Python package 'open3d' is missing"),
    ],
)
def test_error_is_one_line_and_exit_1(error: Exception, line: str, raising, capsys: pytest.CaptureFixture[str]):
    raising(error)
    assert cli.main(["info"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"scene3d: error: {line}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("args", [["--traceback", "info"], ["info", "--traceback"]])
def test_traceback_anywhere_lets_the_error_through(args: list[str], raising):
    raising(ValueError("bad"))
    with pytest.raises(ValueError, match="bad"):
        cli.main(args)


def test_fault_of_the_program_keeps_its_stack_trace(raising):
    raising(KeyError("oops"))
    with pytest.raises(KeyError):
        cli.main(["info"])


def test_a_terminated_command_tidies_up_says_so_and_exits_with_143(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    before = signal.getsignal(signal.SIGTERM)

    def run(config: FakeConfig) -> None:
        with atomic_write(tmp_path / "scene.ply") as path:
            path.write_bytes(b"half")
            signal.raise_signal(signal.SIGTERM)

    stage = SimpleNamespace(Config=FakeConfig, run=run, __doc__="A stage.")
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: stage)
    assert cli.main(["info"]) == 143
    assert "interrupted" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_interrupt_exits_with_130(raising, capsys: pytest.CaptureFixture[str]):
    raising(KeyboardInterrupt())
    assert cli.main(["info"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_reader_that_leaves_is_no_error(tmp_path: Path):
    code = "from scene3d import cli; cli._help = lambda: 'x' * 10_000_000; raise SystemExit(cli.main(['--help']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == cli.EXIT_BROKEN_PIPE
