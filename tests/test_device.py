"""Whole fits on a GPU that is none: every tensor is where it must be, and what comes out is what the CPU finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from pretend_device import WrongDevice, pretend_device
from tiny_capture import tiny_capture, tiny_scene

from scene3d.core.push import Influence
from scene3d.ops import cuda_call
from scene3d.recon.fit import Hooks, LogLine, fit
from scene3d.recon.mask_prune import MaskPruning, MaskSettings
from scene3d.recon.settings import FitSettings, LearningRates, ResolutionSettings, StrategySettings, SurfaceName
from scene3d.recon.stereo import StereoView
from scene3d.recon.stereo_pull import StereoPull
from scene3d.recon.surface import lay_flat, surface_objective

pytest.importorskip("scene3d._cpu", reason="scene3d._cpu is not built")

SCENE = tiny_scene()
CAPTURE = tiny_capture(SCENE)
SETTINGS = FitSettings(
    max_steps=12,
    sh_degree=1,
    lrs=LearningRates(means=1e-3, means_final=1.0),
    strategy=StrategySettings(cap_max=40, refine_every=5),
    resolution=ResolutionSettings(),
)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with pretend_device(monkeypatch):
        yield


def last_psnr(settings: FitSettings, influence: Influence | None = None) -> float:
    first = SCENE.payload.map(torch.clone)
    first.sh0.add_(0.3)
    objective = None
    if settings.surface:
        objective = surface_objective(CAPTURE, settings)
        first = lay_flat(first, settings.surface_method)
    lines: list[LogLine] = []
    fit(CAPTURE, first, settings, Hooks(log=lines.append, objective=objective, influence=influence))
    assert lines[-1].psnr is not None
    return lines[-1].psnr


def psnrs(settings: FitSettings, influence: Influence | None = None) -> tuple[float, float]:
    """On the device, and on the CPU."""
    with pytest.MonkeyPatch.context() as patch, pretend_device(patch):
        found = last_psnr(replace(settings, backend="cuda"), influence)
    return found, last_psnr(replace(settings, backend="cpu"), influence)


def test_tensors_of_two_devices_do_not_mix(device: None) -> None:
    there, here = torch.zeros(3, device="cuda"), torch.zeros(3)
    assert (there + 1).device.type == "cuda"
    assert there.cpu().device.type == here.device.type == "cpu"
    for mix in (
        lambda: there + here,
        lambda: here[there.long()],
        lambda: there.numpy(),
        lambda: torch.cat([there, here]),
    ):
        with pytest.raises(WrongDevice):
            mix()
    with pytest.raises(WrongDevice, match="generator of the CPU"):
        torch.rand(3, device="cuda", generator=torch.Generator())
    with pytest.raises(WrongDevice, match="for the kernels"):
        cuda_call.module.probe_sum(torch.zeros(32, 1), there)


@pytest.mark.parametrize("name", ["default", "mcmc"])
def test_fits_of_splats_stay_on_the_device(name: str) -> None:
    settings = replace(SETTINGS, strategy=replace(SETTINGS.strategy, name=name, refine_stop=0.0))
    found, expected = psnrs(settings)
    assert found == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("name", ["default", "mcmc"])
def test_density_control_stays_on_the_device(name: str, device: None) -> None:
    strategy = replace(SETTINGS.strategy, name=name, reset_every=0.4)
    assert last_psnr(replace(SETTINGS, backend="cuda", strategy=strategy)) > 5


def test_poses_exposures_and_structure_stay_on_the_device(device: None) -> None:
    settings = replace(SETTINGS, backend="cuda", max_steps=4, pose_opt=True, exposure="affine")
    assert last_psnr(settings) > 5
    assert last_psnr(replace(settings, s3im=0.1)) > 5


def test_masks_stay_on_the_device() -> None:
    influence = MaskPruning(MaskSettings(start=0.1, stop=0.8), seed=0).influence
    found, expected = psnrs(replace(SETTINGS, strategy=StrategySettings(refine_stop=0.0)), influence)
    assert found == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("method", ["2dgs", "rade", "pgsr"])
def test_surface_fits_stay_on_the_device(method: SurfaceName) -> None:
    settings = replace(SETTINGS, surface=True, surface_method=method, strategy=StrategySettings(refine_stop=0.0))
    found, expected = psnrs(settings)
    assert found == pytest.approx(expected, abs=0.3)


def test_what_stereo_draws_stays_on_the_device(device: None) -> None:
    camera, shape = CAPTURE.cameras.select([1]), (24, 32)
    stereo = StereoView(camera, torch.full(shape, 4.0), torch.ones(*shape, 3).half(), torch.ones(shape).half())
    scene = SCENE.payload.to("cuda").map(lambda value: value.detach().requires_grad_())
    penalty = StereoPull({1: stereo}).penalty(scene, torch.ones(len(scene), dtype=torch.bool, device="cuda"), 1)
    assert penalty.device.type == "cuda"
    assert penalty.detach().item() > 0
