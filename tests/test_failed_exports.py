"""An export that fails in the midst of writing leaves what was there before, and nothing else."""

from __future__ import annotations

import contextlib
import importlib.util
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from format_files import small_scene

from scene3d.core.errors import OutputError
from scene3d.core.mesh import Mesh
from scene3d.io import mesh_files, registry

HAS_USD = importlib.util.find_spec("pxr") is not None
SUFFIXES = [s for s in registry.WRITERS if HAS_USD or not s.startswith(".usd")]
# Less than any of the second files takes, so that its writing breaks off.
MAX_BYTES = 2000


@contextlib.contextmanager
def small_disk() -> Iterator[None]:
    """No file can grow beyond MAX_BYTES, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def grid(n: int) -> Mesh:
    """n * n vertices with texture."""
    rows, columns = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    uvs = torch.stack([columns, rows], dim=-1).reshape(-1, 2) / (n - 1)
    corner = (rows[:-1, :-1] * n + columns[:-1, :-1]).reshape(-1, 1)
    faces = torch.cat([corner + torch.tensor([[0, 1, n]]), corner + torch.tensor([[1, n + 1, n]])])
    texture = torch.randint(0, 256, (8 * n, 8 * n, 3), generator=torch.Generator().manual_seed(0)).byte()
    return Mesh(torch.cat([uvs, uvs[:, :1]], dim=1), faces, uvs=uvs, texture=texture)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_scene_that_cannot_be_written_whole_leaves_the_old_one(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / (suffix if suffix == "meta.json" else f"scene{suffix}")
    registry.write_scene(small_scene(4, 1), path)
    before = contents(tmp_path)
    with small_disk(), pytest.raises(OutputError, match="cannot be written"):
        registry.write_scene(small_scene(900, 3), path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("suffix", list(mesh_files.WRITERS))
def test_a_mesh_that_cannot_be_written_whole_leaves_the_old_one(suffix: str, tmp_path: Path) -> None:
    mesh_files.write_mesh(grid(2), tmp_path / f"mesh{suffix}")
    before = contents(tmp_path)
    with small_disk(), pytest.raises(OutputError, match="cannot be written"):
        mesh_files.write_mesh(grid(30), tmp_path / f"mesh{suffix}")
    assert contents(tmp_path) == before
