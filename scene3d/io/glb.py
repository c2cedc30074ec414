"""GLB: one mesh in binary glTF 2.0, its texture as JPEG of a quality chosen here."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from scene3d.core.mesh import Mesh

# A node of this name only turns the mesh upright for viewers: readers here take the vertices as they are.
UPRIGHT_NODE = "scene3d_upright"
JPEG_QUALITY = 92
FLOAT, UINT, USHORT = 5126, 5125, 5123
ARRAY_BUFFER, ELEMENT_BUFFER = 34962, 34963


def glb_bytes(mesh: Mesh, transform: np.ndarray, double_sided: bool = True) -> bytes:
    """A whole .glb file.

    Args:
        mesh: With texture, vertex colours or neither.
        transform: Of the mesh in a scene with y up, acting on columns. [4, 4]
        double_sided: Whether the backs of faces are seen.
    """
    parts = _Buffer()
    attributes = {"POSITION": parts.array(mesh.vertices.numpy(), "VEC3", FLOAT, ARRAY_BUFFER, has_bounds=True)}
    if mesh.normals is not None:
        attributes["NORMAL"] = parts.array(mesh.normals.numpy(), "VEC3", FLOAT, ARRAY_BUFFER)
    has_texture = mesh.uvs is not None and mesh.texture is not None
    material: dict[str, Any] = {
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
        "doubleSided": double_sided,
    }
    document: dict[str, Any] = {"materials": [material]}
    if has_texture:
        assert mesh.uvs is not None
        assert mesh.texture is not None
        # glTF counts v from the top.
        uvs = np.stack([mesh.uvs[:, 0].numpy(), 1 - mesh.uvs[:, 1].numpy()], axis=1)
        attributes["TEXCOORD_0"] = parts.array(uvs, "VEC2", FLOAT, ARRAY_BUFFER)
        material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}
        document["images"] = [{"bufferView": parts.view(jpeg_bytes(mesh.texture)), "mimeType": "image/jpeg"}]
        document["textures"] = [{"source": 0, "sampler": 0}]
        document["samplers"] = [{"magFilter": 9729, "minFilter": 9987}]
    elif mesh.colors is not None:
        attributes["COLOR_0"] = parts.array(_linear_rgba(mesh.colors), "VEC4", USHORT, ARRAY_BUFFER, is_normalized=True)
    indices = parts.array(mesh.faces.numpy().astype(np.uint32).reshape(-1), "SCALAR", UINT, ELEMENT_BUFFER)
    primitive = {"attributes": attributes, "indices": indices, "material": 0}
    document |= {
        "asset": {"version": "2.0", "generator": "scene3d"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": UPRIGHT_NODE, "mesh": 0, "matrix": transform.T.reshape(-1).tolist()}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": parts.accessors,
        "bufferViews": parts.views,
        "buffers": [{"byteLength": len(parts.data)}],
    }
    return _container(json.dumps(document, separators=(",", ":")).encode(), bytes(parts.data))


def jpeg_bytes(texture: Tensor) -> bytes:
    """A texture [H, W, 3] uint8 as JPEG with full colour resolution."""
    stream = io.BytesIO()
    Image.fromarray(texture.numpy()).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


class _Buffer:
    """The binary part, with the tables that describe it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        """Append bytes; the number of their view."""
        self.data += b"\0" * (-len(self.data) % 4)
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)}
        self.views.append(view if target is None else {**view, "target": target})
        self.data += data
        return len(self.views) - 1

    def array(
        self,
        values: np.ndarray,
        kind: str,
        component: int,
        target: int,
        has_bounds: bool = False,
        is_normalized: bool = False,
    ) -> int:
        """Append an array; the number of its accessor."""
        accessor: dict[str, Any] = {
            "bufferView": self.view(np.ascontiguousarray(values).tobytes(), target),
            "componentType": component,
            "count": len(values),
            "type": kind,
        }
        if has_bounds:
            accessor |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        if is_normalized:
            accessor["normalized"] = True
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def _container(text: bytes, data: bytes) -> bytes:
    text += b" " * (-len(text) % 4)
    data += b"\0" * (-len(data) % 4)
    length = 12 + 8 + len(text) + 8 + len(data)
    head = struct.pack("<4sII", b"glTF", 2, length)
    return head + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data


def _linear_rgba(colors: Tensor) -> np.ndarray:
    """glTF takes vertex colours as linear light; 8 bits of that would be too few for dark colours."""
    value = colors.numpy().astype(np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    rgb = np.round(linear * 65535).astype(np.uint16)
    return np.concatenate([rgb, np.full((len(rgb), 1), 65535, np.uint16)], axis=1)
