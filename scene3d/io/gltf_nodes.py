"""The node tree of a glTF scene: which mesh stands where."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from scene3d.core.errors import FormatError
from scene3d.io.gltf_buffers import GltfFile
from scene3d.io.json_fields import JsonObject
from scene3d.io.similarity import similarity
from scene3d.ops import quaternions
from scene3d.ops.rigid import Sim3

MAX_NODES = 4096


def placed_meshes(file: GltfFile) -> Iterator[tuple[JsonObject, Sim3 | None]]:
    """Meshes of the file's scene and where they stand; None for those that are not moved.

    Raises:
        FormatError: a reference leads nowhere or in a circle, or a transform is no similarity.
    """
    if not file.json.items("scenes"):
        for i in range(len(file.json.items("meshes"))):
            yield file.entry("meshes", i), None
        return
    start = file.json.integer("scene", 0, MAX_NODES) if file.json.has("scene") else 0
    roots = file.entry("scenes", start).items("nodes", MAX_NODES)
    waiting = [(index, np.eye(4)) for index in reversed(roots)]
    seen: set[int] = set()
    while waiting:
        index, world_from_parent = waiting.pop()
        if isinstance(index, bool) or not isinstance(index, int) or len(seen) == MAX_NODES:
            raise FormatError(file.path, f"nodes: expected at most {MAX_NODES} nodes by their numbers, got {index!r}")
        if index in seen:
            raise FormatError(file.path, f"nodes: expected a tree, but node {index} has two parents")
        seen.add(index)
        node = file.entry("nodes", index)
        world_from_node = world_from_parent @ _local(node)
        if node.has("mesh"):
            yield (
                file.entry("meshes", node.integer("mesh", 0, 10**6)),
                similarity(file.path, node.where, world_from_node),
            )
        waiting += [(child, world_from_node) for child in reversed(node.items("children", MAX_NODES))]


def _local(node: JsonObject) -> np.ndarray:  # [4, 4]
    if node.has("matrix"):
        return np.array(node.numbers("matrix", 16)).reshape(4, 4).T
    matrix = np.eye(4)
    if node.has("rotation"):
        x, y, z, w = node.numbers("rotation", 4)
        matrix[:3, :3] = quaternions.to_rotmat(torch.tensor([w, x, y, z], dtype=torch.float64)).numpy()
    if node.has("scale"):
        matrix[:3, :3] *= np.array(node.numbers("scale", 3))
    if node.has("translation"):
        matrix[:3, 3] = node.numbers("translation", 3)
    return matrix
