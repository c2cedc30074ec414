"""Whole fits on a GPU that is none: every tensor is where it must be, and what comes out is what the CPU finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from pretend_device import WrongDevice, pretend_device
from tiny_capture import tiny_capture, tiny_scene

from scene3d.core.errors import BackendUnavailable
from scene3d.core.fields import FieldKind
from scene3d.core.push import Influence
from scene3d.ops import cuda_call
from scene3d.recon.field_fit import FieldFitResult, FieldHooks, fit_field
from scene3d.recon.field_settings import FieldFitSettings
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


FIELD_SETTINGS = FieldFitSettings(
    max_steps=14,
    batch_rays=96,
    color_rank=16,
    n_features=16,
    hidden=16,
    first_voxels=8**3,
    last_voxels=12**3,
    grow_at=(0.4, 0.7),
    mask_at=(0.3, 0.6),
    mask_after=2,
    leaf_nodes=4,
    lr_factors=0.04,
    box=(-1.5, -1.5, -1.5, 1.5, 1.5, 1.5),
    tv=1e-3,
)


def fields(settings: FieldFitSettings, hooks: FieldHooks = FieldHooks()) -> tuple[FieldFitResult, FieldFitResult]:  # noqa: B008
    """On the device, and on the CPU."""
    with pytest.MonkeyPatch.context() as patch, pretend_device(patch):
        found = fit_field(CAPTURE, replace(settings, backend="cuda"), hooks)
    return found, fit_field(CAPTURE, settings)


@pytest.mark.parametrize("kind", ["vm", "cp"])
def test_first_steps_of_fields_move_every_number_as_on_the_cpu(kind: FieldKind) -> None:
    found, expected = fields(replace(FIELD_SETTINGS, kind=kind, max_steps=12, grow_at=(), mask_at=(), tv=0.0))
    assert found.n_steps == expected.n_steps
    assert found.field.device.type == "cpu"
    for a, b in zip(found.field.factors(), expected.field.factors(), strict=True):
        # Where a gradient is rounding noise, Adam still takes a whole step: such numbers are few.
        assert (a - b).abs().flatten().quantile(0.95) < 1e-3


@pytest.mark.parametrize("kind", ["vm", "cp", "trivec"])
def test_fields_are_fitted_on_the_device_as_on_the_cpu(kind: FieldKind) -> None:
    found, expected = fields(replace(FIELD_SETTINGS, kind=kind, distortion=0.01))
    assert found.validation is not None
    assert expected.validation is not None
    assert found.validation.psnr == pytest.approx(expected.validation.psnr, abs=0.3)
    assert found.n_bad == expected.n_bad == 0


def test_structure_and_covers_stay_on_the_device(device: None) -> None:
    settings = replace(FIELD_SETTINGS, backend="cuda", kind="trivec", leaves="cover", s3im=0.1)
    assert fit_field(CAPTURE, settings).is_finished


def test_photos_that_do_not_fit_stay_with_the_host(device: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_call, "available_bytes", lambda device: 1000)
    assert fit_field(CAPTURE, replace(FIELD_SETTINGS, backend="cuda", max_steps=4)).is_finished


def test_radial_bases_are_refused_on_the_device(device: None) -> None:
    with pytest.raises(BackendUnavailable, match="it knows no radial bases"):
        fit_field(CAPTURE, replace(FIELD_SETTINGS, backend="cuda", kind="rbf"))


def test_other_backends_know_no_fields() -> None:
    with pytest.raises(ValueError, match="backend: expected auto, cpu or cuda for a field, got 'gsplat'"):
        replace(FIELD_SETTINGS, backend="gsplat")


def test_fields_without_bounds_are_refused_on_the_device(device: None) -> None:
    with pytest.raises(BackendUnavailable, match="it knows no fields without bounds"):
        fit_field(CAPTURE, replace(FIELD_SETTINGS, backend="cuda", box=None, space="contracted"))
