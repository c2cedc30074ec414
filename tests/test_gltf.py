"""glTF with Gaussians, plain and with SPZ inside."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from format_files import small_scene

from scene3d.core.errors import FormatError
from scene3d.core.scene import SceneInfo
from scene3d.io.registry import read_scene, write_scene
from scene3d.ops import quaternions
from scene3d.ops.rigid import Sim3, transform_gaussians


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    (size,) = struct.unpack_from("<I", data, 12)
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def as_gltf(path: Path, document: dict[str, Any], blob: bytes) -> Path:
    """The same as a .gltf with its buffer inside."""
    if "buffers" in document:
        uri = "data:application/octet-stream;base64," + base64.b64encode(blob).decode()
        document["buffers"] = [{"byteLength": len(blob), "uri": uri}]
    path = path.with_suffix(".gltf")
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("n", [0, 1, 50])
def test_a_round_trip_is_exact_but_for_activations(degree: int, n: int, tmp_path: Path) -> None:
    truth = small_scene(n, degree).payload
    write_scene(small_scene(n, degree), tmp_path / "a.glb")
    back = read_scene(tmp_path / "a.glb").payload
    for name in ("means", "sh0", "shN"):
        assert torch.equal(getattr(back, name), getattr(truth, name))
    torch.testing.assert_close(back.quats, quaternions.normalize(truth.quats), atol=1e-6, rtol=0)
    torch.testing.assert_close(back.log_scales, truth.log_scales, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(back.opacity_logits, truth.opacity_logits, atol=1e-4, rtol=1e-4)


def test_opaque_gaussians_stay_finite(tmp_path: Path) -> None:
    scene = small_scene(2)
    scene.payload.opacity_logits[:] = torch.tensor([60.0, -200.0])
    write_scene(scene, tmp_path / "a.glb")
    assert read_scene(tmp_path / "a.glb").payload.opacities.tolist() == pytest.approx([1, 0], abs=1e-6)


@pytest.mark.parametrize("name", ["a.glb", "a.spz.glb"])
def test_facts_survive(name: str, tmp_path: Path) -> None:
    info = SceneInfo(True, (0.0, 0.0, 1.0), "fox", "a trainer", ("a note",))
    write_scene(small_scene(5, info=info), tmp_path / name)
    assert read_scene(tmp_path / name).info == info


def test_the_document_says_what_the_extension_requires(tmp_path: Path) -> None:
    write_scene(small_scene(5, 1), tmp_path / "a.glb")
    document, blob = split(tmp_path / "a.glb")
    primitive = document["meshes"][0]["primitives"][0]
    assert document["extensionsUsed"] == ["KHR_gaussian_splatting"]
    assert primitive["mode"] == 0
    assert primitive["extensions"]["KHR_gaussian_splatting"]["kernel"] == "ellipse"
    assert primitive["extensions"]["KHR_gaussian_splatting"]["colorSpace"] == "srgb_rec709_display"
    assert set(document["accessors"][0]) >= {"min", "max"}
    assert all(view["byteOffset"] % 4 == 0 for view in document["bufferViews"])
    assert document["buffers"][0]["byteLength"] == len(blob)


def test_spz_inside_is_much_smaller(tmp_path: Path) -> None:
    write_scene(small_scene(1000, 3), tmp_path / "a.glb")
    write_scene(small_scene(1000, 3), tmp_path / "b.spz.glb")
    assert (tmp_path / "b.spz.glb").stat().st_size < 0.25 * (tmp_path / "a.glb").stat().st_size
    assert split(tmp_path / "b.spz.glb")[0]["extensionsRequired"] == [
        "KHR_gaussian_splatting",
        "KHR_gaussian_splatting_compression_spz_2",
    ]


def test_nodes_move_their_meshes(tmp_path: Path) -> None:
    truth = small_scene(10, 1).payload
    write_scene(small_scene(10, 1), tmp_path / "a.glb")
    document, blob = split(tmp_path / "a.glb")
    half = 0.5**0.5
    document["nodes"] = [
        {"children": [1], "translation": [1, 2, 3]},
        {"mesh": 0, "rotation": [half, 0, 0, half], "scale": [2, 2, 2]},
    ]
    back = read_scene(as_gltf(tmp_path / "a.glb", document, blob)).payload
    turn = quaternions.to_rotmat(torch.tensor([half, half, 0, 0], dtype=torch.float64))
    moved = transform_gaussians(truth, Sim3(turn, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), 2.0))
    torch.testing.assert_close(back.means, moved.means)
    torch.testing.assert_close(back.log_scales, moved.log_scales)
    torch.testing.assert_close(back.shN, moved.shN)


def test_normalized_shorts_are_read(tmp_path: Path) -> None:
    write_scene(small_scene(3, 0), tmp_path / "a.glb")
    document, blob = split(tmp_path / "a.glb")
    quats = np.array([[0, 0, 0, 32767], [32767, 0, 0, 0], [0, -32768, 0, 0]], "<i2")
    document["bufferViews"][1] = {"buffer": 0, "byteOffset": len(blob), "byteLength": 24, "byteStride": 8}
    document["accessors"][1].update(componentType=5122, normalized=True)
    back = read_scene(as_gltf(tmp_path / "a.glb", document, blob + quats.tobytes())).payload
    assert back.quats.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(meshes=[]), r"expected meshes with an entry 0, got 0 entries"),
        (lambda d: d["meshes"][0]["primitives"][0].pop("extensions"), "holds no primitive with KHR_gaussian_splatting"),
        (lambda d: d.update(extensionsRequired=["EXT_foo"]), "needs the extensions EXT_foo, which are unknown here"),
        (lambda d: d["nodes"][0].update(children=[0]), "expected a tree, but node 0 has two parents"),
        (lambda d: d["nodes"][0].update(scale=[1, 2, 1]), "expected a rotation, one scale and a translation"),
        (lambda d: d["nodes"][0].update(scale=[-1, 1, 1]), "expected a rotation, one scale and a translation"),
        (lambda d: d["accessors"][0].update(count=10**9), r"accessors\[0\]: 1000000000 rows do not fit into 60 bytes"),
        (lambda d: d["accessors"][0].update(type="VEC4"), "expected 3 columns, got 'VEC4'"),
        (lambda d: d["accessors"][0].update(componentType=5124), "expected plain bytes, shorts or floats"),
        (lambda d: d["accessors"][2].update(count=4), r"expected attributes of one count, got \[4, 5\]"),
        (lambda d: d["bufferViews"][0].update(byteOffset=10**15), r"bufferViews\[0\]: ends at"),
        (lambda d: d["bufferViews"][0].update(byteOffset=-4), r"bufferViews\[0\].byteOffset: expected a whole number"),
        (
            lambda d: d["buffers"][0].update(uri="../../secret.bin"),
            "expected a plain file name, got '../../secret.bin'",
        ),
        (lambda d: d["buffers"][0].update(uri="data:;base64,###"), "expected base64 data"),
        (lambda d: d["buffers"][0].pop("uri"), "has no uri and there is no binary chunk"),
    ],
)
def test_what_is_wrong_is_told(change, message: str, tmp_path: Path) -> None:
    write_scene(small_scene(5, 0), tmp_path / "a.glb")
    document, blob = split(tmp_path / "a.glb")
    path = as_gltf(tmp_path / "a.glb", document, blob)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(FormatError, match=message):
        read_scene(path)


def test_a_mesh_shown_a_thousand_times_is_refused(tmp_path: Path) -> None:
    write_scene(small_scene(400, 0), tmp_path / "a.glb")
    document, blob = split(tmp_path / "a.glb")
    document["nodes"] = [{"mesh": 0}] * 4000
    document["scenes"][0]["nodes"] = list(range(4000))
    with pytest.raises(FormatError, match=r"shows \d+ Gaussians out of \d+ bytes, which is too much"):
        read_scene(as_gltf(tmp_path / "a.glb", document, blob))
