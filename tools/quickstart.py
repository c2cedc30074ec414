#!/usr/bin/env python3
"""From a fresh clone to a result in one command. Needs Python 3.10 or newer, a C++ compiler and the network.

    python3 tools/quickstart.py demo      install, then fit the bundled sample: pictures and a report in runs/demo
    python3 tools/quickstart.py test      install, then run the tests
    python3 tools/quickstart.py lint      install, then run ruff, mypy and the import contract

Everything goes into .venv in this folder. What is installed already is not installed again. Arguments after the
command go to it: `python3 tools/quickstart.py test -k cli`. Standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST_PYTHON = (3, 10)
TORCH = "torch==2.13.0"
ANY_TORCH = "torch>=2.2"
# PyPI's torch for Linux brings gigabytes of CUDA libraries. This index has the same version with the suffix +cpu, which
# pip prefers where both are seen; where the index cannot be reached, pip goes on with the others.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# Of the tests; each takes about half a gigabyte.
MAX_TEST_PROCESSES = 8
SOURCES = ("pyproject.toml", "README.md", "scene3d", "cuda", "data/sample")
NO_SOURCES = (".so", ".pyd", ".dylib", ".pyc")
EXTRAS = {"demo": (), "test": ("mesh", "test"), "lint": ("test", "dev")}
# For tests the CUDA kernels are also built to run on the host, and tests fail where that module is missing.
VARIABLES = {"test": {"SCENE3D_EMULATION": "ON"}}
LINTERS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
)


class Steps:
    """Runs named steps and remembers how long each took."""

    def __init__(self):
        self.seconds = []

    def run(self, name, action, *args, **options):
        """Announce a step, do it, and return what `action` returns."""
        print(f"== {name}", flush=True)
        start = time.monotonic()
        try:
            return action(*args, **options)
        finally:
            self.seconds.append((name, time.monotonic() - start))

    def table(self):
        """One line a step."""
        total = sum(seconds for _, seconds in self.seconds)
        return "\n".join(f"  {seconds:7.1f} s  {name}" for name, seconds in [*self.seconds, ("in all", total)])


def main(argv=None):
    """Do what the command line says; return the exit code."""
    options, rest = parse(sys.argv[1:] if argv is None else argv)
    check_python(sys.version_info)
    steps = Steps()
    try:
        python = steps.run("virtual environment", make_venv, options.venv)
        steps.run("torch", install_torch, python, options.cuda)
        steps.run("scene3d", install_package, python, options.venv, options.command)
        code = COMMANDS[options.command](steps, options.venv, rest)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from there", file=sys.stderr)
        return 130
    print(f"time\n{steps.table()}", flush=True)
    return code


def parse(argv):
    """Options of this script, and the arguments after the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuda", action="store_true", help="install torch with CUDA (Linux, about 3 GB more)")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where to install (default: .venv)")
    parser.add_argument("command", choices=list(EXTRAS), nargs="?", default="demo")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="arguments for the command")
    options = parser.parse_args(argv)
    options.venv = options.venv.absolute()
    return options, options.rest


def check_python(version):
    """Leave with a message when this Python is too old."""
    if tuple(version[:2]) < OLDEST_PYTHON:
        raise SystemExit(
            f"scene3d needs Python 3.10 or newer; this is {version[0]}.{version[1]} ({sys.executable}). "
            f"Run a newer one: python3.12 {sys.argv[0]}"
        )


def venv_program(venv, name):
    """Path of a program in a virtual environment."""
    return venv / ("Scripts" if os.name == "nt" else "bin") / (name + (".exe" if os.name == "nt" else ""))


def make_venv(venv):
    """Make the virtual environment, or check the one that is there. Returns its Python."""
    python = venv_program(venv, "python")
    if python.exists():
        result = ask(python, "import sys; print(sys.version_info >= (3, 10))")
        if result != "True":
            raise SystemExit(f"{venv}: its Python does not run or is older than 3.10. Delete that folder and try again")
    else:
        missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
        if missing:
            raise SystemExit(missing_venv(missing[0], sys.version_info))
        if call(sys.executable, "-m", "venv", str(venv)) != 0:
            raise SystemExit(f"{venv}: the virtual environment could not be made; the lines above say why")
    if ask(python, "import pip; print(1)") != "1" and call(python, "-m", "ensurepip", "--upgrade") != 0:
        raise SystemExit(f"{venv}: it has no pip. Delete that folder and try again")
    return python


def missing_venv(module, version):
    """What to do where Python came without venv or ensurepip, as on Debian and Ubuntu."""
    package = f"python{version[0]}.{version[1]}-venv"
    return (
        f"this Python has no module {module!r}. Debian, Ubuntu: sudo apt install {package}. "
        "Elsewhere: install Python from python.org or with your package manager, and run this again with it"
    )


def install_torch(python, cuda):
    """Install torch unless a fitting one is there: the CPU build, or with `cuda` the default build of PyPI."""
    found = ask(python, "import torch; print(torch.__version__, torch.version.cuda or 'cpu')")
    has_gpu = shutil.which("nvidia-smi") is not None
    if found and not (cuda and found.endswith(" cpu")):
        print(f"   there already: {found}")
        return
    if has_gpu and not cuda:
        print("   An NVIDIA GPU is here. This installs torch for the CPU; for the GPU: quickstart.py --cuda demo")
    for requirement in (TORCH, ANY_TORCH):
        if call(python, "-m", "pip", "install", *pip_quiet(), *torch_arguments(requirement, cuda)) == 0:
            return
        print(f"   {requirement} could not be installed")
    raise SystemExit(
        f"torch could not be installed for Python {platform.python_version()} on {platform.machine()}. "
        "Check the network; torch may not be built for a very new Python: try an older one"
    )


