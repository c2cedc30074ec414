"""Fits whose steps go through the CUDA kernels, run on the host."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from emulation import load_emulated
from tiny_capture import tiny_capture, tiny_scene

from scene3d.ops import cuda_call
from scene3d.recon.fit import Hooks, LogLine, fit
from scene3d.recon.settings import FitSettings, LearningRates, ResolutionSettings, StrategySettings
from scene3d.render import backends, cuda

emulated = load_emulated()
pytest.importorskip("scene3d._cpu", reason="scene3d._cpu is not built")

SCENE = tiny_scene()
CAPTURE = tiny_capture(SCENE)
SETTINGS = FitSettings(
    max_steps=25,
    sh_degree=1,
    backend="cuda",
    lrs=LearningRates(means=1e-3, means_final=1.0, sh0=2e-2),
    strategy=StrategySettings(cap_max=40, refine_every=10),
    resolution=ResolutionSettings(),
)


@pytest.fixture(autouse=True)
def emulation_in_the_place_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_call, "module", emulated)
    monkeypatch.setattr(cuda, "why_unavailable", lambda: None)
    monkeypatch.setattr(backends, "device_for", lambda backend: torch.device("cpu"))


def losses_of(settings: FitSettings) -> list[LogLine]:
    first = SCENE.payload.map(torch.clone)
    first.sh0.add_(0.3)
    lines: list[LogLine] = []
    result = fit(CAPTURE, first, replace(settings, eval_steps=(1, 4)), Hooks(log=lines.append))
    assert result.is_finished
    return lines


@pytest.mark.parametrize("name", ["default", "mcmc"])
def test_fit_brings_renders_nearer_to_the_photos(name: str) -> None:
    # Without room to grow: what is split needs more steps than these.
    strategy = replace(SETTINGS.strategy, name=name, absgrad=name == "default", reset_every=0.0, cap_max=30)
    lines = losses_of(replace(SETTINGS, strategy=strategy))
    psnrs = [line.psnr for line in lines if line.psnr is not None]
    assert psnrs[-1] > psnrs[0] + 3


def test_first_steps_are_those_of_the_cpu() -> None:
    found, expected = (losses_of(replace(SETTINGS, max_steps=4, backend=name)) for name in ("cuda", "cpu"))
    assert found[-1].psnr == pytest.approx(expected[-1].psnr, abs=0.05)


def test_poses_and_exposures_are_refined() -> None:
    lines = losses_of(replace(SETTINGS, max_steps=6, pose_opt=True, exposure="affine"))
    assert lines[-1].psnr is not None
