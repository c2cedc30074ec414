"""Gradients: the reference against finite differences, every other backend against the reference in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comparison import ALL, EVERY_IMAGE, NAMES, Losses, compare, gradients, leaves
from conftest import Target
from strategies import F64, front_camera, one_gaussian, random_gaussians, ring_of_cameras, with_gradients
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.render import cpu
from scene3d.render.rasterize import rasterize
from scene3d.render.reference import rasterize_dense
from scene3d.render.types import RasterSettings, Render


@pytest.fixture
def other(target: Target) -> Target:
    """A backend that is not the reference."""
    if target.name == "reference":
        pytest.skip("backend reference: it is what the others are compared with")
    return target


def smooth_images(settings: RasterSettings, views: Cameras, *values: Tensor) -> tuple[Tensor, ...]:
    """The reference without thresholds, as a function of plain tensors."""
    moved = Cameras(values[6], views.Ks, views.sizes)
    render = rasterize_dense(Gaussians(*values[:6]), moved, settings, cutoff=False)
    images = (render.rgb, render.alpha, render.depth, render.median_depth, render.normals)
    return tuple(image for image in images if image is not None)


def blended_images(render: Render) -> tuple[Tensor, ...]:
    """Images that are sums of weights: depth is given times alpha, which at 1e-15 has no digits left to divide by."""
    assert render.depth is not None
    assert render.normals is not None
    return render.rgb, render.alpha, render.depth * render.alpha, render.normals


@pytest.mark.parametrize("antialiased", [False, True])
def test_the_reference_passes_gradcheck(antialiased: bool) -> None:
    scene, views = leaves(random_gaussians(4, sh_degree=1), ring_of_cameras(1, 6, 6, focal=6.0))
    settings = replace(ALL, antialiased=antialiased)
    inputs = [*scene.params().values(), views.viewmats]
    assert torch.autograd.gradcheck(lambda *v: smooth_images(settings, views, *v), inputs, atol=1e-6, rtol=1e-5)


def test_the_reference_passes_gradcheck_for_all_sh_degrees_and_views() -> None:
    scene, views = leaves(random_gaussians(4, seed=1), ring_of_cameras(2, 6, 6, focal=6.0))
    inputs = [*scene.params().values(), views.viewmats]
    assert torch.autograd.gradcheck(lambda *v: smooth_images(ALL, views, *v), inputs, fast_mode=True)


@pytest.mark.parametrize("antialiased", [False, True])
def test_the_native_maths_passes_gradcheck(antialiased: bool) -> None:
    reason = cpu.why_unavailable()
    if reason is not None:
        pytest.skip(f"backend cpu: {reason}")
    scene, views = leaves(random_gaussians(4, sh_degree=1), ring_of_cameras(1, 6, 6, focal=6.0))
    settings = replace(ALL, antialiased=antialiased)

    def images(*values: Tensor) -> tuple[Tensor, ...]:
        moved = Cameras(values[6], views.Ks, views.sizes)
        return blended_images(cpu.rasterize_smooth(Gaussians(*values[:6]), moved, settings))

    inputs = [*scene.params().values(), views.viewmats]
    expected = blended_images(rasterize_dense(scene, views, settings, cutoff=False))
    for found, wanted in zip(images(*inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    assert torch.autograd.gradcheck(images, inputs, atol=1e-6, rtol=1e-5)


def test_gradients_of_the_reference_do_not_depend_on_chunks() -> None:
    found = []
    for pairs_per_chunk in (10**9, 500):
        scene, views = leaves(random_gaussians(20), ring_of_cameras(2))
        render = rasterize_dense(scene, views, replace(ALL, absgrad=True), pairs_per_chunk=pairs_per_chunk)
        EVERY_IMAGE(render).backward()
        found.append({**gradients(scene, views), "grad2d": render.stats.grad2d, "rgb": render.rgb.detach()})
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_match_finite_differences(target: Target, name: str) -> None:
    scene, views = leaves(random_gaussians(6, spread=0.5), ring_of_cameras(2))
    loss = Losses(rgb=1.0, alpha=0.5)
    loss(target.render(scene, views, ALL)).backward()
    values = {**scene.params(), "viewmats": views.viewmats}
    direction = torch.randn(values[name].shape, generator=torch.Generator().manual_seed(3), dtype=F64)
    direction /= direction.norm()
    # The difference quotient is taken on the reference in float64: float32 has too few digits for it.
    step, losses = 1e-6, []
    for sign in (1, -1):
        moved = {**values, name: values[name].detach() + sign * step * direction}
        moved_views = Cameras(moved.pop("viewmats"), views.Ks, views.sizes)
        losses.append(loss(rasterize(Gaussians(**moved), moved_views, ALL, "reference")).item())
    slope = (losses[0] - losses[1]) / (2 * step)
    found = (gradients(scene, views)[name] * direction).sum().item()
    assert found == pytest.approx(slope, rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("antialiased", [False, True], ids=["classic", "antialiased"])
@pytest.mark.parametrize(
    "loss",
    [Losses(), Losses(0.0, alpha=1.0), Losses(0.0, depth=1.0), Losses(0.0, median_depth=1.0), Losses(0.0, normals=1.0)],
    ids=["rgb", "alpha", "depth", "median", "normals"],
)
def test_each_image_has_the_gradients_of_the_reference(other: Target, loss: Losses, antialiased: bool) -> None:
    compare(other, random_gaussians(60), ring_of_cameras(2), replace(ALL, antialiased=antialiased), loss)


@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
def test_each_sh_degree_has_the_gradients_of_the_reference(other: Target, sh_degree: int) -> None:
    scene = random_gaussians(60, seed=sh_degree, sh_degree=sh_degree)
    compare(other, scene, ring_of_cameras(2), ALL, EVERY_IMAGE)


@pytest.mark.parametrize("sh_degree", [0, 1, 2])
def test_coefficients_above_the_degree_get_no_gradient(target: Target, sh_degree: int) -> None:
    scene, views = leaves(random_gaussians(20), ring_of_cameras(2))
    target.render(scene, views, replace(ALL, sh_degree=sh_degree)).rgb.square().sum().backward()
    v_shN = gradients(scene, views)["shN"]
    used = (sh_degree + 1) ** 2 - 1
    assert not v_shN[:, used:].any()
    assert v_shN[:, :used].any() == (used > 0)


@pytest.mark.parametrize("seed", range(4))
def test_colour_only_calls_have_the_gradients_of_the_reference(other: Target, seed: int) -> None:
    settings = RasterSettings(background=(1.0, 0.5, 0.2), antialiased=seed % 2 == 1)
    compare(other, random_gaussians(200, seed=seed, spread=0.8), ring_of_cameras(3, seed=seed), settings, Losses())


@pytest.mark.parametrize(("width", "height"), [(1, 1), (16, 16), (17, 65), (64, 48)])
def test_each_size_has_the_gradients_of_the_reference(other: Target, width: int, height: int) -> None:
    focal = 0.8 * max(width, height, 8)
    compare(other, random_gaussians(50, seed=2), ring_of_cameras(2, width, height, focal), ALL, EVERY_IMAGE)


def test_small_distant_gaussians_have_the_gradients_of_the_reference(other: Target) -> None:
    scene = random_gaussians(300, seed=5)
    small = Gaussians(**{**scene.params(), "log_scales": scene.log_scales - 2.5})
    compare(other, small, ring_of_cameras(2), replace(ALL, antialiased=True), EVERY_IMAGE)
    compare(other, small, ring_of_cameras(2), ALL, EVERY_IMAGE)


def test_giants_beside_the_image_have_the_gradients_of_the_reference(other: Target) -> None:
    scene = random_gaussians(40, seed=6, spread=2.5)
    giants = Gaussians(**{**scene.params(), "log_scales": scene.log_scales + 1.5})
    compare(other, giants, ring_of_cameras(2), ALL, EVERY_IMAGE)


@pytest.mark.parametrize(
    "log_scales", [(0.5, -6.0, -6.0), (-0.5, -0.5, -9.0), (-8.0, -8.0, -8.0)], ids=["needles", "discs", "points"]
)
def test_degenerate_shapes_have_the_gradients_of_the_reference(
    other: Target, log_scales: tuple[float, float, float]
) -> None:
    scene = random_gaussians(60, seed=11)
    same = torch.tensor(log_scales, dtype=torch.float32).to(F64).expand(60, 3)
    compare(other, Gaussians(**{**scene.params(), "log_scales": same}), ring_of_cameras(2), ALL, EVERY_IMAGE)


def test_antialiased_needles_have_the_gradients_of_the_reference(other: Target) -> None:
    scene = random_gaussians(60, seed=11)
    needles = torch.tensor([0.5, -9.0, -9.0], dtype=F64).expand(60, 3)
    thin = Gaussians(**{**scene.params(), "log_scales": needles, "opacity_logits": scene.opacity_logits + 6})
    compare(other, thin, ring_of_cameras(2), RasterSettings(antialiased=True), Losses())


def test_views_from_within_have_the_gradients_of_the_reference(other: Target) -> None:
    compare(other, random_gaussians(150, seed=12, spread=4.0), ring_of_cameras(3), ALL, EVERY_IMAGE)


def test_opaque_layers_have_the_gradients_of_the_reference(other: Target) -> None:
    scene = random_gaussians(150, seed=8)
    opaque = Gaussians(**{**scene.params(), "opacity_logits": scene.opacity_logits + 3})
    compare(other, opaque, ring_of_cameras(2), ALL, EVERY_IMAGE)


@pytest.mark.parametrize("absgrad", [False, True])
def test_screen_gradients_match_the_reference(other: Target, absgrad: bool) -> None:
    scene, views = random_gaussians(80, seed=9), ring_of_cameras(2)
    settings = RasterSettings(absgrad=absgrad)
    compare(other, scene, views, settings, Losses())


def test_screen_gradient_is_that_of_moving_the_image(target: Target) -> None:
    views = front_camera()
    K = views.Ks.clone().requires_grad_()
    moved = Cameras(views.viewmats, K, views.sizes)
    gaussian = one_gaussian(mean=(0.3, -0.2, 4.0))
    Losses()(rasterize(gaussian, moved, RasterSettings(), "reference")).backward()
    scene = with_gradients(gaussian)
    render = target.render(scene, views)
    assert not render.stats.grad2d.any()
    Losses()(render).backward()
    assert K.grad is not None
    assert render.stats.grad2d.item() == pytest.approx(K.grad[0, :2, 2].norm().item(), rel=1e-3)


def test_absolute_screen_gradients_do_not_cancel(target: Target) -> None:
    found = []
    for absgrad in (False, True):
        scene = with_gradients(one_gaussian())
        render = target.render(scene, front_camera(), RasterSettings(absgrad=absgrad))
        render.rgb.sum().backward()  # By symmetry, the pixels left and right pull alike.
        found.append(render.stats.grad2d.item())
    assert found[0] < 1e-3
    assert found[1] > 10


def test_gradients_flow_to_what_asks_for_them_only(target: Target) -> None:
    scene, views = random_gaussians(10), ring_of_cameras(1)
    means = scene.means.clone().requires_grad_()
    partly = Gaussians(**{**scene.params(), "means": means})
    full = with_gradients(scene)
    target.render(partly, views).rgb.square().sum().backward()
    target.render(full, views).rgb.square().sum().backward()
    assert means.grad is not None
    assert full.means.grad is not None
    torch.testing.assert_close(means.grad, full.means.grad)


def test_poses_alone_can_be_refined(target: Target) -> None:
    views = ring_of_cameras(2)
    viewmats = views.viewmats.clone().requires_grad_()
    target.render(random_gaussians(10), Cameras(viewmats, views.Ks, views.sizes)).rgb.square().sum().backward()
    assert viewmats.grad is not None
    assert viewmats.grad[:, :3].abs().amin(dim=(1, 2)).min() > 0
    assert not viewmats.grad[:, 3].any()


def test_no_graph_is_kept_without_gradients(target: Target) -> None:
    with torch.no_grad():
        assert not target.render(with_gradients(random_gaussians(5)), ring_of_cameras(1)).rgb.requires_grad
