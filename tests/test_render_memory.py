"""A render frees its memory as soon as nobody holds it: no reference cycle through the native module."""

import gc
import weakref

import pytest
import torch

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.render import cpu
from scene3d.render.types import RasterSettings

needs_native = pytest.mark.skipif(cpu.why_unavailable() is not None, reason="the native module is not built")


@needs_native
@pytest.mark.parametrize("runs_backward", [False, True])
def test_a_render_is_freed_without_the_garbage_collector(runs_backward: bool) -> None:
    scene = Gaussians(
        torch.tensor([[0.0, 0.0, 2.0]], requires_grad=True),
        torch.tensor([[1.0, 0.0, 0.0, 0.0]], requires_grad=True),
        torch.full((1, 3), -2.0, requires_grad=True),
        torch.zeros(1, requires_grad=True),
        torch.zeros(1, 1, 3, requires_grad=True),
        torch.zeros(1, 0, 3, requires_grad=True),
    )
    K = torch.tensor([[[20.0, 0.0, 8.0], [0.0, 20.0, 8.0], [0.0, 0.0, 1.0]]])
    camera = Cameras(torch.eye(4)[None], K, torch.tensor([[16, 16]]))
    gc.disable()
    try:
        render = cpu.rasterize_arrays(scene, camera, RasterSettings(with_depth=True))
        if runs_backward:
            render.rgb.sum().backward()
        held = weakref.ref(render.stats.radii)
        image = weakref.ref(render.rgb)
        del render
        assert image() is None
        assert held() is None
    finally:
        gc.enable()
