"""tools/quickstart.py: its decisions. Nothing is installed here; CI runs the script itself."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "tools" / "quickstart.py"


@pytest.fixture(scope="module")
def quickstart() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quickstart", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pip_calls(quickstart: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Every program that would be run; all of them succeed."""
    calls: list[list[str]] = []

    def call(*command, quiet=False, folder=ROOT, variables=None):
        calls.append([str(word) for word in command])
        return 0

    monkeypatch.setattr(quickstart, "call", call)
    return calls


def test_only_the_standard_library_is_imported():
    names = set(re.findall(r"^(?:import|from) (\w+)", SCRIPT.read_text(), flags=re.MULTILINE))
    assert names <= set(sys.stdlib_module_names)


def test_help_names_the_three_commands():
    result = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=True)
    assert all(f"quickstart.py {name}" in result.stdout for name in ("demo", "test", "lint"))


@pytest.mark.parametrize("version", [(3, 9, 1), (3, 6, 0), (2, 7, 18)])
def test_old_python_is_told_what_to_do(quickstart: ModuleType, version: tuple[int, ...]):
    with pytest.raises(SystemExit, match=r"needs Python 3\.10 or newer; this is " + rf"{version[0]}\.{version[1]}"):
        quickstart.check_python(version)


def test_python_3_10_is_new_enough(quickstart: ModuleType):
    quickstart.check_python((3, 10, 0))


def test_missing_venv_names_the_package_of_that_python(quickstart: ModuleType):
    message = quickstart.missing_venv("ensurepip", (3, 12, 1))
    assert "no module 'ensurepip'" in message
    assert "sudo apt install python3.12-venv" in message


def test_missing_compiler_names_the_packages(quickstart: ModuleType):
    with pytest.raises(SystemExit, match=r"apt install g\+\+.*xcode-select --install"):
        quickstart.check_compiler(None)


def test_arguments_after_the_command_are_passed_on(quickstart: ModuleType):
    options, rest = quickstart.parse(["--cuda", "test", "-k", "cli", "--maxfail=1"])
    assert (options.command, options.cuda, rest) == ("test", True, ["-k", "cli", "--maxfail=1"])


@pytest.mark.parametrize(
    ("cuda", "system", "words"),
    [
        (
            False,
            "Linux",
            ["torch==2.13.0", "--retries", "2", "--extra-index-url", "https://download.pytorch.org/whl/cpu"],
        ),
        (False, "Darwin", ["torch==2.13.0"]),
        (True, "Linux", ["torch==2.13.0", "--force-reinstall"]),
    ],
)
def test_torch_is_the_small_build_unless_cuda_is_asked_for(
    quickstart: ModuleType, cuda: bool, system: str, words: list[str]
):
    assert quickstart.torch_arguments("torch==2.13.0", cuda, system) == words


def test_torch_that_is_there_is_not_installed_again(
    quickstart: ModuleType, monkeypatch: pytest.MonkeyPatch, pip_calls: list[list[str]]
):
    monkeypatch.setattr(quickstart, "ask", lambda python, code: "2.13.0+cpu cpu")
    quickstart.install_torch(Path("python"), cuda=False)
    assert pip_calls == []
    quickstart.install_torch(Path("python"), cuda=True)
    assert "--force-reinstall" in pip_calls[0]


def test_torch_that_cannot_be_had_is_told_after_a_second_try(quickstart: ModuleType, monkeypatch: pytest.MonkeyPatch):
    tried: list[str] = []
    monkeypatch.setattr(quickstart, "ask", lambda python, code: "")
    monkeypatch.setattr(quickstart, "call", lambda *command, **options: tried.append(" ".join(map(str, command))) or 1)
    with pytest.raises(SystemExit, match="torch could not be installed for Python"):
        quickstart.install_torch(Path("python"), cuda=False)
    assert [re.search(r"torch\S+", line).group() for line in tried] == ["torch==2.13.0", "torch>=2.2"]


def test_same_sources_are_not_installed_again_but_new_extras_are(
    quickstart: ModuleType, monkeypatch: pytest.MonkeyPatch, pip_calls: list[list[str]], tmp_path: Path
):
    monkeypatch.setattr(quickstart, "find_compiler", lambda: "c++")
    monkeypatch.setattr(quickstart, "digest", lambda root, names: "abc")
    answers = {"import": ""}
    monkeypatch.setattr(quickstart, "ask", lambda python, code: answers["import"])
    quickstart.install_package(Path("python"), tmp_path, "demo")
    answers["import"] = "1"
    quickstart.install_package(Path("python"), tmp_path, "demo")
    quickstart.install_package(Path("python"), tmp_path, "lint")
    quickstart.install_package(Path("python"), tmp_path, "demo")
    monkeypatch.setattr(quickstart, "digest", lambda root, names: "def")
    quickstart.install_package(Path("python"), tmp_path, "demo")
    assert [call[-1] for call in pip_calls] == [str(ROOT), "scene3d[dev,test]", f"{ROOT}[dev,test]"]


