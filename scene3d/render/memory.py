"""What rendering takes, about, to be compared with a limit before it begins."""

from __future__ import annotations

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.ops.memory_limit import gigabytes_text, memory_limit

# Python with torch on the host; what torch's allocator cannot use of what it holds on a GPU.
BASE_BYTES = {"cpu": 600 << 20, "cuda": 256 << 20}
# Projected values, sort keys and lists of tiles; a GPU makes lists in parts where they are long.
BYTES_PER_SPLAT = 250
BYTES_PER_PIXEL = 100  # Images in float, their bytes, depth and normals.


def render_bytes(gaussians: Gaussians, n_pixels: int, device_type: str) -> int:
    """What one view of so many pixels takes, with the Gaussians themselves, in the memory of the host or of the GPU."""
    stored = sum(value.numel() for value in gaussians.params().values()) * 4
    return BASE_BYTES[device_type] + stored + len(gaussians) * BYTES_PER_SPLAT + n_pixels * BYTES_PER_PIXEL


def check_memory(scene: Scene, cameras: Cameras, device_type: str) -> None:
    """Compare what rendering takes with the limit, where one was set. Only splats are counted.

    Raises:
        ValueError: it is too much.
    """
    limit, payload = memory_limit(), scene.payload
    if limit is None or not isinstance(payload, Gaussians):
        return
    width, height = cameras.sizes[int(cameras.sizes.prod(dim=1).argmax())].tolist()
    needed = render_bytes(payload, width * height, device_type)
    if needed > limit:
        raise ValueError(
            f"memory-limit: {len(payload):,} splats at {width}x{height} need about {gigabytes_text(needed)}, "
            f"got {gigabytes_text(limit)}. Give it more, or use smaller images (--width) or fewer splats (convert)"
        )
