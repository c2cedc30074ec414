"""Pruning keeps what is seen, and tuning makes up for what is not."""

import pytest
import torch
from small_scenes import blob, views_around

from scene3d.compress.distill import Leaf, Teacher, compensate, distill
from scene3d.compress.importance import blend_weights
from scene3d.compress.prune import choose_sh_degrees, cut_sh, keep_heaviest, sh_errors
from scene3d.core.gaussians import Gaussians
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings


def squared_error(a: Gaussians, b: Gaussians) -> float:
    views = views_around(6)
    return float((rasterize(a, views).rgb - rasterize(b, views).rgb).square().mean())


def test_the_lightest_go_first() -> None:
    weights = torch.tensor([[3.0, 0.0, 1.0, 2.0], [0.0, 1.0, 1.0, 2.0]])
    assert keep_heaviest(weights, 0.5).tolist() == [True, False, False, True]
    assert keep_heaviest(weights, 0.0).all()
    assert not keep_heaviest(weights, 1.0).any()


def test_a_share_above_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"share: expected 0 to 1, got 1.5"):
        keep_heaviest(torch.zeros(1, 3), 1.5)


def test_pruning_by_weight_harms_less_than_pruning_at_random() -> None:
    scene = blob(300)
    weights = blend_weights(scene, views_around(6))
    random = torch.rand(300, generator=torch.Generator().manual_seed(0)).argsort() >= 90
    by_weight = scene.select(keep_heaviest(weights, 0.3))
    assert squared_error(by_weight, scene) < 0.3 * squared_error(scene.select(random), scene)


def test_compensation_makes_up_for_a_part_of_what_pruning_lost() -> None:
    scene, views = blob(300), views_around(6)
    left = scene.select(keep_heaviest(blend_weights(scene, views), 0.3))
    tuned = compensate(left, Teacher(scene, views, RasterSettings()), n_steps=40)
    assert squared_error(tuned, scene) < 0.8 * squared_error(left, scene)


def test_no_steps_change_nothing() -> None:
    scene, views = blob(20), views_around(2)
    tuned = compensate(scene, Teacher(scene, views, RasterSettings()), n_steps=0)
    assert all(bool((a == b).all()) for a, b in zip(tuned.params().values(), scene.params().values(), strict=True))


def test_distillation_gives_the_same_bytes_twice() -> None:
    scene, views = blob(40), views_around(3)
    results = []
    for _ in range(2):
        sh0 = torch.zeros_like(scene.sh0).requires_grad_()
        student = Gaussians(**{**scene.params(), "sh0": sh0})
        distill(lambda step, s=student: s, [Leaf(sh0, 0.05)], Teacher(scene, views, RasterSettings()), 10, seed=1)
        results.append(sh0.detach())
    assert bool((results[0] == results[1]).all())


def test_sh_errors_fall_with_the_degree_kept() -> None:
    scene, views = blob(30, sh_degree=3), views_around(4)
    errors = sh_errors(scene, views, blend_weights(scene, views))
    assert errors.shape == (3, 30)
    assert bool((errors.sum(dim=1).diff() < 0).all())


def test_tolerance_decides_between_all_and_nothing() -> None:
    errors = torch.tensor([[4.0, 0.0], [1.0, 0.0]])
    assert choose_sh_degrees(errors, 0.0).tolist() == [2, 0]
    # Cutting to degree 1 saves 5 coefficients, to degree 0 saves 8.
    assert choose_sh_degrees(errors, 0.2).tolist() == [1, 0]
    assert choose_sh_degrees(errors, 0.5).tolist() == [0, 0]


def test_cut_coefficients_are_zero_and_unused_degrees_go() -> None:
    scene = blob(3, sh_degree=3)
    cut = cut_sh(scene, torch.tensor([0, 1, 2]))
    assert cut.sh_degree == 2
    assert cut.shN[0].abs().sum() == 0
    assert cut.shN[1, 3:].abs().sum() == 0
    assert bool((cut.shN[2] == scene.shN[2, :8]).all())
