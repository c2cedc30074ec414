"""Thinning keeps to its share of the error, and its hands off what made-up views cannot know."""

from dataclasses import replace

import torch
from small_scenes import blob, views_around

from scene3d.compress.goal import Goal
from scene3d.compress.judge import Judge
from scene3d.compress.thin import PRUNE_SHARE, cut_sh_within, footprint_shares, mean_error, prune_within, thin
from scene3d.core.gaussians import Gaussians, cat
from scene3d.core.scene import Scene


def with_hidden() -> Gaussians:
    """30 Gaussians in view and 30 far behind them all, out of every view."""
    scene = blob(30)
    return cat([scene, Gaussians(**{**scene.params(), "means": scene.means + torch.tensor([0.0, 900.0, 0.0])})])


def test_what_no_known_view_shows_goes() -> None:
    scene, views = Scene(with_hidden()), views_around(4)
    thinned = thin(scene, Goal(), Judge(scene, views), views)
    assert float(thinned.gaussians.means[:, 1].max()) < 100
    assert thinned.error <= 10 ** (-Goal().fidelity_db / 10) * 0.21


def test_more_goes_where_others_make_up_for_it() -> None:
    scene, views = Scene(blob(150)), views_around(4)
    judge = Judge(scene, views)
    goal = Goal(scene_psnr=25.0, tune_steps=60)
    plain, tuned = thin(scene, replace(goal, tune_steps=0), judge, views), thin(scene, goal, judge, views)
    assert len(tuned.gaussians) < len(plain.gaussians)
    kept = scene.splats().select(torch.isin(scene.splats().means[:, 0], tuned.gaussians.means[:, 0]))
    assert tuned.error < mean_error(tuned.decider, kept)
    assert tuned.error <= 10 ** (-goal.fidelity_db / 10) * 0.21


def test_what_others_cannot_make_up_for_stays() -> None:
    scene, views = Scene(blob(150)), views_around(4)
    judge, goal = Judge(scene, views), Goal(scene_psnr=16.0, tune_steps=1)
    plain, tuned = thin(scene, replace(goal, tune_steps=0), judge, views), thin(scene, goal, judge, views)
    assert torch.equal(tuned.gaussians.means, plain.gaussians.means)


def test_nothing_goes_by_views_that_are_made_up() -> None:
    scene, views = Scene(with_hidden()), views_around(4)
    thinned = thin(scene, Goal(), Judge(scene, views, worst_share=0.25), views)
    assert len(thinned.gaussians) == 60
    assert bool((thinned.weights > 0).all())


def test_pruning_stays_within_its_error() -> None:
    scene, views = Scene(blob(200)), views_around(3)
    judge = Judge(scene, views)
    weights = torch.rand(3, 200, generator=torch.Generator().manual_seed(0))
    for bound in (1e-6, 1e-4, 1e-2):
        keep = prune_within(scene.splats(), weights, judge, PRUNE_SHARE * bound)
        assert mean_error(judge, scene.splats().select(keep)) <= PRUNE_SHARE * bound


def test_harmonics_are_cut_within_their_error() -> None:
    scene, views = Scene(blob(100, sh_degree=2)), views_around(3)
    judge, weights = Judge(scene, views), torch.ones(3, 100)
    loose, tight = (cut_sh_within(scene.splats(), views, weights, judge, bound) for bound in (1.0, 0.0))
    assert loose.sh_degree < 2
    assert bool((tight.shN == scene.splats().shN).all())


def test_footprints_are_shares_even_of_huge_gaussians() -> None:
    scene = blob(20)
    huge = Gaussians(**{**scene.params(), "log_scales": scene.log_scales + 80})
    torch.testing.assert_close(footprint_shares(huge), footprint_shares(scene))
    assert abs(float(footprint_shares(scene).sum()) - 1) < 1e-5
    assert footprint_shares(blob(0)).shape == (0,)