def torch_arguments(requirement, cuda, system=None):
    """Arguments of pip install for torch."""
    if cuda:
        return [requirement, "--force-reinstall"]
    if (system or platform.system()) == "Darwin":
        return [requirement]
    # Where that index cannot be reached, pip asks it for every package; five times each take minutes.
    return [requirement, "--retries", "2", "--extra-index-url", CPU_INDEX]


def install_package(python, venv, command):
    """Build and install scene3d with what a command needs, unless the same sources are installed already."""
    extras = EXTRAS[command]
    record = venv / "scene3d-quickstart.json"
    installed = read_record(record)
    sources = digest(ROOT, SOURCES)
    missing = sorted(set(extras) - set(installed.get("extras", ())))
    # What is set already counts too: whoever will run the tests in the end builds only once.
    given = {name: value for name, value in VARIABLES["test"].items() if os.environ.get(name) == value}
    variables = {**installed.get("variables", {}), **given, **VARIABLES.get(command, {})}
    is_fresh = installed.get("sources") == sources and installed.get("variables", {}) == variables
    is_fresh = is_fresh and ask(python, "import scene3d._cpu; print(1)") == "1"
    if is_fresh and not missing:
        print("   there already, and the sources have not changed")
        return
    # For more extras alone nothing has to be built again: pip knows them from the installed package.
    target = f"scene3d[{','.join(missing)}]" if is_fresh else package_target(extras, installed)
    if not is_fresh:
        check_compiler(find_compiler())
    if call(python, "-m", "pip", "install", *pip_quiet(), target, variables=variables) != 0:
        raise SystemExit("scene3d could not be installed; the lines above say why")
    extras = sorted({*extras, *installed.get("extras", ())})
    found = {"sources": sources, "extras": extras, "variables": variables}
    record.write_text(json.dumps(found), encoding="utf-8")


def package_target(extras, installed):
    """The source folder with all extras wanted now or before, as pip takes it."""
    names = sorted({*extras, *installed.get("extras", ())})
    return f"{ROOT}[{','.join(names)}]" if names else str(ROOT)


def read_record(path):
    """What the last installation wrote, {} where there is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def digest(root, names):
    """Digest of the sources below `root`: names and contents, without what a build or a run leaves there."""
    state = hashlib.sha256()
    for name in names:
        top = root / name
        files = [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.is_file())
        for file in files:
            if file.suffix not in NO_SOURCES:
                state.update(f"{file.relative_to(root).as_posix()}\0{file.stat().st_size}\0".encode())
                state.update(file.read_bytes())
    return state.hexdigest()


def find_compiler():
    """A C++ compiler that runs, None where there is none. macOS has a stub that fails until the tools are installed."""
    if os.name == "nt":
        # Visual Studio is found by CMake itself, it is on no path.
        return "cl"
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(name) and call(name, "--version", quiet=True) == 0:
            return name
    return None


def check_compiler(compiler):
    """Leave with a message when there is no compiler."""
    if compiler is None:
        raise SystemExit(
            "no C++ compiler found, and scene3d builds native code. Debian, Ubuntu: sudo apt install g++ python3-dev. "
            "Fedora: sudo dnf install gcc-c++ python3-devel. macOS: xcode-select --install. "
            "Windows: the Build Tools for Visual Studio"
        )


def pip_quiet():
    """Less talk where nobody watches."""
    return () if sys.stderr.isatty() else ("--quiet",)


def run_demo(steps, venv, rest):
    """Fit the bundled sample."""
    out = ROOT / "runs" / "demo"
    given = any(arg == "--out" or arg.startswith("--out=") for arg in rest)
    arguments = rest if given else ["--out", str(out), *rest]
    code = steps.run("demo", call, venv_program(venv, "scene3d"), "demo", *arguments)
    report = out / "report.html"
    if code == 0 and not given and report.exists():
        print(f"report: {report.as_uri()}", flush=True)
    return code


def run_tests(steps, venv, rest):
    """Run pytest on the installed package."""
    # From the source folder `import scene3d` would find the sources, which have no native code built in.
    elsewhere = ROOT / "build" / "tests"
    elsewhere.mkdir(parents=True, exist_ok=True)
    where = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), str(ROOT / "tests")]
    program = venv_program(venv, "pytest")
    return steps.run(
        "tests", call, program, *where, *side_by_side(), *rest, folder=elsewhere, variables=VARIABLES["test"]
    )


def side_by_side(n_cores=None):
    """Arguments of pytest for a process per core; tests of a file share what they prepare, so they stay together."""
    return ["-n", str(min(n_cores or os.cpu_count() or 1, MAX_TEST_PROCESSES)), "--dist", "loadfile"]


def run_linters(steps, venv, rest):
    """Run every linter, also after one has failed."""
    return max(steps.run(" ".join(words), call, venv_program(venv, words[0]), *words[1:]) for words in LINTERS)


def ask(python, code):
    """What a line of Python prints in a virtual environment, "" when it fails."""
    try:
        command = [str(python), "-c", code]
        result = subprocess.run(command, capture_output=True, text=True, cwd=str(python.parent), check=False)
    except OSError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def call(*command, quiet=False, folder=ROOT, variables=None):
    """Run a program in the source folder, show what it prints, and return its exit code."""
    output = subprocess.DEVNULL if quiet else None
    sys.stdout.flush()
    words = [str(word) for word in command]
    environment = {**os.environ, **(variables or {})}
    return subprocess.call(
        words, cwd=str(folder), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
    )


COMMANDS = {"demo": run_demo, "test": run_tests, "lint": run_linters}

if __name__ == "__main__":
    raise SystemExit(main())
