"""Step sizes, noise and the entropy proxy of compression-aware fitting; what rounding leaves of a scene."""

import math
from dataclasses import replace

import pytest
import torch
from strategies import random_gaussians

from scene3d.compress import rate
from scene3d.compress.rate import NumberSteps
from scene3d.compress.rounding import GONE, recolored, round_scene
from scene3d.compress.sensitivity import Sensitivity
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import SceneInfo
from scene3d.io import s3d_context
from scene3d.ops import quaternions
from scene3d.ops.covariance import from_quats_scales

needs_native = pytest.mark.skipif(s3d_context._cpu is None, reason="the native module is not built")
N = 200


def scene(dtype: torch.dtype = torch.float32) -> Gaussians:
    gaussians = random_gaussians(N, seed=5, sh_degree=1, spread=0.5)
    return gaussians.to(dtype=dtype)


def sensitivity(weight: float = 1e-6) -> Sensitivity:
    return Sensitivity(*(torch.full(shape, weight) for shape in ((N, 3), (N, 3), (N, 3), (N,), (N,), (N, 3))))


def steps_of(width: float) -> NumberSteps:
    return NumberSteps(*(torch.full(shape, width) for shape in ((N, 3), (N, 3), (N, 3), (N,), (N, 3), (N, 3))))


def test_every_number_adds_the_same_error():
    steps = rate.number_steps(scene(), sensitivity(1e-4), 1e-9)
    for width, share in ((steps.log_scales, 1.0), (steps.log_opacity, 1.0), (steps.luma[:, 0], 1 / 3)):
        torch.testing.assert_close(width.square() * 1e-4 / 12, torch.full_like(width, share * 1e-9))


def test_noise_keeps_within_half_a_step():
    gaussians, steps = scene(), steps_of(0.02)
    offsets = rate.noise_offsets(gaussians, steps, torch.Generator().manual_seed(0))
    for name in ("means", "log_scales"):
        assert 0.009 < float(offsets[name].abs().max()) <= 0.01 + 1e-6
    opacity = torch.sigmoid(gaussians.opacity_logits + offsets["opacity_logits"])
    assert float((opacity.log() - gaussians.opacities.log()).abs().max()) <= 0.01 + 1e-4
    luma = rate.to_luma(offsets["sh0"][:, 0])
    assert 0.009 < float(luma.abs().max()) <= 0.01 + 1e-6


def test_noise_turns_by_half_a_step_at_most():
    gaussians = scene(torch.float64)
    offsets = rate.noise_offsets(gaussians, steps_of(0.02), torch.Generator().manual_seed(0))
    before, after = (quaternions.normalize(q) for q in (gaussians.quats, gaussians.quats + offsets["quats"]))
    angles = 2 * torch.arccos((before * after).sum(dim=1).abs().clamp(max=1))
    # Three axes at once.
    assert 0.005 < float(angles.max()) < 0.01 * math.sqrt(3)


def test_harmonics_below_half_a_step_are_lost():
    gaussians = replace(scene(), shN=torch.full((N, 3, 3), 0.3))
    offsets = rate.noise_offsets(gaussians, steps_of(1.0), torch.Generator().manual_seed(0))
    torch.testing.assert_close(offsets["shN"], torch.full((N, 3, 3), -0.3))


def test_luma_is_undone():
    rgb = torch.randn(20, 3, dtype=torch.float64)
    torch.testing.assert_close(rate.from_luma(rate.to_luma(rgb)), rgb)


def test_gradient_of_the_rate_is_that_of_its_bits_where_neighbours_stand_still():
    gaussians, steps = scene(), steps_of(0.05)
    # Rows far apart: what one number changes in the gains and the neighbours' residuals is small beside its own bits.
    bits, grads = rate.rate_grads(gaussians, steps, 2.0)
    assert bits > 0
    lower = replace(gaussians, **{n: getattr(gaussians, n) - 0.02 * g.sign() for n, g in grads.items()})
    assert rate.rate_grads(lower, steps, 2.0)[0] < bits - 100


def test_rate_of_what_neighbours_foretell_is_nothing():
    same = scene().map(lambda value: value[:1].expand_as(value).contiguous())
    same = replace(same, means=scene().means)
    bits, grads = rate.rate_grads(same, steps_of(0.05), 1.0)
    assert bits == pytest.approx(0, abs=1e-3)
    assert all(float(grad.abs().max()) < 1e-3 for grad in grads.values())


def test_gradient_of_luma_is_that_of_autograd():
    rgb = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    v = torch.randn(5, 3, dtype=torch.float64)
    (expected,) = torch.autograd.grad(rate.to_luma(rgb), rgb, v)
    torch.testing.assert_close(rate._to_luma_vjp(v), expected)


def test_a_lone_splat_has_a_rate():
    assert (
        rate.rate_grads(
            scene().select(torch.arange(1)),
            NumberSteps(*(getattr(steps_of(0.1), n)[:1] for n in NumberSteps.__dataclass_fields__)),
            1.0,
        )[0]
        >= 0
    )


@needs_native
def test_offsets_give_what_a_reader_sees():
    gaussians = scene()
    rounded = round_scene(gaussians, sensitivity(), 1e-9, SceneInfo())
    assert bool(rounded.keep.all())
    shown = gaussians.params()
    for name, offset in rounded.offsets(gaussians).items():
        shown[name] = shown[name] + offset
    seen, decoded = Gaussians(**shown).select(rounded.rows), rounded.decoded()
    torch.testing.assert_close(seen.means, decoded.means)
    torch.testing.assert_close(seen.sh0, decoded.sh0, atol=1e-5, rtol=0)
    covariances = (from_quats_scales(g.quats, g.scales) for g in (seen, decoded))
    torch.testing.assert_close(*covariances, atol=1e-5, rtol=1e-3)


@needs_native
def test_offsets_of_fine_steps_are_small():
    gaussians = scene()
    offsets = round_scene(gaussians, sensitivity(1e-4), 1e-12, SceneInfo()).offsets(gaussians)
    for name in ("quats", "log_scales", "sh0"):
        assert float(offsets[name].abs().max()) < 0.05, name


@needs_native
def test_what_counts_nothing_is_left_out_and_transparent():
    weights = sensitivity()
    weights.log_opacity[:50] = 0
    gaussians = scene()
    rounded = round_scene(gaussians, weights, 1e-9, SceneInfo())
    assert rounded.container.n_items == N - 50
    shown = gaussians.opacity_logits + rounded.offsets(gaussians)["opacity_logits"]
    torch.testing.assert_close(shown[:50], torch.full((50,), GONE))


@needs_native
def test_colours_change_and_shapes_stay():
    gaussians = scene()
    rounded = round_scene(gaussians, sensitivity(), 1e-9, SceneInfo())
    before = rounded.decoded()
    after = recolored(rounded, replace(gaussians, sh0=gaussians.sh0 + 0.5), SceneInfo()).decoded()
    assert torch.equal(after.means, before.means)
    assert torch.equal(after.quats, before.quats)
    assert torch.equal(after.log_scales, before.log_scales)
    torch.testing.assert_close(after.sh0.mean(), before.sh0.mean() + 0.5, atol=0.02, rtol=0)
