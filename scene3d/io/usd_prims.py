"""Gaussians of a USD stage as plain arrays, in a process of its own: USD's library can crash on damaged files.

    python -m scene3d.io.usd_prims FILE.usdc OUT.npz

`facts` is the text of the layer's custom data; prim i has path_i, world_from_prim_i, degree_i and its columns. What is
wrong with the file goes to stderr, with exit code REFUSED.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

KIND = "ParticleField3DGaussianSplat"
FACTS = "scene3d"
REFUSED = 3
# Of address space, most of it for libraries and threads; packed numbers unpack to several times their size.
FREE_BYTES = 2**32
BYTES_PER_BYTE = 64
# Attributes and how many columns each has.
COLUMNS = {
    "positions": 3,
    "scales": 3,
    "orientations": 4,
    "opacities": 1,
    "radiance:sphericalHarmonicsCoefficients": 3,
}


def prims(path: str) -> dict[str, np.ndarray]:
    """All Gaussians of a stage and where their transforms put them.

    Raises:
        ValueError: an attribute is missing or of another shape.
        RuntimeError: USD cannot read the file; UnicodeError and TypeError come out of its bindings too.
    """
    from pxr import Usd, UsdGeom

    stage = Usd.Stage.Open(path)
    cache = UsdGeom.XformCache()
    text = stage.GetRootLayer().customLayerData.get(FACTS)
    found = {"facts": np.array(text if isinstance(text, str) else "")}
    for i, prim in enumerate(prim for prim in stage.Traverse() if prim.GetTypeName() == KIND):
        found[f"path_{i}"] = np.array(str(prim.GetPath()))
        found[f"world_from_prim_{i}"] = np.array(cache.GetLocalToWorldTransform(prim)).T
        found[f"degree_{i}"] = np.array(int(prim.GetAttribute("radiance:sphericalHarmonicsDegree").Get() or 0))
        for name, n_columns in COLUMNS.items():
            found[f"{name}_{i}"] = _column(prim, name, n_columns)
    return found


def _column(prim: Any, name: str, n_columns: int) -> np.ndarray:  # [N, n_columns] float32
    for suffix in ("", "h"):  # h = half precision
        value = prim.GetAttribute(name + suffix).Get()
        if value is not None:
            if len(value) == 0:
                return np.zeros((0, n_columns), np.float32)
            rows = np.array(value, np.float32).reshape(len(value), -1)
            if rows.shape[1] != n_columns:
                raise ValueError(f"{prim.GetPath()}.{name}: expected {n_columns} columns, got {rows.shape[1]}")
            # numpy sees quaternions as they lie in memory: imaginary part first.
            return rows[:, [3, 0, 1, 2]] if n_columns == 4 else rows
    raise ValueError(f"{prim.GetPath()}: has no {name}")


def _limit_memory(path: str) -> None:
    """What a file may take, at most: a damaged count must not take all that there is."""
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = FREE_BYTES + BYTES_PER_BYTE * os.path.getsize(path)
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard < 0 else min(wanted, hard), hard))


def _words(error: Exception) -> str:
    try:
        lines = str(error).strip().splitlines()
    except UnicodeError:  # USD quotes the bytes that it could not read.
        lines = []
    return lines[-1] if lines else type(error).__name__


if __name__ == "__main__":
    _limit_memory(sys.argv[1])
    try:
        np.savez(sys.argv[2], **prims(sys.argv[1]))  # type: ignore[arg-type]
    except (RuntimeError, UnicodeError, TypeError, ValueError, MemoryError) as foreign:
        print(_words(foreign), file=sys.stderr)
        sys.exit(REFUSED)
