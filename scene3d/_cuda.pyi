"""The native CUDA module, as far as type checkers are told: nanobind checks its arguments at run time."""

from typing import Any

def __getattr__(name: str) -> Any: ...
