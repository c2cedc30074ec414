"""The native CPU module, as far as type checkers are told: its signatures are checked where it is called, at run time."""

from typing import Any

def __getattr__(name: str) -> Any: ...
