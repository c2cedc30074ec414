"""Fitting: it learns, it repeats itself to the byte, it survives being stopped and broken numbers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_capture import tiny_capture, tiny_scene

from scene3d.core.capture import Capture
from scene3d.core.errors import CaptureError, FormatError
from scene3d.core.gaussians import Gaussians
from scene3d.recon.fit import FitResult, Hooks, fit
from scene3d.recon.settings import FitSettings, ResolutionSettings, StrategySettings
from scene3d.render import cpu

SETTINGS = FitSettings(
    max_steps=60,
    sh_degree=1,
    sh_every=0.2,
    strategy=StrategySettings(cap_max=60, refine_start=0.1, refine_stop=0.9, refine_every=10, grow_grad2d=1e-6),
    resolution=ResolutionSettings((2,), (0.3,)),
    checkpoint_every=20,
)
MCMC = replace(SETTINGS, strategy=replace(SETTINGS.strategy, name="mcmc", noise_every=5))


@pytest.fixture(scope="module")
def capture() -> Capture:
    return tiny_capture(tiny_scene())


@pytest.fixture(scope="module")
def first() -> Gaussians:
    """The right scene, moved a little, in other colours."""
    scene = tiny_scene().payload
    g = torch.Generator().manual_seed(0)
    moved = scene.means + 0.05 * torch.randn(scene.means.shape, generator=g)
    return replace(scene, means=moved, sh0=torch.zeros_like(scene.sh0))


def assert_same(a: Gaussians, b: Gaussians) -> None:
    for name, value in a.params().items():
        assert torch.equal(value, b.params()[name]), name


def stopped_at(step: int, path: Path) -> Hooks:
    steps = iter(range(1, 10_000))
    return Hooks(should_stop=lambda: next(steps) >= step, checkpoint=path)


def psnr(result: FitResult) -> float:
    assert result.validation is not None
    return result.validation.psnr


def test_fitting_improves_held_out_views(capture: Capture, first: Gaussians) -> None:
    still = replace(
        SETTINGS,
        strategy=replace(SETTINGS.strategy, refine_start=2.0, reset_every=0.0),
        resolution=ResolutionSettings(),
    )
    before = fit(capture, first, replace(still, max_steps=1))
    after = fit(capture, first, replace(still, max_steps=150))
    assert psnr(after) > psnr(before) + 4


@pytest.mark.parametrize("settings", [SETTINGS, MCMC], ids=["default", "mcmc"])
def test_a_resumed_run_gives_the_bytes_of_an_uninterrupted_one(
    capture: Capture, first: Gaussians, settings: FitSettings, tmp_path: Path
) -> None:
    whole = fit(capture, first, settings)
    path = tmp_path / "checkpoint.pt"
    half = fit(capture, first, settings, stopped_at(33, path))
    assert not half.is_finished
    resumed = fit(capture, first, settings, Hooks(checkpoint=path))
    assert resumed.is_finished
    assert_same(resumed.gaussians, whole.gaussians)


@pytest.mark.skipif(cpu.why_unavailable() is not None, reason="the native module is not built")
@pytest.mark.parametrize("settings", [SETTINGS, MCMC], ids=["default", "mcmc"])
def test_the_number_of_threads_changes_no_byte(capture: Capture, first: Gaussians, settings: FitSettings) -> None:
    results = []
    before = cpu._cpu.n_threads()
    try:
        for n_threads in (1, 3):
            cpu._cpu.set_threads(n_threads)
            results.append(fit(capture, first, settings).gaussians)
    finally:
        cpu._cpu.set_threads(before)
    assert_same(*results)


def test_a_checkpoint_of_other_settings_is_refused(capture: Capture, first: Gaussians, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    fit(capture, first, SETTINGS, stopped_at(5, path))
    with pytest.raises(FormatError, match="--no-resume"):
        fit(capture, first, replace(SETTINGS, seed=7), Hooks(checkpoint=path))


def test_a_truncated_checkpoint_is_refused(capture: Capture, first: Gaussians, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    fit(capture, first, SETTINGS, stopped_at(5, path))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError):
        fit(capture, first, SETTINGS, Hooks(checkpoint=path))


def test_gaussians_that_are_not_finite_are_left_out(capture: Capture, first: Gaussians) -> None:
    means = first.means.clone()
    means[2] = torch.nan
    result = fit(capture, replace(first, means=means), replace(SETTINGS, max_steps=5))
    assert bool(result.gaussians.is_finite().all())
    assert len(result.gaussians) == len(first) - 1


@pytest.mark.parametrize("settings", [SETTINGS, MCMC], ids=["default", "mcmc"])
def test_the_cap_is_kept_and_reached(capture: Capture, first: Gaussians, settings: FitSettings) -> None:
    counts: list[int] = []
    hooks = Hooks(log=lambda line: counts.append(line.n_gaussians))
    result = fit(capture, first, settings, hooks)
    assert len(first) < max([*counts, len(result.gaussians)]) <= settings.strategy.cap_max


def test_no_training_photos_are_an_error(capture: Capture, first: Gaussians) -> None:
    with pytest.raises(CaptureError, match="no training photos"):
        fit(replace(capture, train=()), first, SETTINGS)
