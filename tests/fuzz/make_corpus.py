"""Write the sound files that are damaged in fuzzing: small, of every format and version, by our own writers.

    PYTHONPATH=tests python tests/fuzz/make_corpus.py

What is there stays as it is: old files show that readers still read what earlier versions wrote.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from captures import ring_cameras, write_colmap_capture, write_photos, write_transforms_capture
from format_files import small_scene, v1_sog_files, write_file

from scene3d.core.mesh import Mesh
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.atomic import write_text
from scene3d.io.camera_path import camera_path_json, cameras_json
from scene3d.io.mesh_files import write_mesh
from scene3d.io.ply import write_points_ply
from scene3d.io.registry import write_scene

CORPUS = Path(__file__).resolve().parent / "corpus"
N = 6
WRITTEN = ("a.ply", "a.compressed.ply", "a.splat", "a.sog", "a.spz", "a.glb", "a.spz.glb", "a.usdc", "a.usda")
READ_ONLY = ("v2.spz", "v3.spz", "mode0.ksplat", "mode1.ksplat", "mode2.ksplat")
INFO = SceneInfo(True, (0.0, 0.0, 1.0), "a source", "a maker", ("a note",))


def main() -> None:
    """Make what is missing."""
    scene = small_scene(N, 1, INFO)
    for name in (*WRITTEN, *READ_ONLY):
        make(name, lambda folder, name=name: write_file(folder, name, scene))
    make("loose", lambda folder: write_scene(scene, folder / "meta.json"))
    make("streamed", lambda folder: streamed(folder, scene))
    make("loose_v1", v1_sog_files)
    make("ascii.ply", lambda folder: ascii_ply(folder, scene))
    make("gltf", lambda folder: loose_gltf(folder, scene))
    make("colmap_bin", lambda folder: write_colmap_capture(folder, 2))
    make("colmap_txt", lambda folder: write_colmap_capture(folder, 2, text=True))
    make("transforms", transforms)
    make("blender", blender)
    make("cameras_list", lambda folder: write_text(folder / "cameras.json", cameras_json(ring_cameras(2))))
    make("cameras_path", lambda folder: write_text(folder / "p.json", camera_path_json(ring_cameras(2), 24.0)))
    make("points", lambda folder: write_points_ply(torch.rand(5, 3), torch.zeros(5, 3).byte(), folder / "a.ply"))
    for suffix in ("ply", "glb", "obj"):
        make(f"mesh_{suffix}", lambda folder, suffix=suffix: write_mesh(tetrahedron(), folder / f"a.{suffix}"))


def make(name: str, write: Callable[[Path], object]) -> None:
    if not (CORPUS / name).exists():
        (CORPUS / name).mkdir(parents=True)
        write(CORPUS / name)


def streamed(folder: Path, scene: Scene) -> None:
    """Two leaves of one chunk, the second with a coarser level that is not read."""
    write_scene(scene, folder / "0_0" / "meta.json")
    bound = {"min": [-9, -9, -9], "max": [9, 9, 9]}
    levels = ({"0": (0, 4)}, {"0": (4, 2), "1": (0, 1)})
    leaves = [
        {"bound": bound, "lods": {key: {"file": 0, "offset": a, "count": n} for key, (a, n) in level.items()}}
        for level in levels
    ]
    meta = {"version": 1, "lodLevels": 2, "filenames": ["0_0/meta.json"]}
    write_text(folder / "lod-meta.json", json.dumps(meta | {"tree": {"bound": bound, "children": leaves}}))


def ascii_ply(folder: Path, scene: Scene) -> None:
    """The .ply of a scene as text."""
    data = (CORPUS / "a.ply" / "a.ply").read_bytes()
    head, _, body = data.partition(b"end_header\n")
    rows = np.frombuffer(body, "<f4").reshape(len(scene.splats()), -1)
    text = "\n".join(" ".join(f"{value:g}" for value in row) for row in rows.tolist())
    write_text(folder / "a.ply", head.decode().replace("binary_little_endian", "ascii") + f"end_header\n{text}\n")


def loose_gltf(folder: Path, scene: Scene) -> None:
    """The .glb of a scene as text, its buffer in base64."""
    data = (CORPUS / "a.glb" / "a.glb").read_bytes()
    (size,) = struct.unpack_from("<I", data, 12)
    document = json.loads(data[20 : 20 + size])
    blob = base64.b64encode(data[28 + size :]).decode()
    document["buffers"] = [{"byteLength": len(data) - 28 - size, "uri": f"data:application/octet-stream;base64,{blob}"}]
    write_text(folder / "a.gltf", json.dumps(document))


def transforms(folder: Path) -> None:
    """With points beside it."""
    write_transforms_capture(folder, 2)
    write_points_ply(torch.rand(5, 3), torch.zeros(5, 3).byte(), folder / "sparse_pc.ply")
    data = json.loads((folder / "transforms.json").read_text())
    write_text(folder / "transforms.json", json.dumps(data | {"ply_file_path": "sparse_pc.ply", "k1": 0.01, "p1": 0.0}))


def blender(folder: Path) -> None:
    """As the NeRF synthetic scenes."""
    cameras = ring_cameras(4)
    world_from_cam = (torch.linalg.inv(cameras.viewmats) @ torch.diag(torch.tensor([1.0, -1, -1, 1]).double())).tolist()
    for split, first in (("train", 0), ("test", 2)):
        names = [f"{split}/r_{i}" for i in range(2)]
        write_photos(folder, tuple(f"{name}.png" for name in names))
        frames = [
            {"file_path": f"./{name}", "transform_matrix": world_from_cam[first + i]} for i, name in enumerate(names)
        ]
        write_text(folder / f"transforms_{split}.json", json.dumps({"camera_angle_x": 0.7, "frames": frames}))


def tetrahedron() -> Mesh:
    """With colours."""
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    return Mesh(vertices, faces, colors=torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]).byte())


if __name__ == "__main__":
    main()
