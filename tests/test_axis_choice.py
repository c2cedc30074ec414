"""Descriptions of the same Gaussian."""

from __future__ import annotations

import torch
from strategies import random_gaussians

from scene3d.ops import axis_choice, quaternions
from scene3d.ops.covariance import from_quats_scales


def coarse(quats: torch.Tensor) -> torch.Tensor:
    return quaternions.normalize((quats * 8).round() / 8)


def shape_error(quats: torch.Tensor, log_scales: torch.Tensor) -> torch.Tensor:
    truth, stored = (from_quats_scales(q, log_scales.exp()) for q in (quats, coarse(quats)))
    return (truth - stored).flatten(1).norm(dim=1)


def test_the_24_symmetries_are_different_rotations() -> None:
    turns, orders = axis_choice.symmetries()
    assert turns.shape == (24, 4)
    assert orders.shape == (24, 3)
    dots = (turns @ turns.T).abs()
    assert int((dots > 1 - 1e-9).sum()) == 24


def test_every_description_is_the_same_gaussian() -> None:
    gaussians = random_gaussians(50)
    truth = from_quats_scales(gaussians.quats, gaussians.scales)
    for turn, order in zip(*axis_choice.symmetries(), strict=True):
        quats = quaternions.multiply(gaussians.quats, turn.expand(50, 4))
        torch.testing.assert_close(from_quats_scales(quats, gaussians.scales[:, order]), truth)


def test_the_choice_is_the_same_gaussian_with_less_error() -> None:
    gaussians = random_gaussians(200)
    quats, log_scales = axis_choice.choose(gaussians.quats, gaussians.log_scales, coarse)
    covars = [from_quats_scales(q, s.exp()) for q, s in ((quats, log_scales), (gaussians.quats, gaussians.log_scales))]
    torch.testing.assert_close(*covars)
    before = shape_error(quaternions.normalize(gaussians.quats), gaussians.log_scales)
    assert float(shape_error(quats, log_scales).mean()) < 0.6 * float(before.mean())


def test_a_share_of_zero_keeps_every_description() -> None:
    gaussians = random_gaussians(20)
    quats, log_scales = axis_choice.choose(gaussians.quats, gaussians.log_scales, coarse, keep_below=0.0)
    assert torch.equal(log_scales, gaussians.log_scales)
    torch.testing.assert_close(quats, quaternions.normalize(gaussians.quats))


def test_balls_and_points_stay_as_they_are() -> None:
    quats, scales = torch.tensor([[0.5, 0.5, 0.5, 0.5]]), torch.full((1, 3), -30.0)
    found, log_scales = axis_choice.choose(quats, scales, coarse)
    assert torch.equal(found, quats)
    assert torch.equal(log_scales, scales)
