"""Vector quantizers: codes, gradients and learning against what defines them."""

import math

import pytest
import torch

from scene3d.compress.quantizer import (
    Quantizer,
    QuantizerSettings,
    entropy_bits,
    nearest_code,
    pass_gradient,
    weighted_means,
)


def rows(n: int = 200, d: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_the_nearest_code_is_that_of_all_distances() -> None:
    points, codes = rows() + 50, rows(17, seed=1) + 50
    expected = torch.cdist(points.double(), codes.double()).argmin(dim=1)
    assert bool((nearest_code(points, codes) == expected).all())


def test_stages_add_up_and_each_lowers_the_error() -> None:
    points, weights = rows(400), torch.ones(400)
    errors = []
    for n_stages in (1, 2, 3):
        quantizer = Quantizer(points, weights, QuantizerSettings(16, n_stages))
        parts = [codes[index] for codes, index in zip(quantizer.codes(), quantizer.indices, strict=True)]
        torch.testing.assert_close(quantizer.restored(), torch.stack(parts).sum(dim=0))
        errors.append(float((quantizer.restored() - points).square().mean()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_as_many_codes_as_rows_restore_them_exactly() -> None:
    points = rows(12)
    quantizer = Quantizer(points, torch.ones(12), QuantizerSettings(12))
    torch.testing.assert_close(quantizer.restored(), points)


def test_weights_draw_codes_to_heavy_rows() -> None:
    points, weights = rows(300), torch.ones(300)
    weights[:30] = 100
    heavy, even = (Quantizer(points, w, QuantizerSettings(24)) for w in (weights, torch.ones(300)))
    errors = [float((q.restored() - points)[:30].square().mean()) for q in (heavy, even)]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("estimator", ["straight", "rotation"])
def test_quantizing_gives_the_value_of_the_code(estimator: str) -> None:
    points, restored = rows(50, 4), rows(50, 4, seed=2)
    torch.testing.assert_close(pass_gradient(points, restored, estimator), restored)


def test_the_straight_gradient_passes_unchanged() -> None:
    points = rows().requires_grad_()
    upstream = rows(seed=3)
    (pass_gradient(points, rows(seed=4), "straight") * upstream).sum().backward()
    torch.testing.assert_close(points.grad, upstream)


def test_the_rotated_gradient_keeps_its_angle_to_the_vector() -> None:
    points, restored, upstream = rows(60, 4).requires_grad_(), rows(60, 4, seed=5), rows(60, 4, seed=6)
    (pass_gradient(points, restored, "rotation") * upstream).sum().backward()
    assert points.grad is not None
    before = torch.nn.functional.cosine_similarity(upstream, restored)
    after = torch.nn.functional.cosine_similarity(points.grad, points.detach())
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
    stretch = restored.norm(dim=1) / points.detach().norm(dim=1)
    torch.testing.assert_close(points.grad.norm(dim=1), stretch * upstream.norm(dim=1))


def test_vectors_without_a_direction_pass_gradients_straight() -> None:
    points = torch.zeros(2, 3, requires_grad=True)
    (pass_gradient(points, torch.tensor([[1.0, 0, 0], [0, 0, 0]]), "rotation") * 3).sum().backward()
    assert points.grad is not None
    assert bool((points.grad == 3).all())


def test_opposite_vectors_pass_finite_gradients() -> None:
    points = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    pass_gradient(points, -points.detach(), "rotation").sum().backward()
    assert points.grad is not None
    assert bool(points.grad.isfinite().all())


def test_codes_follow_the_means_of_their_rows() -> None:
    points, weights = rows(100), rows(100, 1, seed=7).abs()[:, 0]
    quantizer = Quantizer(points, weights, QuantizerSettings(5))
    moved = points + 1
    quantizer.follow(moved)
    for k in range(5):
        mine = quantizer.indices[0] == k
        expected = (moved[mine] * weights[mine, None]).sum(dim=0) / weights[mine].sum()
        torch.testing.assert_close(quantizer.codes()[0][k].detach(), expected)


def test_codes_without_rows_stay() -> None:
    fallback = torch.full((3, 2), 9.0)
    means = weighted_means(torch.ones(2, 2), torch.ones(2), torch.tensor([0, 2]), fallback)
    assert means.tolist() == [[1, 1], [9, 9], [1, 1]]


@pytest.mark.parametrize("learn", ["gradient", "simvq"])
def test_learnt_codes_descend_to_what_is_wanted(learn: str) -> None:
    points = rows(80)
    quantizer = Quantizer(points, torch.ones(80), QuantizerSettings(8, learn=learn))
    wanted = quantizer.restored().detach() * 1.5
    optimizer = torch.optim.Adam([p for p in quantizer.parameters() if p.requires_grad], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        (quantizer(points) - wanted).square().mean().backward()
        optimizer.step()
    assert float((quantizer.restored() - wanted).detach().square().mean()) < 0.01


def test_simvq_learns_one_map_and_leaves_the_codes() -> None:
    quantizer = Quantizer(rows(), torch.ones(200), QuantizerSettings(8, learn="simvq"))
    assert [p.shape for p in quantizer.parameters() if p.requires_grad] == [(3, 3)]


def test_entropy_of_known_shares() -> None:
    assert entropy_bits(torch.tensor([0, 0, 1, 2]), 4) == pytest.approx(1.5)
    assert entropy_bits(torch.arange(8), 8) == pytest.approx(3)
    assert entropy_bits(torch.zeros(0, dtype=torch.int64), 4) == 0
    assert not math.isnan(entropy_bits(torch.zeros(5, dtype=torch.int64), 4))
