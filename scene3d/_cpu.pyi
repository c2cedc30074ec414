"""The native module; its functions are private to scene3d.render and scene3d.ops."""

from typing import Any

def __getattr__(name: str) -> Any: ...
