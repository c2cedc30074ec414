"""S3IM: one for equal pixels, smaller the less they vary together, with gradients."""

from __future__ import annotations

import pytest
import torch

from scene3d.ops.stochastic_ssim import s3im


def pixels(seed: int, n: int = 160) -> torch.Tensor:
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def score(rgb: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return s3im(rgb, target, torch.Generator().manual_seed(5), repeats=4)


def test_equal_pixels_have_similarity_one():
    assert score(pixels(1), pixels(1)).item() == pytest.approx(1.0, abs=1e-12)


def test_what_does_not_vary_scores_worse_than_noise_around_the_truth():
    target = pixels(1)
    noisy = target + 0.1 * (pixels(2) - 0.5)
    flat = target.mean(dim=0).expand_as(target)
    assert score(flat, target) < 0.1 < 0.9 < score(noisy, target)


def test_gradients_pass_gradcheck():
    assert torch.autograd.gradcheck(lambda v: score(v, pixels(1, 32)), [pixels(2, 32).requires_grad_()])


def test_too_few_pixels_are_refused():
    with pytest.raises(ValueError, match="rgb: expected at least 16 pixels, got 7"):
        score(pixels(1, 7), pixels(2, 7))
