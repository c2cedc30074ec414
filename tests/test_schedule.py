"""Schedules, presets and the forecast."""

from dataclasses import replace

import pytest
import torch
from tiny_capture import tiny_capture, tiny_scene

from scene3d.core.capture import Photo
from scene3d.recon import presets, schedule
from scene3d.recon.forecast import CostModel, forecast, measure_cost
from scene3d.recon.initialize import initialize
from scene3d.recon.photos import PhotoStore, reduce_photo, reduced_size
from scene3d.recon.settings import FitSettings, LearningRates, ResolutionSettings, StrategySettings


def test_learning_rate_of_means_falls_to_one_percent():
    settings = FitSettings(lrs=LearningRates(means=2.0, means_final=0.01))
    rates = [schedule.learning_rates(settings, f, extent=3.0)["means"] for f in (0.0, 0.5, 1.0)]
    assert rates == pytest.approx([6.0, 0.6, 0.06])


def test_schedules_keep_their_shape_when_the_run_is_shorter():
    for n in (300, 30_000):
        settings = FitSettings(max_steps=n, sh_every=0.1)
        steps = [next(s for s in range(n) if schedule.sh_degree_at(settings, s / n) == d) for d in (1, 2, 3)]
        assert steps == [n // 10, n // 5, 3 * n // 10]


def test_sh_degree_stops_at_the_highest():
    assert schedule.sh_degree_at(FitSettings(sh_degree=2, sh_every=0.1), 0.99) == 2


def test_resolution_goes_from_coarse_to_fine():
    resolution = ResolutionSettings((4, 2), (0.25, 0.5))
    assert [schedule.scale_at(resolution, f) for f in (0.0, 0.24, 0.25, 0.49, 0.5, 1.0)] == [4, 4, 2, 2, 1, 1]


def test_resolution_needs_one_fraction_per_scale():
    with pytest.raises(ValueError, match=r"until: expected 2 fractions, one per scale, got 1"):
        ResolutionSettings((4, 2), (0.5,))


def test_small_photos_are_left_after_some_steps_in_long_runs():
    resolution = ResolutionSettings((4, 2), (0.25, 0.5), (100, 300))
    assert [schedule.scale_at(resolution, 0.01, step) for step in (0, 99, 100, 299, 300)] == [4, 4, 2, 2, 1]


def test_scales_without_a_limit_are_refused():
    with pytest.raises(ValueError, match="most_steps"):
        ResolutionSettings((8, 4, 2), (0.1, 0.2, 0.3))


def test_clock_leads_where_it_is_ahead_of_the_steps():
    settings = FitSettings(max_steps=100, time_limit=10.0)
    assert schedule.run_fraction(settings, 10, 5.0) == 0.5
    assert schedule.run_fraction(settings, 60, 5.0) == 0.6
    assert schedule.run_fraction(settings, 60, 50.0) == 1.0
    assert schedule.run_fraction(replace(settings, time_limit=None), 60, 50.0) == 0.6


def test_tiny_photos_are_not_reduced_below_the_smallest_side():
    assert reduced_size(400, 200, 4) == (100, 50)
    assert reduced_size(100, 64, 4) == (50, 32)
    assert reduced_size(20, 10, 4) == (20, 10)


def test_reduced_photo_averages_areas():
    rgb = torch.zeros(64, 64, 3, dtype=torch.uint8)
    rgb[:, 1::2] = 200
    assert reduce_photo(Photo(rgb), 2).rgb.unique().tolist() == [100]


def test_masked_pixels_do_not_leak_into_reduced_photos():
    rgb = torch.full((64, 64, 3), 80, dtype=torch.uint8)
    mask = torch.full((64, 64), 255, dtype=torch.uint8)
    rgb[:, 1::2], mask[:, 1::2] = 255, 0
    photo = reduce_photo(Photo(rgb, mask=mask), 2)
    assert photo.rgb.unique().tolist() == [80]
    assert photo.mask is not None
    assert photo.mask.unique().tolist() == [128]


def test_reduced_photo_with_alpha_is_premultiplied():
    rgb = torch.full((64, 64, 3), 200, dtype=torch.uint8)
    alpha = torch.zeros(64, 64, dtype=torch.uint8)
    alpha[:, ::2] = 255
    photo = reduce_photo(Photo(rgb, alpha), 2)
    assert photo.rgb.unique().tolist() == [100]
    assert photo.alpha is not None
    assert photo.alpha.unique().tolist() == [128]


def test_photo_with_alpha_is_put_on_the_background():
    alpha = torch.full((24, 32), 51, dtype=torch.uint8)
    capture = tiny_capture(tiny_scene(), alpha=alpha)
    target = PhotoStore(capture).target(1, 1)
    expected = capture.load(1).rgb / 255 * 0.2 + 0.8 * torch.tensor([1.0, 0.5, 0.0])
    torch.testing.assert_close(target.over((1.0, 0.5, 0.0)), expected)


def test_reduced_photos_are_kept_only_within_the_budget():
    capture = tiny_capture(tiny_scene())
    calls = []
    counted = replace(capture, load=lambda i: calls.append(i) or capture.load(i))
    kept, dropped = PhotoStore(counted), PhotoStore(counted, budget_bytes=10)
    for store, n_calls in ((kept, 1), (dropped, 2)):
        calls.clear()
        store.target(1, 2)
        store.target(1, 2)
        assert len(calls) == n_calls


@pytest.mark.parametrize("name", ["fast", "balanced", "best"])
def test_presets_keep_their_promises(name: presets.PresetName):
    settings = presets.preset_settings(name, tiny_capture(tiny_scene()), max_steps=123)
    assert settings.max_steps == 123
    assert settings.strategy.cap_max >= 20_000
    assert settings.resolution.until[-1] < 1


def test_presets_rise_in_steps_and_count():
    settings = [preset(2_000_000) for preset in (presets.fast, presets.balanced, presets.best)]
    assert [s.max_steps for s in settings] == sorted(s.max_steps for s in settings)
    assert [s.strategy.cap_max for s in settings] == [60_000, 200_000, 1_000_000]


def test_forecast_adds_up_the_schedules():
    capture = tiny_capture(tiny_scene())
    strategy = StrategySettings(cap_max=100)
    settings = FitSettings(max_steps=1000, strategy=strategy)
    expected = forecast(capture, 100, settings, CostModel(0.001, 1e-5, 1e-6))
    assert expected.seconds == pytest.approx(1000 * (0.001 + 100e-5 + 24 * 32 * 1e-6))
    assert expected.n_gaussians == 100
    limited = forecast(capture, 100, replace(settings, time_limit=1.5), CostModel(0.001, 1e-5, 1e-6))
    assert limited.seconds == 1.5


def test_measuring_the_cost_changes_nothing():
    capture = tiny_capture(tiny_scene())
    gaussians = initialize(capture, 0).select(torch.arange(64))
    before = gaussians.map(torch.clone)
    cost = measure_cost(capture, gaussians, FitSettings(backend="reference"))
    assert min(cost.base, cost.per_gaussian, cost.per_pixel) >= 0
    for a, b in zip(before.params().values(), gaussians.params().values(), strict=True):
        assert torch.equal(a, b)
