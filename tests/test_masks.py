"""Masks in the rasterizer: factors on alpha whose gradient reaches what they hide, and pruning by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from strategies import F64, one_gaussian, random_gaussians, ring_of_cameras
from tiny_capture import tiny_capture, tiny_scene, write_tiny_capture
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.errors import BackendUnavailable
from scene3d.core.gaussians import Gaussians, cat
from scene3d.recon.fit import Hooks, fit
from scene3d.recon.mask_prune import MaskPruning, MaskSettings
from scene3d.recon.settings import FitSettings, LearningRates, StrategySettings
from scene3d.render import backends, cpu
from scene3d.render.rasterize import rasterize
from scene3d.render.reference import rasterize_dense
from scene3d.render.types import RasterSettings
from scene3d.stages import fit as fit_stage

needs_native = pytest.mark.skipif(cpu.why_unavailable() is not None, reason="the native module is not built")
COLOR = RasterSettings(background=(0.2, 0.4, 0.1))
# Float32 sums in another order.
CLOSE = {"rtol": 2e-3, "atol": 2e-5}


def scene_and_masks(n: int = 40) -> tuple[Gaussians, Cameras, Tensor]:
    scene = random_gaussians(n, sh_degree=1, seed=2)
    masks = torch.linspace(0, 1, n, dtype=F64)
    masks[::3] = 0
    return scene, ring_of_cameras(2, 40, 33, focal=40.0), masks


def test_masks_pass_gradcheck_in_the_reference():
    scene = random_gaussians(4, sh_degree=0)
    views = ring_of_cameras(1, 6, 6, focal=6.0)
    masks = torch.tensor([0.0, 1.0, 0.4, 0.0], dtype=F64, requires_grad=True)

    def image(masks: Tensor) -> Tensor:
        return rasterize_dense(scene, views, COLOR, cutoff=False, masks=masks).rgb

    assert torch.autograd.gradcheck(image, [masks])
    v = torch.autograd.grad(image(masks).square().sum(), masks)[0]
    assert bool((v != 0).all()), "a mask of 0 has a gradient"


@needs_native
def test_masks_pass_gradcheck_in_native_code():
    scene = random_gaussians(4, sh_degree=1)
    views = ring_of_cameras(1, 6, 6, focal=6.0)
    masks = torch.tensor([0.0, 1.0, 0.4, 0.0], dtype=F64)
    inputs = [value.requires_grad_() for value in (*scene.params().values(), masks)]

    def images(*values: Tensor) -> tuple[Tensor, Tensor]:
        render = cpu.rasterize_smooth(Gaussians(*values[:6]), views, COLOR, values[6])
        return render.rgb, render.alpha

    expected = rasterize_dense(scene, views, COLOR, cutoff=False, masks=masks)
    torch.testing.assert_close(images(*inputs)[0], expected.rgb, rtol=1e-9, atol=1e-9)
    assert torch.autograd.gradcheck(images, inputs, atol=1e-6, rtol=1e-5)


@needs_native
def test_tiles_give_the_images_and_gradients_of_the_reference():
    scene, views, masks = scene_and_masks()
    found = []
    for dtype, backend in ((torch.float64, "reference"), (torch.float32, "cpu")):
        leaves = scene.to(dtype=dtype).map(lambda value: value.clone().requires_grad_())
        mask = masks.to(dtype).requires_grad_()
        seen = replace(views, viewmats=views.viewmats.to(dtype), Ks=views.Ks.to(dtype))
        rgb = rasterize(leaves, seen, COLOR, backend, mask).rgb
        weight = torch.linspace(-1, 1, rgb.numel(), dtype=dtype).view_as(rgb)
        grads = torch.autograd.grad((rgb * weight).sum(), [*leaves.params().values(), mask])
        found.append([rgb.detach().double(), *(grad.double() for grad in grads)])
    for native, oracle in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(native, oracle, rtol=2e-3, atol=2e-3 * float(oracle.abs().max()))
    assert bool((found[1][-1][::3] != 0).any()), "hidden ones have a gradient"


@needs_native
def test_masks_of_one_change_nothing_and_masks_of_zero_hide():
    scene, views, _ = scene_and_masks()
    scene = scene.to(dtype=torch.float32)
    views = replace(views, viewmats=views.viewmats.float(), Ks=views.Ks.float())
    plain = rasterize(scene, views, COLOR, "cpu").rgb
    torch.testing.assert_close(rasterize(scene, views, COLOR, "cpu", torch.ones(40)).rgb, plain)
    half = (torch.arange(40) % 2).float()
    some = rasterize(scene.select(half > 0), views, COLOR, "cpu").rgb
    torch.testing.assert_close(rasterize(scene, views, COLOR, "cpu", half).rgb, some, **CLOSE)


def test_gradient_of_a_hidden_gaussian_is_what_showing_it_would_change():
    scene = one_gaussian(opacity=0.5)
    views = ring_of_cameras(1, 8, 8, focal=8.0)
    mask = torch.zeros(1, dtype=F64, requires_grad=True)
    (grad,) = torch.autograd.grad(rasterize(scene, views, COLOR, "reference", mask).rgb.sum(), mask)
    shown = rasterize(scene, views, COLOR, "reference").rgb.sum()
    hidden = rasterize(scene, views, COLOR, "reference", torch.zeros(1, dtype=F64)).rgb.sum()
    torch.testing.assert_close(grad[0], shown - hidden)


def test_wrong_masks_are_told():
    scene, views, masks = scene_and_masks()
    with pytest.raises(ValueError, match=r"masks: expected shape \[N\], got \[39\] where N=40"):
        rasterize(scene, views, COLOR, "reference", masks[1:])
    with pytest.raises(TypeError, match="masks: expected dtype"):
        rasterize(scene, views, COLOR, "reference", masks.float())


@needs_native
def test_what_takes_no_masks_says_so():
    scene, views, masks = scene_and_masks()
    with pytest.raises(BackendUnavailable, match="no depth and no normals with masks"):
        rasterize(scene, views, replace(COLOR, with_depth=True), "cpu", masks)


@needs_native
def test_fits_prune_by_masks_what_photos_do_not_show(tmp_path: Path):
    truth = tiny_scene()
    hidden = truth.payload.map(torch.clone)
    hidden = replace(hidden, means=hidden.means * 0.02, log_scales=hidden.log_scales - 3)
    first = cat([truth.payload, hidden])
    settings = FitSettings(
        max_steps=150,
        sh_degree=1,
        lrs=LearningRates(means=1e-5),
        strategy=StrategySettings(refine_stop=0.0, reset_every=0),
    )
    pruning, capture = MaskPruning(MaskSettings(weight=0.05, start=0.0, stop=0.9), seed=0), tiny_capture(truth)
    result = fit(capture, first, settings, Hooks(influence=pruning.influence))
    steps = iter(range(1, 1000))
    stopping = Hooks(influence=pruning.influence, checkpoint=tmp_path / "a.pt", should_stop=lambda: next(steps) >= 61)
    fit(capture, first, settings, stopping)
    resumed = fit(capture, first, settings, Hooks(influence=pruning.influence, checkpoint=tmp_path / "a.pt"))
    assert torch.equal(resumed.gaussians.means, result.gaussians.means)
    assert len(result.gaussians) < 50
    assert result.validation is not None
    assert result.validation.psnr > 30


def test_backends_without_masks_are_told(tmp_path: Path):
    capture = write_tiny_capture(tmp_path / "capture", tiny_scene())
    with pytest.raises(ValueError, match=r"backend: --mask-weight needs one that takes masks, .* got 'gsplat'"):
        fit_stage.run(fit_stage.Config(capture, tmp_path / "fit", mask_weight=0.02, backend="gsplat", max_steps=2))


def test_fits_with_a_backend_that_is_not_there_end_with_its_remedy(tmp_path: Path):
    if backends.why_unavailable("cuda") is None:
        pytest.skip("CUDA runs here")
    capture = write_tiny_capture(tmp_path / "capture", tiny_scene())
    with pytest.raises(BackendUnavailable, match=r"backend 'cuda' is not available: .* use --backend cpu"):
        fit_stage.run(fit_stage.Config(capture, tmp_path / "fit", backend="cuda", max_steps=2))
