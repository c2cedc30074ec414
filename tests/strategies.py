"""Scenes and cameras for tests: fixed random ones, and hypothesis strategies with the degenerate and extreme.

Everything is float64 on the CPU; `Target.render` in conftest.py converts for the backend under test.
"""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st
from torch import Tensor

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.gaussians import SH_COUNTS, Gaussians
from scene3d.ops import quaternions, sh
from scene3d.ops.rigid import Sim3

F64 = torch.float64


def random_gaussians(n: int, seed: int = 0, sh_degree: int = 3, spread: float = 1.0) -> Gaussians:
    """n Gaussians around the origin, of many sizes, shapes, opacities and colours; values exact in float32."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return Gaussians(
        means=normal(n, 3) * spread,
        quats=normal(n, 4),
        log_scales=normal(n, 3) * 0.6 - 1.8,
        opacity_logits=normal(n) * 1.5,
        sh0=normal(n, 1, 3) * 0.7,
        shN=normal(n, SH_COUNTS[sh_degree] - 1, 3) * 0.15,
    ).to(dtype=F64)


def one_gaussian(
    mean: tuple[float, float, float] = (0.0, 0.0, 4.0),
    scales: tuple[float, float, float] = (0.3, 0.3, 0.3),
    opacity: float = 0.8,
    rgb: tuple[float, float, float] = (0.9, 0.5, 0.2),
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0),
) -> Gaussians:
    """One Gaussian given by its activated values."""
    return Gaussians(
        means=torch.tensor([mean], dtype=F64),
        quats=torch.tensor([quat], dtype=F64),
        log_scales=torch.tensor([scales], dtype=F64).log(),
        opacity_logits=torch.tensor([math.log(opacity / (1 - opacity))], dtype=F64),
        sh0=sh.from_rgb(torch.tensor([[rgb]], dtype=F64)),
        shN=torch.zeros(1, 0, 3, dtype=F64),
    )


def front_camera(width: int = 33, height: int = 33, focal: float = 40.0) -> Cameras:
    """A camera at the origin that looks along +z; with odd sizes the axis passes through a pixel centre."""
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=F64)
    return Cameras(torch.eye(4, dtype=F64)[None], K[None], torch.tensor([[width, height]]))


def ring_of_cameras(n: int, width: int = 37, height: int = 23, focal: float = 30.0, seed: int = 0) -> Cameras:
    """n tilted cameras around the origin with principal points off the centre; values exact in float32."""
    generator = torch.Generator().manual_seed(seed + 1000)
    viewmats, Ks = [], []
    for i in range(n):
        angle = 2 * math.pi * i / n + 0.3
        wobble = torch.randn(3, generator=generator, dtype=F64) * 0.3
        eye = torch.tensor([4 * math.cos(angle), -1.0 + 0.5 * i, 4 * math.sin(angle)], dtype=F64)
        viewmats.append(look_at(eye, wobble, torch.tensor([0.2, -1.0, 0.1], dtype=F64)))
        center = torch.tensor([width, height], dtype=F64) * (0.5 + 0.1 * torch.randn(2, generator=generator))
        Ks.append(torch.tensor([[focal, 0, center[0]], [0, focal * 1.1, center[1]], [0, 0, 1]], dtype=F64))
    sizes = torch.tensor([[width, height]]).repeat(n, 1)
    return Cameras(torch.stack(viewmats).float().to(F64), torch.stack(Ks).float().to(F64), sizes)


def with_gradients(gaussians: Gaussians) -> Gaussians:
    """Leaf copies that collect gradients."""
    return gaussians.map(lambda value: value.detach().clone().requires_grad_())


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_infinity=False)


@st.composite
def unit_quats(draw: st.DrawFn) -> Tensor:
    """Rotations, half turns and the identity among them. [4]"""
    special = st.sampled_from([(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (-1, 0, 0, 0), (0, 1, -1, 0)])
    anything = st.tuples(*[numbers(-1, 1)] * 4).filter(lambda q: sum(x * x for x in q) > 1e-3)
    return quaternions.normalize(torch.tensor(draw(special | anything), dtype=F64))


@st.composite
def rotations(draw: st.DrawFn) -> Tensor:
    """Rotation matrices. [3, 3]"""
    return quaternions.to_rotmat(draw(unit_quats()))


@st.composite
def sim3s(draw: st.DrawFn, max_scale: float = 50.0) -> Sim3:
    """Similarity transforms; max_scale 1 gives rigid motions."""
    translation = torch.tensor(draw(st.tuples(*[numbers(-5, 5)] * 3)), dtype=F64)
    log_scale = draw(numbers(-math.log(max_scale), math.log(max_scale))) if max_scale > 1 else 0.0
    return Sim3(draw(rotations()), translation, math.exp(log_scale))


@st.composite
def scenes(draw: st.DrawFn, max_count: int = 12) -> Gaussians:
    """Small scenes: none, one or several Gaussians, also needles, discs, points, giants, opaque and faint ones."""
    n = draw(st.integers(0, max_count))
    gaussians = random_gaussians(n, seed=draw(st.integers(0, 1000)), sh_degree=draw(st.integers(0, 3)))
    log_scales, logits = gaussians.log_scales.clone(), gaussians.opacity_logits.clone()
    for i in range(n):
        kind = draw(st.sampled_from(["as is", "as is", "needle", "disc", "point", "giant", "opaque", "faint"]))
        match kind:
            case "needle":
                log_scales[i] = torch.tensor([0.5, -8.0, -8.0])
            case "disc":
                log_scales[i] = torch.tensor([0.0, 0.0, -9.0])
            case "point":
                log_scales[i] = -12.0
            case "giant":
                log_scales[i] = 4.0
            case "opaque":
                logits[i] = 15.0
            case "faint":
                logits[i] = -5.0
    return Gaussians(**{**gaussians.params(), "log_scales": log_scales, "opacity_logits": logits})


@st.composite
def cameras(draw: st.DrawFn) -> Cameras:
    """One to three views, sizes from a single pixel to a few tiles."""
    width, height = draw(st.sampled_from([(1, 1), (16, 16), (17, 5), (37, 23), (40, 33)]))
    return ring_of_cameras(
        draw(st.integers(1, 3)), width, height, draw(numbers(10, 60)), seed=draw(st.integers(0, 1000))
    )
