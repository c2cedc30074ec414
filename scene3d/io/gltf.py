"""Gaussians in glTF 2.0: .glb and .gltf with KHR_gaussian_splatting, plain or with its SPZ compression.

A primitive of points with attributes POSITION, ROTATION (xyzw), SCALE, OPACITY (both activated) and SH_DEGREE_l_COEF_m.
Coordinates are written as they are; on reading, the transforms of nodes are applied. With the extension
KHR_gaussian_splatting_compression_spz_2 the numbers stand in an SPZ blob instead. Facts about the scene stand in
asset.extras.scene3d.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scene3d.core.errors import FormatError
from scene3d.core.gaussians import Gaussians, cat
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.atomic import write_bytes
from scene3d.io.finite import keep_finite, lossy_ready
from scene3d.io.gltf_buffers import FLOAT, GLB_BIN, GLB_JSON, GLB_MAGIC, GltfFile, open_gltf
from scene3d.io.gltf_nodes import placed_meshes
from scene3d.io.json_fields import JsonObject
from scene3d.io.scene_facts import facts_from_info, info_from_facts
from scene3d.io.spz import decode_spz, encode_spz
from scene3d.ops.rigid import transform_gaussians

SPLATTING = "KHR_gaussian_splatting"
SPZ = "KHR_gaussian_splatting_compression_spz_2"
TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
POINTS = 0
FREE_ROWS = 2**18


def read_gltf(path: Path) -> Scene:
    """Read all Gaussians of the file's scene, moved to where its nodes put them.

    Raises:
        FormatError: the file is no glTF, is damaged, holds no Gaussians, or needs an extension that is unknown here.
    """
    file = open_gltf(path)
    unknown = [name for name in file.json.items("extensionsRequired") if name not in (SPLATTING, SPZ)]
    if unknown:
        raise FormatError(path, f"needs the extensions {', '.join(map(str, unknown))}, which are unknown here")
    parts: list[Gaussians] = []
    for mesh, world_from_mesh in placed_meshes(file):
        for data in mesh.items("primitives"):
            primitive = JsonObject(path, f"{mesh.where}.primitives", data)
            if primitive.has("extensions") and primitive.object("extensions").has(SPLATTING):
                part = _primitive(file, primitive)
                _check_total(file, sum(map(len, parts)) + len(part))
                parts.append(part if world_from_mesh is None else transform_gaussians(part, world_from_mesh))
    if not parts:
        raise FormatError(path, f"holds no primitive with {SPLATTING}", remedy="A mesh is no scene of Gaussians.")
    return Scene(keep_finite(cat(parts), path), _info(file.json))


def write_glb(scene: Scene, path: Path) -> None:
    """Write float32 attributes; the activated scales and opacities come back to about seven digits.

    Raises:
        OutputError: path cannot be written.
    """
    gaussians = lossy_ready(scene.splats(), path)
    columns = {
        "POSITION": gaussians.means,
        f"{SPLATTING}:ROTATION": torch.nn.functional.normalize(gaussians.quats, dim=1)[:, [1, 2, 3, 0]],
        f"{SPLATTING}:SCALE": gaussians.scales,
        f"{SPLATTING}:OPACITY": gaussians.opacities[:, None],
        f"{SPLATTING}:SH_DEGREE_0_COEF_0": gaussians.sh0[:, 0],
    }
    for degree in range(1, gaussians.sh_degree + 1):
        for m in range(2 * degree + 1):
            columns[f"{SPLATTING}:SH_DEGREE_{degree}_COEF_{m}"] = gaussians.shN[:, degree**2 - 1 + m]
    blobs: list[bytes] = []
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    for values in columns.values():
        layout = {"componentType": FLOAT, "count": len(values), "type": TYPES[values.shape[1]]}
        bounds = {"min": values.amin(dim=0).tolist(), "max": values.amax(dim=0).tolist()} if len(values) else {}
        # Bounds are required of positions only.
        accessors.append({"bufferView": len(views), **layout, **({} if views else bounds)})
        blob = values.contiguous().numpy().astype("<f4").tobytes()
        views.append({"buffer": 0, "byteOffset": sum(len(other) for other in blobs), "byteLength": len(blob)})
        blobs.append(blob)
    primitive = {"attributes": {name: i for i, name in enumerate(columns)}, "mode": POINTS}
    document = _document(scene.info, primitive, {}, views) | {"accessors": accessors}
    write_bytes(path, _glb(document, b"".join(blobs)))


def write_spz_glb(scene: Scene, path: Path) -> None:
    """Write the SPZ compression of the extension: version 2, about a tenth of the size.

    Raises:
        OutputError: path cannot be written.
    """
    blob = encode_spz(scene, path, version=2)
    views = [{"buffer": 0, "byteOffset": 0, "byteLength": len(blob)}]
    compression = {"extensions": {SPZ: {"bufferView": 0}}}
    document = _document(scene.info, {"attributes": {}, "mode": POINTS}, compression, views)
    document["extensionsUsed"] = document["extensionsRequired"] = [SPLATTING, SPZ]
    write_bytes(path, _glb(document, blob))


def _document(info: SceneInfo, primitive: dict[str, Any], inner: dict[str, Any], views: list[Any]) -> dict[str, Any]:
    splatting = {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "sortingMethod": "cameraDistance",
        "projection": "perspective",
    }
    asset: dict[str, Any] = {"version": "2.0", "generator": info.made_by or "scene3d"}
    facts = facts_from_info(info)
    if facts:
        asset["extras"] = {"scene3d": facts}
    size = sum(view["byteLength"] for view in views)
    document: dict[str, Any] = {
        "asset": asset,
        "extensionsUsed": [SPLATTING],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{**primitive, "extensions": {SPLATTING: {**splatting, **inner}}}]}],
    }
    # Views and buffers of no bytes are not allowed.
    return document if size == 0 else {**document, "buffers": [{"byteLength": size}], "bufferViews": views}


def _glb(document: dict[str, Any], blob: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    blob += b"\0" * (-len(blob) % 4)
    chunks = struct.pack("<II", len(text), GLB_JSON) + text
    if blob:
        chunks += struct.pack("<II", len(blob), GLB_BIN) + blob
    return struct.pack("<III", GLB_MAGIC, 2, 12 + len(chunks)) + chunks


def _primitive(file: GltfFile, primitive: JsonObject) -> Gaussians:
    splatting = primitive.object("extensions").object(SPLATTING)
    if splatting.has("extensions"):
        extensions = splatting.object("extensions")
        if not extensions.has(SPZ):
            names = ", ".join(extensions.data)
            raise FormatError(file.path, f"{extensions.where}: expected {SPZ}, got {names}, which is unknown here")
        return decode_spz(file.path, file.view(extensions.object(SPZ).integer("bufferView", 0, 10**6))).splats()
    attributes = primitive.object("attributes")

    def column(name: str, n_columns: int) -> Tensor:
        key = name if name == "POSITION" else f"{SPLATTING}:{name}"
        return torch.from_numpy(file.accessor(attributes.integer(key, 0, 10**6), n_columns))

    degree = max((d for d in range(4) if attributes.has(f"{SPLATTING}:SH_DEGREE_{d}_COEF_0")), default=0)
    means, opacities = column("POSITION", 3), column("OPACITY", 1)[:, 0]
    rest = [column(f"SH_DEGREE_{d}_COEF_{m}", 3) for d in range(1, degree + 1) for m in range(2 * d + 1)]
    found = [means, column("ROTATION", 4), column("SCALE", 3), opacities, column("SH_DEGREE_0_COEF_0", 3), *rest]
    if any(len(values) != len(means) for values in found):
        counts = sorted({len(values) for values in found})
        raise FormatError(file.path, f"{attributes.where}: expected attributes of one count, got {counts}")
    return Gaussians(
        means=means,
        quats=found[1][:, [3, 0, 1, 2]].contiguous(),
        log_scales=found[2].log(),
        opacity_logits=opacities.logit(),
        sh0=found[4][:, None, :],
        shN=torch.stack(rest, dim=1) if rest else torch.zeros(len(means), 0, 3),
    )


def _check_total(file: GltfFile, n_rows: int) -> None:
    # Many nodes may show one mesh; memory must still be in proportion to the file.
    if n_rows > FREE_ROWS + file.size_bytes():
        raise FormatError(file.path, f"shows {n_rows} Gaussians out of {file.size_bytes()} bytes, which is too much")


def _info(document: JsonObject) -> SceneInfo:
    asset = document.object("asset")
    made_by = asset.text("generator")
    if asset.has("extras") and isinstance(asset.data["extras"], dict) and "scene3d" in asset.data["extras"]:
        return info_from_facts(asset.object("extras").object("scene3d"), made_by)
    return SceneInfo(made_by=made_by)
