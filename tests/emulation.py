"""The CUDA kernels on the host for tests: skipped where they are not built, an error where SCENE3D_EMULATION asks."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest

VARIABLE = "SCENE3D_EMULATION"


def load_emulated() -> Any:
    """scene3d._cuda_emulated; the calling module of tests is skipped without it, unless the variable is ON."""
    try:
        return importlib.import_module("scene3d._cuda_emulated")
    except ImportError:
        if os.environ.get(VARIABLE) == "ON":
            raise
    pytest.skip(f"scene3d._cuda_emulated is not built ({VARIABLE}=ON pip install .)", allow_module_level=True)
