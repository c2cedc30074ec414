import math

import pytest
import torch
from torch import Tensor

from scene3d.ops import covariance, mcmc_noise
from scene3d.ops.mcmc_noise import mcmc_noise_

pytest.importorskip("scene3d._cpu", reason="the native module is not built")

N = 60_000
QUAT = torch.tensor([0.3, -0.8, 0.5, 1.1])
LOG_SCALES = torch.tensor([-1.0, 0.2, -2.5])


@pytest.fixture(params=["native", "torch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(mcmc_noise, "_cpu", None)
    return request.param


def shifts(n: int = N, logit: float = -20.0, scale: float = 1.0, seed: int = 5, step: int = 7) -> Tensor:
    means = torch.zeros(n, 3)
    mcmc_noise_(means, QUAT.repeat(n, 1), LOG_SCALES.repeat(n, 1), torch.full((n,), logit), scale, seed, step)
    return means


def gate(opacity: float) -> float:
    return 1 / (1 + math.exp(-100 * ((1 - opacity) - 0.995)))


def test_shift_has_the_covariance_of_the_formula(path):
    found = shifts(scale=2.0).double()
    covar = covariance.from_quats_scales(QUAT.double(), LOG_SCALES.double().exp())
    expected = covar @ covar * (2.0 * gate(0.0)) ** 2
    measured = found.T @ found / N
    # Four standard errors of a second moment: 4 sqrt(2 / N) of the largest.
    assert (measured - expected).abs().max() < 4 * math.sqrt(2 / N) * expected.diagonal().max()
    assert (found.mean(dim=0).abs() < 4 * (expected.diagonal() / N).sqrt()).all()


def test_shift_is_normal(path):
    whitened = shifts(scale=1.0)[:, 1].double()
    whitened = whitened / whitened.square().mean().sqrt()
    # Standard errors: sqrt(96 / N) of the fourth moment, sqrt(15 / N) of the third.
    assert abs(whitened.pow(4).mean() - 3) < 4 * math.sqrt(96 / N)
    assert abs(whitened.pow(3).mean()) < 4 * math.sqrt(15 / N)


def test_components_of_z_are_independent_between_rows_steps_and_seeds():
    a = shifts()[:, 0].double()
    for other in (shifts(step=8)[:, 0], shifts(seed=6)[:, 0], a.roll(1)):
        correlation = (a * other).mean() / (a.square().mean() * other.double().square().mean()).sqrt()
        assert abs(correlation) < 4 / math.sqrt(N)


def test_same_seed_and_step_give_the_same_bytes(path):
    assert torch.equal(shifts(), shifts())


def test_rows_do_not_depend_on_how_many_there_are():
    assert torch.equal(shifts(n=3000)[:10], shifts(n=10))


@pytest.mark.parametrize("opacity", [0.001, 0.005, 0.05, 0.15])
def test_strength_follows_the_gate(path, opacity):
    logit = math.log(opacity / (1 - opacity))
    ratio = shifts(n=100, logit=logit, scale=1e3) / shifts(n=100, scale=1e3)
    expected = torch.full_like(ratio, gate(opacity) / gate(0.0))
    torch.testing.assert_close(ratio, expected, rtol=1e-3, atol=0)


def test_opaque_gaussians_do_not_move():
    assert shifts(n=100, logit=3.0).abs().max() == 0


def test_length_of_quaternion_does_not_matter(path):
    means, other = torch.zeros(50, 3), torch.zeros(50, 3)
    log_scales, logits = LOG_SCALES.repeat(50, 1), torch.full((50,), -8.0)
    mcmc_noise_(means, QUAT.repeat(50, 1), log_scales, logits, 1.0, 1, 1)
    mcmc_noise_(other, QUAT.repeat(50, 1) * 9, log_scales, logits, 1.0, 1, 1)
    torch.testing.assert_close(means, other)


def test_broken_rows_stay_where_they_are(path):
    means = torch.ones(4, 3)
    quats, log_scales, logits = QUAT.repeat(4, 1), LOG_SCALES.repeat(4, 1), torch.full((4,), -8.0)
    quats[0] = 0
    log_scales[1, 1] = math.inf
    logits[2] = math.nan
    mcmc_noise_(means, quats, log_scales, logits, 1.0, 1, 1)
    assert (means[:3] == 1).all()
    assert (means[3] != 1).all()


def test_error_names_wrong_shape():
    with pytest.raises(ValueError, match=r"quats: expected shape \[N, 4\], got \[3, 4\] where N=2"):
        mcmc_noise_(torch.zeros(2, 3), torch.ones(3, 4), torch.zeros(2, 3), torch.zeros(2), 1.0, 0, 0)
    with pytest.raises(ValueError, match="means: expected a contiguous tensor"):
        mcmc_noise_(torch.zeros(3, 2).t(), torch.ones(2, 4), torch.zeros(2, 3), torch.zeros(2), 1.0, 0, 0)
