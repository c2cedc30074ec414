"""Surfels: native against the dense oracle, gradients, closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.gaussians import Gaussians
from scene3d.render import cpu
from scene3d.render.surfels import blend_native, blend_reference, rasterize_surfels, see_discs
from scene3d.render.types import RasterSettings

pytestmark = pytest.mark.skipif(cpu.why_unavailable() is not None, reason=f"native code: {cpu.why_unavailable()}")

UNIT = 0.3
# float32 images of a few dozen discs against float64; a disc on the 1/255 cut may fall to either side.
IMAGE_TOLERANCE = 5e-3


def camera(width: int = 21, height: int = 18, dtype: torch.dtype = torch.float64) -> Cameras:
    eye, up = torch.tensor([0.3, -0.4, -3.0], dtype=dtype), torch.tensor([0.0, -1.0, 0.0], dtype=dtype)
    K = torch.tensor([[24.0, 0, 10.2], [0, 26.0, 9.1], [0, 0, 1]], dtype=dtype)
    return Cameras(look_at(eye, torch.zeros(3, dtype=dtype), up)[None], K[None], torch.tensor([[width, height]]))


def scene(n: int = 12, dtype: torch.dtype = torch.float64, seed: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    means = 0.7 * torch.randn(n, 3, generator=g)
    quats = torch.randn(n, 4, generator=g)
    log_scales = torch.rand(n, 3, generator=g) - 2.0
    sh = 0.3 * torch.randn(n, 4, 3, generator=g)
    gaussians = Gaussians(means, quats, log_scales, torch.randn(n, generator=g), sh[:, :1], sh[:, 1:])
    return gaussians.to(dtype=dtype)


def total(images: dict[str, Tensor]) -> Tensor:
    result = torch.zeros((), dtype=torch.float64)
    for k, name in enumerate(("rgb", "normals", "alpha", "depth", "distortion")):
        image = images[name]
        weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        result = result + (image * weights).sum()
    return result


@pytest.mark.parametrize("cutoff", [True, False])
def test_native_images_are_those_of_the_oracle(cutoff: bool):
    discs = see_discs(scene(), camera(), RasterSettings())
    ours, _ = blend_native(discs, camera(), RasterSettings(), UNIT, cutoff)
    oracle, _ = blend_reference(discs, camera(), RasterSettings(), UNIT, cutoff)
    for name, image in oracle.items():
        torch.testing.assert_close(ours[name], image, rtol=1e-9, atol=1e-9, msg=name)


def test_lanes_of_float_agree_with_double():
    double, single = scene(60), scene(60).to(dtype=torch.float32)
    exact = rasterize_surfels(double, camera(37, 33), RasterSettings(), UNIT, "reference")
    ours = rasterize_surfels(single, camera(37, 33, torch.float32), RasterSettings(), UNIT)
    assert ours.render.normals is not None
    assert exact.render.normals is not None
    for a, b in ((ours.render.rgb, exact.render.rgb), (ours.render.normals, exact.render.normals)):
        assert float((a - b).abs().max()) < IMAGE_TOLERANCE
    torch.testing.assert_close(ours.distortion.double(), exact.distortion, rtol=0.02, atol=1e-5)


def test_gradients_are_those_of_the_oracle():
    gaussians = scene(9)
    found = []
    for blend in (blend_native, blend_reference):
        leaves = gaussians.map(lambda t: t.clone().requires_grad_())
        images, _ = blend(see_discs(leaves, camera(), RasterSettings()), camera(), RasterSettings(), UNIT, True)
        total(images).backward()
        found.append({name: t.grad for name, t in leaves.params().items()})
    for name, gradient in found[1].items():
        torch.testing.assert_close(found[0][name], gradient, rtol=1e-6, atol=1e-8, msg=name)


def test_gradients_of_float_lanes_point_the_same_way():
    gaussians = scene(60)
    found = []
    for dtype, backend in ((torch.float32, "auto"), (torch.float64, "reference")):
        leaves = gaussians.to(dtype=dtype).map(lambda t: t.clone().requires_grad_())
        seen = rasterize_surfels(leaves, camera(37, 33, dtype), RasterSettings(), UNIT, backend)
        assert seen.render.depth is not None
        (seen.render.rgb.square().sum() + seen.render.depth.sum() + 5 * seen.distortion.sum()).backward()
        found.append(leaves)
    for name, exact in found[1].params().items():
        ours = found[0].params()[name].grad
        assert ours is not None
        assert exact.grad is not None
        assert float(torch.cosine_similarity(ours.double().flatten(), exact.grad.flatten(), dim=0)) > 0.999, name


def test_smooth_images_have_the_gradients_of_finite_differences():
    gaussians = scene(5, seed=3)

    def images(means: Tensor, quats: Tensor, log_scales: Tensor, logits: Tensor) -> Tensor:
        moved = replace(gaussians, means=means, quats=quats, log_scales=log_scales, opacity_logits=logits)
        discs = see_discs(moved, camera(7, 6), RasterSettings())
        return total(blend_native(discs, camera(7, 6), RasterSettings(), UNIT, cutoff=False)[0])

    inputs = (gaussians.means, gaussians.quats, gaussians.log_scales, gaussians.opacity_logits)
    leaves = tuple(t.clone().requires_grad_() for t in inputs)
    assert torch.autograd.gradcheck(images, leaves, eps=1e-6, atol=1e-5, rtol=1e-4)


def one_disc(tilt_deg: float, z: float = 0.0) -> Gaussians:
    """A large opaque disc in front of a camera at z = -3, turned about the y axis."""
    half = math.radians(tilt_deg) / 2
    quats = torch.tensor([[math.cos(half), 0, math.sin(half), 0]])
    log_scales = torch.tensor([[0.5, 0.5, 1e-3]]).log()
    color = torch.full((1, 1, 3), 0.5)
    return Gaussians(torch.tensor([[0.0, 0, z]]), quats, log_scales, torch.tensor([4.0]), color, torch.zeros(1, 0, 3))


def front(side: int = 33) -> Cameras:
    viewmat = torch.eye(4)
    viewmat[2, 3] = 3.0
    K = torch.tensor([[40.0, 0, side / 2], [0, 40, side / 2], [0, 0, 1]])
    return Cameras(viewmat[None], K[None], torch.tensor([[side, side]]))


def test_depth_is_where_rays_meet_the_disc():
    render = rasterize_surfels(one_disc(50), front(), RasterSettings(), UNIT).render
    assert render.depth is not None
    x = (torch.arange(33) + 0.5 - 16.5) / 40
    # The plane of the disc: z' = -tan(50 degrees) x about the centre at depth 3.
    exact = 3 / (1 + math.tan(math.radians(50)) * x)
    seen = render.alpha[0, 16, :, 0] > 0.05
    torch.testing.assert_close(render.depth[0, 16, seen, 0], exact[seen], rtol=1e-4, atol=0)
    assert int(seen.sum()) > 10


def test_one_disc_has_no_distortion_and_two_have_that_of_their_gap():
    assert float(rasterize_surfels(one_disc(30), front(), RasterSettings(), UNIT).distortion.abs().max()) < 1e-6
    a, b = one_disc(0), one_disc(0, 1.0)
    both = Gaussians(*(torch.cat([x, y]) for x, y in zip(a.params().values(), b.params().values(), strict=True)))
    both = replace(both, opacity_logits=torch.tensor([0.0, 0.0]))
    found = rasterize_surfels(both, front(), RasterSettings(), UNIT).distortion[16, 16]
    assert float(found) == pytest.approx(0.5 * 0.25 * (UNIT / 3 - UNIT / 4) ** 2, rel=1e-4)


def test_discs_seen_edge_on_leave_a_line():
    render = rasterize_surfels(one_disc(90), front(), RasterSettings(), UNIT).render
    assert float(render.alpha.max()) > 0.5
    assert bool(render.rgb.isfinite().all())


@pytest.mark.parametrize("name", ["means", "quats", "log_scales", "opacity_logits"])
def test_numbers_that_are_not_finite_harm_nobody_else(name: str):
    bad = scene(20, torch.float32)
    value = bad.params()[name].clone()
    value[3] = torch.nan
    others = bad.select(torch.arange(20) != 3)
    expected = rasterize_surfels(others, camera(dtype=torch.float32), RasterSettings(), UNIT).render.rgb
    found = rasterize_surfels(replace(bad, **{name: value}), camera(dtype=torch.float32), RasterSettings(), UNIT)
    torch.testing.assert_close(found.render.rgb, expected)
