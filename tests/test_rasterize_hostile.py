"""Arrays that no honest scene holds: they may cost a Gaussian, never the image, the gradients or the process."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import pytest
import torch
from conftest import Target
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import F64, front_camera, one_gaussian, random_gaussians, ring_of_cameras, with_gradients

from scene3d.core.cameras import Cameras
from scene3d.core.errors import BackendUnavailable
from scene3d.core.gaussians import Gaussians, cat
from scene3d.render import backends
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings, Render

ALL = RasterSettings(with_depth=True, with_normals=True)
PARAMS = ("means", "quats", "log_scales", "opacity_logits", "sh0", "shN")
EXTREMES = (0.0, 1e-30, 1e-7, 1.0, 69.0, 88.0, 1e4, 1e18, 1e30, 3e38)


def spoiled(scene: Gaussians, name: str, row: int, value: float) -> Gaussians:
    """The scene with one number of one parameter replaced."""
    tensor = scene.params()[name].clone()
    tensor[row].view(-1)[0] = value
    return Gaussians(**{**scene.params(), name: tensor})


def without(scene: Gaussians, row: int) -> Gaussians:
    return scene.select(torch.arange(len(scene)) != row)


def images(render: Render) -> list[torch.Tensor]:
    every = (render.rgb, render.alpha, render.depth, render.median_depth, render.normals)
    return [image for image in every if image is not None]


def total(render: Render) -> torch.Tensor:
    return torch.stack([image.sum() for image in images(render)]).sum()


def assert_finite_with_gradients(target: Target, scene: Gaussians, views: Cameras, options: RasterSettings) -> None:
    leaves = with_gradients(scene)
    render = target.render(leaves, views, options)
    assert all(image.isfinite().all() for image in images(render))
    total(render).backward()
    for name, value in leaves.params().items():
        assert value.grad is None or value.grad.isfinite().all(), name


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", PARAMS)
def test_a_gaussian_that_is_not_finite_is_dropped_and_counted(target: Target, name: str, value: float) -> None:
    scene, views = random_gaussians(10), ring_of_cameras(2)
    render = target.render(spoiled(scene, name, 3, value), views, ALL)
    expected = target.render(without(scene, 3), views, ALL)
    for a, b in zip(images(render), images(expected), strict=True):
        assert torch.equal(a, b)
    assert render.stats.n_culled_nonfinite == 1
    assert not render.stats.radii[:, 3].any()


@pytest.mark.parametrize("name", PARAMS)
def test_a_nan_does_not_spread_to_the_gradients_of_others(target: Target, name: str) -> None:
    scene, views = random_gaussians(10), ring_of_cameras(2)
    spoilt, sound = with_gradients(spoiled(scene, name, 3, math.nan)), with_gradients(without(scene, 3))
    for leaves in (spoilt, sound):
        total(target.render(leaves, views, ALL)).backward()
    for a, b in zip(spoilt.params().values(), sound.params().values(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert not a.grad[3].any()
        torch.testing.assert_close(a.grad[torch.arange(10) != 3], b.grad, rtol=1e-4, atol=1e-4)


def test_a_zero_quaternion_drops_its_gaussian(target: Target) -> None:
    scene, views = random_gaussians(10), ring_of_cameras(2)
    quats = scene.quats.clone()
    quats[3] = 0
    render = target.render(Gaussians(**{**scene.params(), "quats": quats}), views, ALL)
    assert torch.equal(render.rgb, target.render(without(scene, 3), views, ALL).rgb)
    assert render.stats.n_culled_nonfinite == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    name=st.sampled_from(PARAMS[:4]),
    value=st.sampled_from(EXTREMES),
    sign=st.sampled_from([-1, 1]),
    whole=st.booleans(),
    antialiased=st.booleans(),
)
def test_extreme_geometry_gives_finite_images_and_gradients(
    target: Target, name: str, value: float, sign: int, whole: bool, antialiased: bool
) -> None:
    scene = random_gaussians(8)
    tensor = scene.params()[name].clone()
    tensor[3].view(-1)[slice(None) if whole else slice(1)] = sign * value
    extreme = Gaussians(**{**scene.params(), name: tensor})
    assert_finite_with_gradients(target, extreme, ring_of_cameras(2), replace(ALL, antialiased=antialiased))


def test_scales_of_1e30_give_finite_images(target: Target) -> None:
    giant = one_gaussian(scales=(1e30, 1e30, 1e30))
    assert_finite_with_gradients(target, cat([giant, one_gaussian()]), front_camera(), ALL)


def test_vanishing_scales_show_a_dot(target: Target) -> None:
    dot = Gaussians(**{**one_gaussian(opacity=0.8).params(), "log_scales": torch.full((1, 3), -1e30, dtype=F64)})
    render = target.render(dot, front_camera())
    assert render.alpha[0, 16, 16, 0].item() == pytest.approx(0.8, abs=target.tolerance)
    assert_finite_with_gradients(target, dot, front_camera(), ALL)


def test_centres_on_the_camera_and_its_plane_are_dropped(target: Target) -> None:
    parts = [one_gaussian(mean=mean) for mean in [(0, 0, 0), (1, 0, 0), (1e-20, 0, 1e-20), (0, 0, -4)]]
    scene = cat(parts)
    render = target.render(scene, front_camera())
    assert not render.alpha.any()
    assert not render.stats.radii.any()
    assert_finite_with_gradients(target, scene, front_camera(), ALL)


def test_nothing_visible_still_gives_zero_gradients(target: Target) -> None:
    leaves = with_gradients(one_gaussian(mean=(0, 0, -4)))
    target.render(leaves, front_camera()).rgb.sum().backward()
    assert leaves.means.grad is not None
    assert all(value.grad is None or not value.grad.any() for value in leaves.params().values())


def test_a_pose_of_nan_shows_the_background(target: Target) -> None:
    views = front_camera()
    broken = Cameras(torch.full_like(views.viewmats, math.nan), views.Ks, views.sizes)
    render = target.render(one_gaussian(), broken, RasterSettings(background=(0.5, 0.25, 1.0)))
    assert torch.equal(render.rgb[0, 0, 0], torch.tensor([0.5, 0.25, 1.0], dtype=F64))


def test_strided_tensors_render_like_contiguous_ones(target: Target) -> None:
    scene, views = random_gaussians(10).to(dtype=target.dtype), ring_of_cameras(2)
    strided = scene.map(lambda value: value.transpose(0, -1).contiguous().transpose(0, -1))
    assert not strided.means.is_contiguous()
    turned = Cameras(views.viewmats.transpose(1, 2).contiguous().transpose(1, 2), views.Ks, views.sizes)
    assert torch.equal(target.render(strided, turned, ALL).rgb, target.render(scene, views, ALL).rgb)


def test_strided_gradients_are_accepted(target: Target) -> None:
    a, b = with_gradients(random_gaussians(10)), with_gradients(random_gaussians(10))
    weights = torch.randn(3, 37, 23, 2, generator=torch.Generator().manual_seed(0), dtype=F64).permute(3, 2, 1, 0)
    (target.render(a, ring_of_cameras(2)).rgb * weights).sum().backward()
    (target.render(b, ring_of_cameras(2)).rgb * weights.contiguous()).sum().backward()
    assert a.means.grad is not None
    assert b.means.grad is not None
    torch.testing.assert_close(a.means.grad, b.means.grad)


def test_inputs_are_not_changed(target: Target) -> None:
    scene, views = random_gaussians(10).to(target.device, target.dtype), ring_of_cameras(2)
    copies = scene.map(torch.clone)
    target.render(scene, views, ALL)
    assert all(torch.equal(a, b) for a, b in zip(scene.params().values(), copies.params().values(), strict=True))


def test_wrong_dtypes_are_named() -> None:
    scene, views = random_gaussians(3).to(dtype=torch.float32), front_camera().to(dtype=torch.float32)
    mixed = Gaussians(**{**scene.params(), "quats": scene.quats.double()})
    with pytest.raises(TypeError, match=r"quats: expected dtype torch.float32, got torch.float64. Convert it with"):
        rasterize(mixed, views)
    with pytest.raises(TypeError, match=r"viewmats: expected dtype torch.float32, got torch.float64"):
        rasterize(scene, front_camera())
    with pytest.raises(TypeError, match=r"means: expected a floating dtype, got torch.int64"):
        rasterize(scene.map(lambda value: value.long()), views)


def test_wrong_shapes_are_named() -> None:
    params = random_gaussians(5).params()
    with pytest.raises(ValueError, match=r"quats: expected shape \[N, 4\], got \[4, 4\] where N=5"):
        Gaussians(**{**params, "quats": params["quats"][:4]})


def test_wrong_cameras_are_named() -> None:
    views = ring_of_cameras(2)
    mixed = Cameras(views.viewmats, views.Ks, torch.tensor([[8, 8], [9, 8]]))
    with pytest.raises(ValueError, match=r"one size for all views.*\[\[8, 8\], \[9, 8\]\].*Call once per size"):
        rasterize(random_gaussians(1), mixed)
    with pytest.raises(ValueError, match=r"at least one view, got 0"):
        rasterize(random_gaussians(1), views.select([]))
    with pytest.raises(ValueError, match=r"at least 1 x 1 pixels"):
        rasterize(random_gaussians(1), Cameras(views.viewmats, views.Ks, views.sizes * 0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RasterSettings(sh_degree=3), r"sh_degree: expected 0 to 1, the degree stored, got 3"),
        (RasterSettings(near=2.0, far=1.0), r"near, far: expected 0 < near <= far, got 2.0 and 1.0"),
        (RasterSettings(eps2d=-1.0), r"eps2d: expected 0 or more square pixels, got -1.0"),
        (RasterSettings(eps2d=math.nan), r"eps2d: expected 0 or more"),
    ],
)
def test_wrong_settings_are_named(options: RasterSettings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rasterize(random_gaussians(1, sh_degree=1), front_camera(), options)


def test_an_unknown_backend_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"backend: expected auto or one of reference, cpu, .*got 'gpu'"):
        rasterize(random_gaussians(1), front_camera(), backend="gpu")


def test_an_unavailable_backend_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "why_unavailable", lambda name: "no CUDA device")
    with pytest.raises(
        BackendUnavailable, match=r"backend 'gsplat' is not available: no CUDA device. pip install gsplat"
    ):
        rasterize(random_gaussians(1), front_camera(), backend="gsplat")


def test_the_variable_replaces_auto_but_not_an_explicit_name(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    monkeypatch.setattr(backends, "why_unavailable", lambda name: None)
    assert backends.choose("auto", device) == "cpu"
    monkeypatch.setenv("SCENE3D_BACKEND", "reference")
    assert backends.choose("auto", device) == "reference"
    assert backends.choose("cpu", device) == "cpu"


def test_the_slow_reference_is_chosen_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("SCENE3D_BACKEND", raising=False)
    monkeypatch.setattr(backends, "why_unavailable", lambda name: "the native module is not built")
    backends._warn_slow.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert [backends.choose("auto", torch.device("cpu")) for _ in range(2)] == ["reference"] * 2
    backends._warn_slow.cache_clear()
    assert len(caplog.records) == 1
    assert "the native module is not built" in caplog.text


@pytest.mark.parametrize(
    ("name", "device"), [("cpu", "cpu"), ("reference", "cpu"), ("cuda", "cuda"), ("gsplat", "cuda")]
)
def test_gaussians_belong_on_the_device_of_their_backend(
    name: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SCENE3D_BACKEND", raising=False)
    monkeypatch.setattr(backends, "why_unavailable", lambda name: None)
    assert backends.device_for(name).type == device
    monkeypatch.setenv("SCENE3D_BACKEND", name)
    assert backends.device_for("auto").type == device


@pytest.mark.parametrize("name", ["cuda", "gsplat"])
def test_a_backend_that_does_not_run_here_has_no_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "why_unavailable", lambda name: "missing")
    with pytest.raises(BackendUnavailable, match="missing"):
        backends.device_for(name)


def test_without_a_device_gaussians_stay_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCENE3D_BACKEND", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backends, "why_unavailable", lambda name: None if name == "gsplat" else "missing")
    assert backends.device_for("auto").type == "cuda"
    monkeypatch.setattr(backends, "why_unavailable", lambda name: "missing")
    assert backends.device_for("auto").type == "cpu"


def test_other_dtypes_than_float32_go_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCENE3D_BACKEND", raising=False)
    assert backends.choose("auto", torch.device("cpu"), torch.float64) == "reference"


def test_a_backend_whose_module_is_missing_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends.MODULES, "cuda", "scene3d.render.no_such_module")
    assert backends.why_unavailable("cuda") == "not part of this installation"
    with pytest.raises(
        BackendUnavailable, match=r"backend 'cuda' is not available: not part of this installation\. Where nvcc is"
    ):
        backends.choose("cuda", torch.device("cpu"))
