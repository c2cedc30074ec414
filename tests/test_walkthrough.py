"""docs/walkthrough.md: its commands are understood and its pictures are there."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
import tyro
from PIL import Image

from scene3d.cli import COMMANDS

DOCS = Path(__file__).resolve().parents[1] / "docs"
TEXT = (DOCS / "walkthrough.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("line", LINES)
def test_commands_are_understood(line: str):
    program, command, *args = shlex.split(line)
    assert program == "scene3d"
    config = importlib.import_module(COMMANDS[command].module).Config
    assert isinstance(tyro.cli(config, args=args), config)


def test_pictures_are_there_and_small():
    names = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", TEXT)
    assert len(names) == 3
    for name in names:
        assert Image.open(DOCS / name).width <= 1300
        assert (DOCS / name).stat().st_size < 200_000
