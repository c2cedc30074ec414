"""Which way is up in a mesh file: as the file says, else as files of its format are usually made.

scene3d leaves the vertices of a mesh in the frame of its scene. A GLB says which way is up by the node that turns it, a
PLY or OBJ by a comment: Vertical axis: 0.0 -1.0 0.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scene3d.io.glb import UPRIGHT_NODE
from scene3d.io.gltf_buffers import open_gltf
from scene3d.io.json_fields import JsonObject
from scene3d.io.scene_facts import parse_axis

# glTF demands y. Modellers export OBJ with y up; scanners, printers and CAD take z.
Y, Z = (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
USUAL = {".glb": Y, ".gltf": Y, ".obj": Y, ".ply": Z, ".stl": Z, ".off": Z}
COMMENTS = {".ply": "comment ", ".obj": "# "}
AXIS = "Vertical axis: "
HEAD_BYTES = 4096


@dataclass(frozen=True)
class MeshUp:
    """World direction that is up.

    Attributes:
        direction: In the frame in which read_mesh gives the vertices; unit, or as the file says.
        is_said: By the file; else it is only usual.
    """

    direction: tuple[float, float, float]
    is_said: bool


def mesh_up(path: Path) -> MeshUp:
    """Which way is up in a file that read_mesh can read."""
    suffix = path.suffix.lower()
    if suffix in (".glb", ".gltf"):
        return MeshUp(_gltf_up(path), True)
    found = _comment_up(path, COMMENTS[suffix]) if suffix in COMMENTS else None
    return MeshUp(USUAL.get(suffix, Z) if found is None else found, found is not None)


def axis_comment(suffix: str, up: tuple[float, float, float]) -> str:
    """The line of a PLY or OBJ that says which way is up, without its end."""
    return COMMENTS[suffix] + AXIS + " ".join(repr(float(value)) for value in up)


def _comment_up(path: Path, mark: str) -> tuple[float, float, float] | None:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    for line in head.decode("ascii", errors="replace").splitlines():
        if line.startswith(mark + AXIS):
            return parse_axis(line[len(mark + AXIS) :])
        if line == "end_header":
            break
    return None


def _gltf_up(path: Path) -> tuple[float, float, float]:
    """y, but where read_mesh leaves out the node that turns the mesh: what that turns to y."""
    nodes = [JsonObject(path, "nodes", node) for node in open_gltf(path).json.items("nodes")]
    shown = [node for node in nodes if node.has("mesh")]
    if len(shown) != 1 or shown[0].text("name") != UPRIGHT_NODE or not shown[0].has("matrix"):
        return Y
    # Rotations are undone by their transpose: the second row.
    row = np.array(shown[0].numbers("matrix", 16)).reshape(4, 4).T[1, :3]
    x, y, z = (float(value) for value in row + 0.0)
    return (x, y, z) if np.isfinite(row).all() and row.any() else Y
