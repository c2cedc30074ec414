"""USDZ: one mesh as USD text with its texture, in an uncompressed zip whose files begin at multiples of 64 bytes."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np

from scene3d.core.mesh import Mesh
from scene3d.io.glb import jpeg_bytes

ALIGNMENT = 64
LOCAL_HEADER_BYTES = 30
# Zip files know no year before 1980; a fixed date keeps the bytes the same for the same mesh.
DATE = (1980, 1, 1, 0, 0, 0)


def usdz_bytes(mesh: Mesh, transform: np.ndarray, double_sided: bool = True) -> bytes:
    """A whole .usdz file.

    Args:
        mesh: With texture, vertex colours or neither.
        transform: Of the mesh in a scene with y up, acting on columns. [4, 4]
        double_sided: Whether the backs of faces are seen.
    """
    has_texture = mesh.uvs is not None and mesh.texture is not None
    files = [("mesh.usda", _usda(mesh, transform, has_texture, double_sided).encode())]
    if has_texture:
        assert mesh.texture is not None
        files.append(("texture.jpg", jpeg_bytes(mesh.texture)))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files:
            info = zipfile.ZipInfo(name, DATE)
            start = out.tell() + LOCAL_HEADER_BYTES + len(name)
            # An extra field is at least its own 4 bytes of header.
            padding = (-start - 4) % ALIGNMENT
            info.extra = struct.pack("<HH", 0x1986, padding) + b"\0" * padding
            archive.writestr(info, data)
    return out.getvalue()


def _usda(mesh: Mesh, transform: np.ndarray, has_texture: bool, double_sided: bool) -> str:
    low, high = mesh.vertices.amin(dim=0).tolist(), mesh.vertices.amax(dim=0).tolist()
    counts = ", ".join(["3"] * mesh.n_faces)
    # USD multiplies rows from the left.
    matrix = "( " + ", ".join(_tuple(row) for row in transform.T.tolist()) + " )"
    lines = [
        "#usda 1.0",
        '(\n    defaultPrim = "Root"\n    metersPerUnit = 1\n    upAxis = "Y"\n)',
        'def Xform "Root"\n{',
        f"    matrix4d xformOp:transform = {matrix}",
        '    uniform token[] xformOpOrder = ["xformOp:transform"]',
        '    def Mesh "Surface" (\n        prepend apiSchemas = ["MaterialBindingAPI"]\n    )\n    {',
        f"        uniform bool doubleSided = {int(double_sided)}",
        '        uniform token subdivisionScheme = "none"',
        f"        float3[] extent = [{_tuple(low)}, {_tuple(high)}]",
        f"        int[] faceVertexCounts = [{counts}]",
        f"        int[] faceVertexIndices = [{', '.join(str(i) for i in mesh.faces.reshape(-1).tolist())}]",
        f"        point3f[] points = [{_tuples(mesh.vertices.tolist())}]",
    ]
    if mesh.normals is not None:
        lines.append(f'        normal3f[] normals = [{_tuples(mesh.normals.tolist())}] (interpolation = "vertex")')
    if has_texture:
        assert mesh.uvs is not None
        values = _tuples(mesh.uvs.tolist())
        lines.append(f'        texCoord2f[] primvars:st = [{values}] (interpolation = "vertex")')
        lines.append("        rel material:binding = </Root/Material>")
    elif mesh.colors is not None:
        # Display colours are linear light, ours are sRGB.
        linear = _linear(mesh.colors.numpy().astype(np.float64) / 255)
        lines.append(
            f'        color3f[] primvars:displayColor = [{_tuples(linear.tolist())}] (interpolation = "vertex")'
        )
    lines += ["    }", *(_MATERIAL if has_texture else ()), "}"]
    return "\n".join(lines) + "\n"


_MATERIAL = (
    '    def Material "Material"\n    {',
    "        token outputs:surface.connect = </Root/Material/Shader.outputs:surface>",
    '        def Shader "Shader"\n        {',
    '            uniform token info:id = "UsdPreviewSurface"',
    "            color3f inputs:diffuseColor.connect = </Root/Material/Texture.outputs:rgb>",
    "            float inputs:roughness = 1",
    "            float inputs:metallic = 0",
    "            token outputs:surface\n        }",
    '        def Shader "Reader"\n        {',
    '            uniform token info:id = "UsdPrimvarReader_float2"',
    '            string inputs:varname = "st"',
    "            float2 outputs:result\n        }",
    '        def Shader "Texture"\n        {',
    '            uniform token info:id = "UsdUVTexture"',
    "            asset inputs:file = @texture.jpg@",
    '            token inputs:sourceColorSpace = "sRGB"',
    "            float2 inputs:st.connect = </Root/Material/Reader.outputs:result>",
    "            float3 outputs:rgb\n        }\n    }",
)


def _linear(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _tuple(values: list[float]) -> str:
    return f"({', '.join(f'{v:.7g}' for v in values)})"


def _tuples(rows: list[list[float]]) -> str:
    return ", ".join(_tuple(row) for row in rows)
