"""Method "lossless": every float32 keeps its bits; the Gaussians come back in another order."""

from __future__ import annotations

import math

from scene3d.compress.goal import Goal, Loss, Packed, Verdict
from scene3d.compress.judge import Judge
from scene3d.core.cameras import Cameras
from scene3d.core.scene import Scene
from scene3d.io.s3d_container import container_bytes
from scene3d.io.s3d_lossless import encode_lossless, order_of


def compress(scene: Scene, goal: Goal, judge: Judge | None, views: Cameras | None) -> Packed:
    """Store a scene bit by bit. The goal's drop is met by any; a size may not be."""
    container = encode_lossless(scene)
    size = len(container_bytes(container))
    is_met = goal.target_bytes is None or size <= goal.target_bytes
    remark = "" if is_met else f"cannot be as small as {goal.target_bytes:,} bytes: {size:,} is what it takes"
    losses = tuple(Loss(name, len(data)) for name, data in container.chunks.items())
    drop = 0.0 if judge is not None and judge.photos else None
    return Packed(
        container, scene.splats().select(order_of(scene.splats())), Verdict(math.inf, drop), losses, is_met, remark
    )
