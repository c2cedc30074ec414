"""Scene formats by suffix: one table of readers, one of writers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from scene3d.core.errors import FormatError, OutputError
from scene3d.core.scene import Scene
from scene3d.io.capabilities import losses
from scene3d.io.compressed_ply import read_compressed_ply, write_compressed_ply
from scene3d.io.gltf import read_gltf, write_glb, write_spz_glb
from scene3d.io.ksplat import read_ksplat
from scene3d.io.ply import read_ply, write_ply
from scene3d.io.s3d import read_s3d, write_s3d
from scene3d.io.sog import read_sog, write_sog
from scene3d.io.sog_files import named_files
from scene3d.io.sog_lod import LOD_META, read_streamed_sog, streamed_files
from scene3d.io.splat import read_splat, write_splat
from scene3d.io.spz import read_spz, write_spz
from scene3d.io.usd import read_usd, write_usd

log = logging.getLogger(__name__)

# Longer suffixes first: .compressed.ply is no plain .ply, .spz.glb no plain .glb, lod-meta.json no meta.json.
READERS: dict[str, Callable[[Path], Scene]] = {
    ".compressed.ply": read_compressed_ply,
    ".ply": read_ply,
    ".splat": read_splat,
    ".s3d": read_s3d,
    ".sog": read_sog,
    LOD_META: lambda path: read_streamed_sog(path, read_sog),
    "meta.json": read_sog,
    ".spz": read_spz,
    ".ksplat": read_ksplat,
    ".glb": read_gltf,
    ".gltf": read_gltf,
    ".usdc": read_usd,
    ".usda": read_usd,
    ".usdz": read_usd,
    ".usd": read_usd,
}
WRITERS: dict[str, Callable[[Scene, Path], None]] = {
    ".compressed.ply": write_compressed_ply,
    ".ply": write_ply,
    ".splat": write_splat,
    ".s3d": write_s3d,
    ".sog": write_sog,
    "meta.json": write_sog,
    ".spz": write_spz,
    ".spz.glb": write_spz_glb,
    ".glb": write_glb,
    ".usdc": write_usd,
    ".usda": write_usd,
    ".usd": write_usd,
}


# Scene files of a fit: of Gaussians, of a radiance field.
SPLATS_FILE, FIELD_FILE = "scene.ply", "scene.s3d"


def scene_file(folder: Path) -> Path:
    """The scene in the folder of a fit; where there is none, the place where Gaussians would be."""
    field = folder / FIELD_FILE
    return field if field.is_file() and not (folder / SPLATS_FILE).is_file() else folder / SPLATS_FILE


def read_scene(path: Path) -> Scene:
    """Read a scene in the format that its suffix names.

    Raises:
        FormatError: the suffix is unknown or the file does not hold what it promises.
    """
    suffix = _suffix(path, READERS)
    if suffix is None:
        remedy = f"Scenes can be read from {', '.join(READERS)}."
        raise FormatError(path, f"unknown scene format {path.suffix!r}", remedy=remedy)
    return READERS[suffix](path)


def write_scene(scene: Scene, path: Path) -> None:
    """Write a scene in the format that the suffix of `path` names; warn of what that format has no place for.

    Raises:
        OutputError: the suffix is unknown or the file cannot be written.
    """
    check_scene_suffix(path)
    suffix = _suffix(path, WRITERS)
    assert suffix is not None
    for loss in losses(scene, path):
        log.warning("%s: %s cannot hold %s", path, suffix, loss)
    WRITERS[suffix](scene, path)


def check_scene_suffix(path: Path) -> None:
    """Check, before any work is done for it, that write_scene knows the format of `path`.

    Raises:
        OutputError: it does not.
    """
    if _suffix(path, WRITERS) is None:
        raise OutputError(path, f"unknown scene format {path.suffix!r}", f"Choose one of {', '.join(WRITERS)}.")


def scene_size(path: Path) -> int:
    """Bytes of a scene on the disk; of loose files all that its meta.json names."""
    if not path.name.lower().endswith("meta.json"):
        return path.stat().st_size
    if path.name.lower().endswith(LOD_META):
        return path.stat().st_size + sum(map(scene_size, streamed_files(path)))
    return path.stat().st_size + sum((path.parent / name).stat().st_size for name in named_files(path))


def is_scene_file(path: Path) -> bool:
    """Whether the name of `path` is that of a scene format, so that read_scene can try it."""
    return _suffix(path, READERS) is not None


def _suffix(path: Path, table: dict) -> str | None:
    found = next((suffix for suffix in table if path.name.lower().endswith(suffix)), None)
    # lod-meta.json is no meta.json of one SOG.
    is_streamed = path.name.lower().endswith(LOD_META) and LOD_META not in table
    return None if is_streamed else found
