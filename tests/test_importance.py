"""Blend weights and sensitivities against what they stand for."""

import torch
from small_scenes import blob, views_around

from scene3d.compress.importance import blend_weights, sensitivities
from scene3d.core.gaussians import Gaussians
from scene3d.render.rasterize import rasterize


def test_weights_of_all_gaussians_sum_to_alpha() -> None:
    scene, views = blob(60), views_around(3)
    alpha = rasterize(scene, views).alpha.sum(dim=(1, 2, 3))
    torch.testing.assert_close(blend_weights(scene, views).sum(dim=1), alpha, rtol=1e-4, atol=1e-3)


def test_weights_tell_images_of_gaussians_by_their_colours() -> None:
    scene, views = blob(40, sh_degree=0), views_around(2)
    render = rasterize(scene, views).rgb[..., 0].sum(dim=(1, 2))
    colors = (0.5 + 0.28209479177387814 * scene.sh0[:, 0, 0]).clamp(min=0)
    torch.testing.assert_close(blend_weights(scene, views) @ colors, render, rtol=1e-4, atol=1e-3)


def test_black_gaussians_have_weights_too() -> None:
    scene, views = blob(10, sh_degree=0), views_around(1)
    black = Gaussians(**{**scene.params(), "sh0": torch.full_like(scene.sh0, -9.0)})
    assert bool((blend_weights(black, views) == blend_weights(scene, views)).all())


def test_gaussians_behind_the_views_have_no_weight() -> None:
    scene = blob(5)
    hidden = Gaussians(**{**scene.params(), "means": scene.means + torch.tensor([0.0, 0, 900.0])})
    view = views_around(4).select([1])
    assert float(blend_weights(hidden, view).sum()) == 0


def test_sensitivity_predicts_the_squared_error_of_noise() -> None:
    scene, views = blob(50), views_around(3)
    predicted = sensitivities(scene, views, n_probes=12)
    before = rasterize(scene, views).rgb
    g = torch.Generator().manual_seed(5)
    for name in ("means", "log_scales", "opacity_logits", "sh0", "shN"):
        values = scene.params()
        step, measured = 1e-3, 0.0
        for _ in range(10):
            noise = step * torch.randn(values[name].shape, generator=g)
            noisy = Gaussians(**{**values, name: values[name] + noise})
            measured += float((rasterize(noisy, views).rgb - before).square().sum()) / 10
        # The estimate is a mean of squares over few probes and noises: it holds within tens of percent.
        assert 0.6 < measured / (step**2 * float(predicted[name].sum())) < 1.6, name


def test_sensitivities_are_the_same_for_the_same_seed() -> None:
    scene, views = blob(20), views_around(2)
    first, second = (sensitivities(scene, views, seed=3) for _ in range(2))
    assert all(bool((first[name] == second[name]).all()) for name in first)


def test_a_scene_without_higher_degrees_has_empty_sensitivities_for_them() -> None:
    assert sensitivities(blob(5, sh_degree=0), views_around(1))["shN"].shape == (5, 0, 3)
