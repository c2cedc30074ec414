"""Density control: relocation keeps the picture, growth takes the highest gradients, sampling follows weights."""

import math
from dataclasses import replace

import pytest
import torch

from scene3d.recon import schedule
from scene3d.recon.densify import Clock, GradStats, count_limit, is_refine_step, sample_rows
from scene3d.recon.settings import FitSettings, LearningRates, ResolutionSettings, StrategySettings
from scene3d.recon.strategy_default import choose_growing
from scene3d.recon.strategy_mcmc import shared_opacity_and_scale


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_copies_of_a_gaussian_have_its_opacity_together(n: int) -> None:
    opacities = torch.tensor([0.05, 0.5, 0.9], dtype=torch.float64)
    shared, _ = shared_opacity_and_scale(opacities, torch.full((3,), n))
    torch.testing.assert_close(1 - (1 - shared) ** n, opacities)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_copies_of_a_gaussian_have_its_integral_along_a_line(n: int) -> None:
    opacity = torch.tensor([0.6], dtype=torch.float64)
    shared, factor = shared_opacity_and_scale(opacity, torch.tensor([n]))
    x = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
    profile = shared * torch.exp(-0.5 * (x / factor) ** 2)
    together = torch.trapezoid(1 - (1 - profile) ** n, x)
    assert float(together) == pytest.approx(0.6 * math.sqrt(2 * math.pi), rel=1e-3)


def test_growth_takes_the_highest_gradients_when_room_is_short() -> None:
    stats = GradStats(torch.tensor([3.0, 0.0, 8.0, 5.0, 9.0]), torch.tensor([1.0, 1, 1, 1, 3]))
    settings = StrategySettings(grow_grad2d=1.0)
    assert choose_growing(stats, settings, 2).tolist() == [2, 3]
    assert choose_growing(stats, settings, 10).tolist() == [0, 2, 3, 4]
    assert choose_growing(stats, settings, -1).tolist() == []


def test_rows_are_drawn_in_proportion_to_their_weights() -> None:
    rows = sample_rows(torch.tensor([1.0, 0.0, 3.0]), 40_000, torch.Generator().manual_seed(0))
    shares = torch.bincount(rows, minlength=3) / 40_000
    torch.testing.assert_close(shares, torch.tensor([0.25, 0.0, 0.75]), atol=0.01, rtol=0)


def test_refinement_keeps_to_its_window() -> None:
    settings = StrategySettings(refine_start=0.2, refine_stop=0.5, refine_every=10)
    steps = [s for s in range(1, 101) if is_refine_step(settings, Clock(s, s / 100, (s - 1) / 100))]
    assert steps == [20, 30, 40]


def test_the_count_rises_from_the_first_to_the_cap() -> None:
    settings = StrategySettings(cap_max=1000, grow_until=0.5)
    limits = [count_limit(settings, f, 100) for f in (0.0, 0.25, 0.5, 1.0)]
    assert limits == [100, 316, 1000, 1000]


def test_schedules_are_fractions_of_the_run() -> None:
    settings = FitSettings(
        max_steps=100,
        sh_every=0.25,
        lrs=LearningRates(means=1.0, means_final=0.01),
        resolution=ResolutionSettings((4, 2), (0.1, 0.5)),
    )
    assert [schedule.scale_at(settings.resolution, f) for f in (0.0, 0.1, 0.49, 0.5, 1.0)] == [4, 2, 2, 1, 1]
    assert [schedule.sh_degree_at(settings, f) for f in (0.0, 0.25, 0.5, 0.75, 1.0)] == [0, 1, 2, 3, 3]
    assert schedule.learning_rates(settings, 0.5, 2.0)["means"] == pytest.approx(0.2)
    assert schedule.run_fraction(replace(settings, time_limit=10.0), 20, 5.0) == 0.5
    assert schedule.run_fraction(settings, 20, 5.0) == 0.2
