"""Mesh files: read through trimesh, written as PLY (trimesh), OBJ, GLB, USDZ. Frame and scale of the scene are kept.

GLB and USD viewers take y as up: a mesh whose scene has another up carries a node that turns it, and its vertices stay
as they are. PLY and OBJ say it in a comment.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scene3d.core.errors import FormatError, OutputError
from scene3d.core.mesh import Mesh
from scene3d.io.atomic import write_all, write_bytes
from scene3d.io.binary import TRUNCATED, load_bytes
from scene3d.io.glb import UPRIGHT_NODE, glb_bytes, jpeg_bytes
from scene3d.io.gltf_buffers import open_gltf
from scene3d.io.json_fields import JsonObject
from scene3d.io.mesh_up import axis_comment
from scene3d.io.usdz import usdz_bytes
from scene3d.io.zip_files import check_plain_name

# World direction that is up, where it is known.
Up = tuple[float, float, float] | None

READABLE = (".ply", ".obj", ".glb", ".gltf", ".stl", ".off")

# Formats that read_mesh takes.
MESH_SUFFIXES = (".glb", ".gltf", ".ply", ".obj", ".stl", ".off")
# A PLY tells its elements in its first bytes.
PLY_HEAD_BYTES = 65536


def has_triangles(path: Path) -> bool:
    """Whether a file of one of MESH_SUFFIXES may hold a mesh, judged by what is quickly seen."""
    if path.suffix.lower() != ".ply":
        return True
    with path.open("rb") as file:
        head = file.read(PLY_HEAD_BYTES).partition(b"end_header")[0]
    return b"element face" in head


def read_mesh(path: Path) -> Mesh:
    """Read the triangles of a mesh file, with vertex colours or texture where there are some.

    Raises:
        FormatError: the file cannot be read as a mesh.
    """
    import trimesh

    suffix = path.suffix.lower()
    if suffix not in READABLE:
        # trimesh knows more, archives among it, which may lead anywhere.
        raise FormatError(path, f"unknown mesh format {path.suffix!r}", remedy=f"Known are {', '.join(READABLE)}.")
    size = len(load_bytes(path))
    if suffix in (".glb", ".gltf"):
        _check_gltf(path, size)
    try:
        loaded: Any = _merged(trimesh.load_scene(path, process=False))
        faces = getattr(loaded, "faces", None)
        mesh = None if faces is None or len(faces) == 0 else _from_trimesh(loaded, path)
    except FormatError:
        raise
    except Exception as error:
        # Readers of many formats behind one call: whatever they raise, the file is not what its name promises.
        raise FormatError(path, f"cannot be read as a mesh: {error}") from error
    if mesh is None:
        raise FormatError(path, "expected a mesh with faces, got none", remedy="Is it a splat file? Use scene3d mesh.")
    return mesh


def write_mesh(mesh: Mesh, path: Path, up: Up = None, double_sided: bool = True) -> None:
    """Write a mesh in the format that the suffix names.

    Args:
        mesh: What to write.
        path: .glb, .ply, .obj (with .mtl and texture beside it) or .usdz.
        up: World direction that is up: a .glb and a .usdz stand upright in viewers, a .ply and an .obj note it.
        double_sided: Whether viewers are to show the backs of faces; .obj and .ply cannot say it.

    Raises:
        OutputError: the suffix is unknown or the file cannot be written.
    """
    check_mesh_suffix(path)
    WRITERS[path.suffix.lower()](mesh, path, up, double_sided)


def check_mesh_suffix(path: Path) -> None:
    """Check, before any work is done for it, that write_mesh knows the format of `path`.

    Raises:
        OutputError: it does not.
    """
    if path.suffix.lower() not in WRITERS:
        raise OutputError(path, f"unknown mesh format {path.suffix!r}", f"Choose one of {', '.join(WRITERS)}.")


def upright(up: Up) -> np.ndarray:
    """The rotation that turns `up` to +y, what GLB and USD viewers take as up; the identity where up is not known."""
    result = np.eye(4)
    if up is None or not np.linalg.norm(up) > 0:
        return result
    a, b = np.asarray(up, np.float64) / np.linalg.norm(up), np.array([0.0, 1.0, 0.0])
    axis, cosine = np.cross(a, b), float(a @ b)
    if cosine < -1 + 1e-9:
        result[:3, :3] = np.diag([1.0, -1.0, -1.0])
        return result
    skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    result[:3, :3] = np.eye(3) + skew + skew @ skew / (1 + cosine)
    return result


def _write_glb(mesh: Mesh, path: Path, up: Up, double_sided: bool) -> None:
    write_bytes(path, glb_bytes(mesh, upright(up), double_sided))


def _write_ply(mesh: Mesh, path: Path, up: Up, double_sided: bool) -> None:
    import trimesh

    shape: Any = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    if mesh.normals is not None:
        shape.vertex_normals = mesh.normals.numpy()
    if mesh.colors is not None:
        shape.visual = trimesh.visual.ColorVisuals(shape, vertex_colors=_rgba(mesh.colors))
    data: Any = shape.export(file_type="ply", vertex_normal=mesh.normals is not None)
    if up is not None:
        head, form, rest = data.split(b"\n", 2)
        data = b"\n".join([head, form, axis_comment(".ply", up).encode(), rest])
    write_bytes(path, data)


def _write_obj(mesh: Mesh, path: Path, up: Up, double_sided: bool) -> None:
    lines = [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in mesh.vertices.tolist()]
    if mesh.colors is not None and mesh.texture is None:
        colors = (mesh.colors.double() / 255).tolist()
        lines = [f"{line} {r:.4g} {g:.4g} {b:.4g}" for line, (r, g, b) in zip(lines, colors, strict=True)]
    if mesh.normals is not None:
        lines += [f"vn {x:.5g} {y:.5g} {z:.5g}" for x, y, z in mesh.normals.tolist()]
    has_texture = mesh.uvs is not None and mesh.texture is not None
    head = ["# scene3d"] if up is None else ["# scene3d", axis_comment(".obj", up)]
    if has_texture:
        assert mesh.uvs is not None
        lines += [f"vt {u:.7g} {v:.7g}" for u, v in mesh.uvs.tolist()]
        head += [f"mtllib {path.stem}.mtl", "usemtl surface"]
    corner = _obj_corner(has_texture, mesh.normals is not None)
    lines += [f"f {corner(a)} {corner(b)} {corner(c)}" for a, b, c in (mesh.faces + 1).tolist()]
    files = {}
    if has_texture:
        assert mesh.texture is not None
        image = path.with_name(f"{path.stem}_texture.jpg")
        material = f"newmtl surface\nKd 1 1 1\nKs 0 0 0\nmap_Kd {image.name}\n"
        files = {image: jpeg_bytes(mesh.texture), path.with_suffix(".mtl"): material.encode()}
    write_all({**files, path: ("\n".join([*head, *lines]) + "\n").encode()})


def _obj_corner(has_uv: bool, has_normal: bool) -> Callable[[int], str]:
    if has_uv and has_normal:
        return lambda i: f"{i}/{i}/{i}"
    if has_normal:
        return lambda i: f"{i}//{i}"
    return (lambda i: f"{i}/{i}") if has_uv else str


def _write_usdz(mesh: Mesh, path: Path, up: Up, double_sided: bool) -> None:
    write_bytes(path, usdz_bytes(mesh, upright(up), double_sided))


def _check_gltf(path: Path, size: int) -> None:
    """Check what trimesh takes on trust: how many numbers a file promises, and which files it names.

    Raises:
        FormatError: more numbers than bytes, or a file elsewhere.
    """
    document = open_gltf(path).json
    for place in ("buffers", "images"):
        for entry in document.items(place):
            uri = JsonObject(path, place, entry).text("uri")
            if uri and not uri.startswith("data:"):
                check_plain_name(path, uri)
                size += len(load_bytes(path.parent / uri))
    for entry in document.items("accessors"):
        count = JsonObject(path, "accessors", entry).integer("count", 0, 2**32)
        if count > size:
            raise FormatError(path, f"accessors: {count} entries do not fit into {size} bytes", remedy=TRUNCATED)


def _merged(scene: Any) -> Any:
    """All of a file as one mesh, in the frame in which it was written."""
    nodes = scene.graph.nodes_geometry
    if list(nodes) == [UPRIGHT_NODE]:
        return next(iter(scene.geometry.values()))
    return scene.to_mesh()


def _from_trimesh(loaded: Any, path: Path) -> Mesh:
    vertices = torch.from_numpy(np.ascontiguousarray(loaded.vertices, dtype=np.float32))
    faces = torch.from_numpy(np.ascontiguousarray(loaded.faces, dtype=np.int64))
    if int(faces.min()) < 0 or int(faces.max()) >= len(vertices):
        raise FormatError(path, f"expected corner indices below {len(vertices)}, got {int(faces.max())}")
    if not bool(vertices[faces.unique()].isfinite().all()):
        raise FormatError(path, "expected finite vertices")
    colors = _colors_of(loaded.visual, is_linear=path.suffix.lower() in (".glb", ".gltf"))
    texture = _texture_of(loaded.visual)
    if texture is not None:
        uvs = torch.from_numpy(np.ascontiguousarray(loaded.visual.uv, dtype=np.float32))
        return Mesh(vertices, faces, colors=colors, uvs=uvs, texture=texture)
    return Mesh(vertices, faces, colors=colors)


def _colors_of(visual: Any, is_linear: bool) -> Tensor | None:
    given = visual.vertex_colors if visual.kind == "vertex" else getattr(visual, "vertex_attributes", {}).get("color")
    if given is None:
        return None
    values = np.asarray(given)[:, :3]
    share = values / np.iinfo(values.dtype).max if np.issubdtype(values.dtype, np.integer) else values.clip(0, 1)
    if is_linear:
        share = np.where(share <= 0.0031308, 12.92 * share, 1.055 * share ** (1 / 2.4) - 0.055)
    return torch.from_numpy(np.round(share * 255).astype(np.uint8))


def _texture_of(visual: Any) -> Tensor | None:
    if visual.kind != "texture" or getattr(visual, "uv", None) is None:
        return None
    image = getattr(visual.material, "baseColorTexture", None) or getattr(visual.material, "image", None)
    return None if image is None else torch.from_numpy(np.array(image.convert("RGB")))


def _rgba(colors: Tensor) -> np.ndarray:
    return np.concatenate([colors.numpy(), np.full((len(colors), 1), 255, np.uint8)], axis=1)


WRITERS: dict[str, Callable[[Mesh, Path, Up, bool], None]] = {
    ".glb": _write_glb,
    ".ply": _write_ply,
    ".obj": _write_obj,
    ".usdz": _write_usdz,
}
