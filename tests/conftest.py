"""Fixtures: every test that takes `target` runs once for each rasterizer backend that works here."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import settings

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.render import backends
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings, Render

# The first example compiles, loads or warms up: a deadline would measure that. Same examples in every run.
settings.register_profile("scene3d", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("scene3d")

pytest.register_assert_rewrite("comparison")

# Test tensors are tiny: a second torch thread only waits, and starves the native code where cores are few.
torch.set_num_threads(1)

CLASSIC = RasterSettings()


@dataclass(frozen=True)
class Target:
    """A backend under test, with the dtype and device it takes."""

    name: str
    dtype: torch.dtype
    device: str

    @property
    def tolerance(self) -> float:
        """Rounding of colours and weights: float32 carries 6e-8, grown by exp, products and sums of some terms."""
        return 1e-9 if self.dtype == torch.float64 else 2e-5

    def render(self, gaussians: Gaussians, cameras: Cameras, settings: RasterSettings = CLASSIC) -> Render:
        """Render what is given in any dtype; images come back as float64 on the CPU, gradients flow through."""
        render = rasterize(
            gaussians.to(self.device, self.dtype), cameras.to(self.device, self.dtype), settings, self.name
        )
        images = {name: getattr(render, name) for name in ("rgb", "alpha", "depth", "median_depth", "normals")}
        return replace(render, **{k: v.to("cpu", torch.float64) for k, v in images.items() if v is not None})


@pytest.fixture(params=list(backends.MODULES))
def target(request: pytest.FixtureRequest) -> Target:
    name = request.param
    reason = backends.why_unavailable(name)
    if reason is not None:
        pytest.skip(f"backend {name}: {reason}")
    dtype = torch.float64 if name == "reference" else torch.float32
    return Target(name, dtype, "cuda" if name in ("cuda", "gsplat") else "cpu")
