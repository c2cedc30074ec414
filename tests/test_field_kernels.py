"""Native field kernels against the torch oracle, and their gradients against finite differences in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from field_scenes import random_field, random_rays
from tiny_capture import tiny_cameras

from scene3d.core.fields import HARMONIC_FEATURES, Field, decoder_of
from scene3d.ops import sh
from scene3d.ops.factor_grid import density_feature, node_coordinates
from scene3d.ops.rays import camera_rays, tiled_pixels
from scene3d.render import field_cpu, field_reference
from scene3d.render.field_march import SMOOTH, MarchSettings, RaySums

if not field_cpu.is_available():
    pytest.skip("the native module is not built", allow_module_level=True)

KINDS = ("vm", "cp", "trivec", "cover", "rbf", "hash", "mlp")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_occupancy", [False, True])
def test_native_march_gives_what_torch_gives(kind, has_occupancy):
    field = random_field(kind, has_occupancy=has_occupancy)
    origins, directions, jitter = random_rays(150)
    want = field_reference.march(field, origins, directions, jitter)
    got = field_cpu.march(field, origins, directions, jitter)
    for name in ("features", "opacity", "distance"):
        torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-7, atol=1e-10)
    assert want.opacity.max() > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_near_float64_on_every_instruction_set(kind):
    field = random_field(kind, has_occupancy=True)
    origins, directions, jitter = random_rays(100)
    want = field_cpu.march(field, origins, directions, jitter, SMOOTH)
    before = field_cpu._cpu.simd_level()
    for level in field_cpu._cpu.simd_levels():
        field_cpu._cpu.set_simd_level(level)
        got = field_cpu.march(
            field.to(dtype=torch.float32), origins.float(), directions.float(), jitter.float(), SMOOTH
        )
        field_cpu._cpu.set_simd_level(before)
        # A sample within rounding of a cell's border may fall to either side: a few rays differ by one sample.
        close = (got.opacity.double() - want.opacity).abs() < 2e-5
        assert close.double().mean() > 0.97, level
        torch.testing.assert_close(got.features[close].double(), want.features[close], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_factors_pass_gradcheck(kind):
    field = random_field(kind, nodes=(3, 4, 2), ranks=(16, 16), step=0.45)
    origins, directions, jitter = random_rays(3)

    def sums(*factors):
        result = field_cpu.march(field.with_factors(factors), origins, directions, jitter, SMOOTH)
        return result.features, result.opacity, result.distance

    assert torch.autograd.gradcheck(sums, [v.requires_grad_() for v in field.factors()], fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_factors_are_those_of_torch(kind):
    field = random_field(kind, has_occupancy=True)
    origins, directions, jitter = random_rays(80)
    grads = []
    for march in (field_reference.march, field_cpu.march):
        factors = [v.detach().clone().requires_grad_() for v in field.factors()]
        sums = march(field.with_factors(tuple(factors)), origins, directions, jitter, MarchSettings())
        mixed = (sums.features * torch.linspace(-1, 1, field.n_features)).sum() + (sums.opacity**2).sum()
        (mixed + sums.distance.sin().sum()).backward()
        grads.append([value.grad for value in factors])
    for want, got in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-10)


def colored(field: Field, coloring: str) -> Field:
    """The field with a decoder of this kind."""
    if coloring == "network":
        return field
    basis = torch.randn(
        field.n_features, HARMONIC_FEATURES, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )
    return replace(field, decoder=decoder_of([0.2 * basis]))


def test_harmonics_give_the_colors_of_gaussians():
    coefficients, directions = torch.randn(1, 16, 3, dtype=torch.float64), random_rays(5)[1]
    decoder = decoder_of([torch.eye(HARMONIC_FEATURES, dtype=torch.float64)])
    features = coefficients.transpose(1, 2).reshape(1, -1).expand(5, -1).contiguous()
    got = field_cpu.decode(decoder, 0.3 * features, torch.full((5,), 0.3, dtype=torch.float64), directions)
    divisors = torch.tensor([1.0, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4])[:, None]
    want = (sh.basis(directions, 3)[:, :, None] * coefficients / divisors).sum(dim=1) + 0.5
    torch.testing.assert_close(got, 0.3 * want)


@pytest.mark.parametrize("coloring", ["network", "harmonics"])
def test_decoder_gives_what_torch_gives_and_passes_gradcheck(coloring: str):
    field = colored(random_field("vm"), coloring)
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(70, field.n_features, generator=generator, dtype=torch.float64)
    opacity = torch.rand(70, generator=generator, dtype=torch.float64)
    opacity[3] = 0
    directions = random_rays(70)[1]
    want = field_reference.decode(field.decoder, features, opacity, directions)
    torch.testing.assert_close(field_cpu.decode(field.decoder, features, opacity, directions), want)
    assert want[3].abs().max() == 0
    inputs = [features[:3].clone(), opacity[:3].clone(), *(v.clone() for v in field.decoder.tensors())]

    def colors(features, opacity, *tensors):
        return field_cpu.decode(decoder_of(list(tensors)), features, opacity, directions[:3])

    assert torch.autograd.gradcheck(colors, [v.requires_grad_() for v in inputs], fast_mode=True)


@pytest.mark.parametrize("coloring", ["network", "harmonics"])
def test_decoder_in_float32_is_near_float64(coloring: str):
    field = colored(random_field("vm"), coloring)
    features = torch.randn(100, field.n_features, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 3
    opacity, directions = torch.full((100,), 0.7, dtype=torch.float64), random_rays(100)[1]
    want = field_cpu.decode(field.decoder, features, opacity, directions)
    single = field.to(dtype=torch.float32)
    got = field_cpu.decode(single.decoder, features.float(), opacity.float(), directions.float())
    torch.testing.assert_close(got.double(), want, rtol=0, atol=2e-5)


def test_threads_do_not_change_a_bit():
    field = random_field("vm", has_occupancy=True).to(dtype=torch.float32)
    origins, directions, jitter = (v.float() for v in random_rays(700))
    results = []
    before = field_cpu._cpu.n_threads()
    for n_threads in (1, 3):
        field_cpu._cpu.set_threads(n_threads)
        leaf = field.map(lambda v: v.clone().requires_grad_())
        sums = field_cpu.march(leaf, origins, directions, jitter)
        colors = field_cpu.decode(leaf.decoder, sums.features, sums.opacity, directions)
        colors.square().sum().backward()
        results.append([colors.detach(), *(v.grad for v in (*leaf.factors(), *leaf.decoder.tensors()))])
    field_cpu._cpu.set_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_gradient_of_distortion_is_that_of_its_definition():
    field = random_field("vm", step=0.2)
    origins, directions, jitter = random_rays(12)
    native = field_cpu.NativeField(field, SMOOTH)
    tape, strength = native.new_tape(), 0.3
    sums = native.march(origins, directions, jitter, tape)
    got = [torch.zeros_like(value) for value in field.factors()]
    nothing = RaySums(*(torch.zeros_like(v) for v in (sums.features, sums.opacity, sums.distance)))
    native.march_backward(tape, nothing, got, field_cpu.empty_marks(got), strength)

    factors = tuple(value.clone().requires_grad_() for value in field.factors())
    leaf = field.with_factors(factors)
    t, _, taken = field_reference._samples(leaf, origins, directions, jitter, SMOOTH)
    nodes = node_coordinates(leaf, (origins[:, None] + directions[:, None] * t[..., None])[taken])
    density = torch.nn.functional.softplus(density_feature(leaf, nodes) + leaf.density_shift) * leaf.density_scale
    alpha = torch.zeros_like(t).masked_scatter(taken, 1 - torch.exp(-density * leaf.step))
    weights = alpha * torch.cumprod(torch.cat([torch.ones(12, 1), 1 - alpha[:, :-1]], dim=1), dim=1)
    pairs = (weights[:, :, None] * weights[:, None] * (t[:, :, None] - t[:, None]).abs()).sum()
    (strength * (pairs + leaf.step / 3 * (weights**2).sum())).backward()
    for want, value in zip(factors[: len(leaf.density)], got, strict=False):
        torch.testing.assert_close(value, want.grad, rtol=1e-7, atol=1e-10)


def test_an_image_in_one_go_is_that_of_its_rays():
    for kind in KINDS:
        field = random_field(kind, has_occupancy=True)
        camera = tiny_cameras().select([2]).to(dtype=torch.float64)
        native, decoder = field_cpu.NativeField(field), field_cpu.NativeDecoder(field.decoder)
        image = native.image(decoder, camera, (0.2, 0.5, 1.0))
        rgb, alpha, depth = image.rgb, image.alpha, image.depth
        columns, rows = tiled_pixels(camera.width(), camera.height())
        origins, directions = camera_rays(camera, torch.zeros_like(columns), columns, rows)
        sums = native.march(origins.contiguous(), directions.contiguous(), None)
        colors = decoder.decode(sums.features, sums.opacity, directions.contiguous())
        want = colors + (1 - sums.opacity[:, None]) * torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)
        torch.testing.assert_close(alpha[rows, columns, 0], sums.opacity, rtol=0, atol=1e-9)
        torch.testing.assert_close(rgb[rows, columns], want, rtol=0, atol=1e-9)
        assert 1 < float(depth[alpha > 0.2].min()) < float(depth.max()) < 7
        assert 0 < float((alpha > 0).double().mean()) < 1


def test_an_image_from_inside_of_the_field_is_that_of_its_rays():
    field = random_field("vm", has_occupancy=True)
    camera = tiny_cameras().select([0]).to(dtype=torch.float64)
    viewmats = camera.viewmats.clone()
    viewmats[:, :3, 3] = torch.tensor([0.1, 0.0, 0.3])
    camera = replace(camera, viewmats=viewmats)
    native, decoder = field_cpu.NativeField(field), field_cpu.NativeDecoder(field.decoder)
    alpha = native.image(decoder, camera, (0.0, 0.0, 0.0)).alpha
    columns, rows = tiled_pixels(camera.width(), camera.height())
    origins, directions = camera_rays(camera, torch.zeros_like(columns), columns, rows)
    sums = native.march(origins.contiguous(), directions.contiguous(), None)
    torch.testing.assert_close(alpha[rows, columns, 0], sums.opacity, rtol=0, atol=1e-9)


def test_an_opaque_field_ends_rays_early():
    field = random_field("vm")
    dense = replace(field, density_scale=1e4, density_shift=0.0)
    origins, directions, _ = random_rays(50)
    native = field_cpu.NativeField(dense)
    short, long = native.new_tape(), native.new_tape()
    native.march(origins, directions, None, short)
    field_cpu.NativeField(dense, SMOOTH).march(origins, directions, None, long)
    assert 0 < short.n_samples < long.n_samples


def test_hits_are_rays_with_samples():
    field: Field = random_field("cp", has_occupancy=True)
    origins, directions, _ = random_rays(200)
    hits = field_cpu.NativeField(field).hits(origins, directions)
    opacity = field_reference.march(field, origins, directions, None).opacity
    assert torch.equal(hits, opacity > 0)
    assert 0 < int(hits.sum()) < 200