def test_kernels_on_the_host_are_built_for_tests_and_stay(
    quickstart: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    calls: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(quickstart, "find_compiler", lambda: "c++")
    monkeypatch.setattr(quickstart, "ask", lambda python, code: "1")
    monkeypatch.setattr(quickstart, "digest", lambda root, names: "abc")
    monkeypatch.setattr(quickstart, "call", lambda *command, variables: calls.append((command[-1], variables)) or 0)
    monkeypatch.delenv("SCENE3D_EMULATION", raising=False)
    for command in ("demo", "test", "demo", "test"):
        quickstart.install_package(Path("python"), tmp_path, command)
    assert calls == [(str(ROOT), {}), (f"{ROOT}[mesh,test]", {"SCENE3D_EMULATION": "ON"})]


def test_kernels_on_the_host_are_built_at_once_where_the_variable_is_set(
    quickstart: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    calls: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setenv("SCENE3D_EMULATION", "ON")
    monkeypatch.setattr(quickstart, "find_compiler", lambda: "c++")
    monkeypatch.setattr(quickstart, "ask", lambda python, code: "1")
    monkeypatch.setattr(quickstart, "digest", lambda root, names: "abc")
    monkeypatch.setattr(quickstart, "call", lambda *command, variables: calls.append((command[-1], variables)) or 0)
    for command in ("demo", "test"):
        quickstart.install_package(Path("python"), tmp_path, command)
    asked = {"SCENE3D_EMULATION": "ON"}
    assert calls == [(str(ROOT), asked), ("scene3d[mesh,test]", asked)]


def test_tests_may_not_miss_the_kernels_on_the_host(quickstart: ModuleType, monkeypatch: pytest.MonkeyPatch):
    given: list[dict[str, str]] = []
    monkeypatch.setattr(quickstart, "call", lambda *command, folder, variables: given.append(variables) or 0)
    assert quickstart.run_tests(quickstart.Steps(), Path("venv"), []) == 0
    assert given == [{"SCENE3D_EMULATION": "ON"}]


def test_failed_installation_leaves_no_record(quickstart: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(quickstart, "find_compiler", lambda: "c++")
    monkeypatch.setattr(quickstart, "ask", lambda python, code: "")
    monkeypatch.setattr(quickstart, "call", lambda *command, **options: 1)
    with pytest.raises(SystemExit, match="could not be installed"):
        quickstart.install_package(Path("python"), tmp_path, "demo")
    assert list(tmp_path.iterdir()) == []


def test_digest_follows_sources_and_ignores_what_a_build_leaves(quickstart: ModuleType, tmp_path: Path):
    (tmp_path / "scene3d").mkdir()
    source = tmp_path / "scene3d" / "a.py"
    source.write_text("a")
    first = quickstart.digest(tmp_path, ("scene3d", "missing"))
    (tmp_path / "scene3d" / "_cpu.so").write_bytes(b"x")
    (tmp_path / "scene3d" / "a.pyc").write_bytes(b"x")
    assert quickstart.digest(tmp_path, ("scene3d", "missing")) == first
    source.write_text("b")
    assert quickstart.digest(tmp_path, ("scene3d", "missing")) != first


def test_damaged_record_counts_as_nothing_installed(quickstart: ModuleType, tmp_path: Path):
    path = tmp_path / "record.json"
    for text in ("", "[]", "{"):
        path.write_text(text)
        assert quickstart.read_record(path) == {}


def test_broken_venv_is_told(quickstart: ModuleType, tmp_path: Path):
    python = quickstart.venv_program(tmp_path, "python")
    python.parent.mkdir()
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(SystemExit, match="Delete that folder and try again"):
        quickstart.make_venv(tmp_path)


def test_interrupt_ends_calmly(
    quickstart: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(venv):
        raise KeyboardInterrupt

    monkeypatch.setattr(quickstart, "make_venv", interrupted)
    assert quickstart.main(["demo"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize(("n_cores", "n_processes"), [(1, "1"), (2, "2"), (64, "8")])
def test_tests_run_in_a_process_per_core_up_to_eight(quickstart: ModuleType, n_cores: int, n_processes: str):
    assert quickstart.side_by_side(n_cores) == ["-n", n_processes, "--dist", "loadfile"]
