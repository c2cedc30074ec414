"""Exceptions that reach a user: each says what was expected, what came and what to do.

Arguments of the Python API raise ValueError or TypeError; these are for the outer world.
"""

from __future__ import annotations

from pathlib import Path

MAX_PROBLEM = 400


class Scene3dError(Exception):
    """Base of every error that the command line prints as one line."""


class FormatError(Scene3dError):
    """A file that does not hold what its format promises."""

    def __init__(self, path: Path | str, problem: str, offset: int | None = None, remedy: str = "") -> None:
        place = f" at byte {offset}" if offset is not None else ""
        # What libraries say of foreign bytes may have any length and many lines.
        words = " ".join(problem.split())
        problem = words if len(words) <= MAX_PROBLEM else f"{words[:MAX_PROBLEM]} ..."
        super().__init__(_sentence(f"{path}{place}: {problem}", remedy))
        self.path = Path(path)
        self.problem = problem
        self.offset = offset


class CaptureError(Scene3dError):
    """Photos or poses that cannot be used."""

    def __init__(self, where: Path | str, problem: str, remedy: str = "") -> None:
        super().__init__(_sentence(f"{where}: {problem}", remedy))
        self.where = str(where)
        self.problem = problem


class OutputError(Scene3dError):
    """An output that cannot be written."""

    def __init__(self, path: Path | str, problem: str, remedy: str = "") -> None:
        super().__init__(_sentence(f"{path}: {problem}", remedy))
        self.path = Path(path)


class SceneKindError(Scene3dError):
    """A scene that cannot do what it was asked for."""

    def __init__(self, expected: str, got: str, remedy: str = "") -> None:
        super().__init__(_sentence(f"this takes {expected}, the scene holds {got}", remedy))


class BackendUnavailable(Scene3dError):
    """A backend that was asked for by name and cannot run here."""

    def __init__(self, name: str, reason: str, remedy: str = "") -> None:
        super().__init__(_sentence(f"backend {name!r} is not available: {reason}", remedy))
        self.name = name
        self.reason = reason


def _sentence(problem: str, remedy: str) -> str:
    return f"{problem}. {remedy}" if remedy else problem
