"""Shells on disk: a folder with outer.ply, inner.ply where there is an inner mesh, and a stamp of their origin."""

from __future__ import annotations

from pathlib import Path

import torch

from scene3d.core.errors import FormatError
from scene3d.core.mesh import Mesh
from scene3d.core.shell import Shell
from scene3d.io.mesh_files import read_mesh, write_mesh
from scene3d.io.stamp import Stamp, digest

OUTER, INNER, STAMP = "outer.ply", "inner.ply", "shell.json"


def has_shell(folder: Path) -> bool:
    """Whether a folder holds a shell."""
    return (folder / OUTER).is_file()


def write_shell(shell: Shell, folder: Path, scene: Path, min_light: float) -> None:
    """Write the meshes, then the stamp that says which scene they were made of.

    Raises:
        OutputError: something cannot be written.
    """
    write_mesh(shell.outer, folder / OUTER)
    if shell.inner.n_faces:
        write_mesh(shell.inner, folder / INNER)
    else:
        (folder / INNER).unlink(missing_ok=True)
    _stamp(scene, min_light).write(folder / STAMP)


def read_shell(folder: Path) -> Shell:
    """Read what write_shell wrote, or any two closed meshes of these names.

    Raises:
        FormatError: there is no outer mesh, or one of them cannot be read.
    """
    if not has_shell(folder):
        raise FormatError(folder, f"expected a folder with {OUTER}", remedy="Make one with scene3d shell.")
    inner = folder / INNER
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    return Shell(read_mesh(folder / OUTER).bare(), read_mesh(inner).bare() if inner.exists() else empty)


def why_other_shell(folder: Path, scene: Path, min_light: float) -> str | None:
    """In which way a shell was not made of this scene and light; None where it was."""
    return _stamp(scene, min_light).why_stale(folder / STAMP, [folder / OUTER])


def _stamp(scene: Path, min_light: float) -> Stamp:
    return Stamp({"min_light": min_light}, {"scene": digest(scene)})
