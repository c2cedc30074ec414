"""Fits that know of their codec: the stretches, resuming, and the stage."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_capture import tiny_capture, tiny_scene, write_tiny_capture

from scene3d.compress import codebook_aware, grid_aware
from scene3d.compress.aware import SHAPES, AwareFit
from scene3d.compress.aware_settings import AwareSettings
from scene3d.compress.neighbors import neighbor_loss
from scene3d.core.push import Push
from scene3d.core.scene import SceneInfo
from scene3d.io.registry import read_scene
from scene3d.io.s3d_codebook import decode_codebook
from scene3d.io.s3d_container import container_bytes
from scene3d.ops.grid_sort import grid_width
from scene3d.recon.fit import FitResult, Hooks, fit
from scene3d.recon.settings import FitSettings, LearningRates, StrategySettings
from scene3d.render import backends
from scene3d.stages import fit as fit_stage
from scene3d.stages import fit_compact
from scene3d.stages.fit_compact import CompactConfig

pytestmark = pytest.mark.skipif(backends.why_unavailable("cpu") is not None, reason="the native module is not built")

SCENE = tiny_scene()
CAPTURE = tiny_capture(SCENE)
STEADY = FitSettings(
    max_steps=40,
    sh_degree=1,
    lrs=LearningRates(means=1e-4),
    strategy=StrategySettings(refine_stop=0.0, reset_every=0),
    influence="aware",
)
WANTED = AwareSettings(drop_db=0.5, noise_from=0.25, round_from=0.5, shapes_until=0.75, plan_every=5, noise_every=2)


def aware(wanted: AwareSettings = WANTED) -> AwareFit:
    return fit_compact.aware_fit(CAPTURE, STEADY, wanted, SceneInfo())


def run(hooks: Hooks) -> FitResult:
    return fit(CAPTURE, SCENE.payload.map(torch.clone), STEADY, hooks)


def test_stretches_follow_each_other():
    fitted, seen = aware(), []

    def watch(*args: object) -> Push | None:
        push = fitted.influence(*args)
        seen.append(
            "none" if push is None else "fixed" if push.fixed else "round" if "rounded" in push.memory else "noise"
        )
        return push

    run(Hooks(influence=watch))
    assert seen == ["none"] * 10 + ["noise"] * 10 + ["round"] * 10 + ["fixed"] * 10


def test_noise_changes_every_so_many_steps_and_stands_still_between():
    fitted = aware()
    gaussians = SCENE.payload
    first = fitted.influence(gaussians, None, 10, 0.3)
    assert fitted.influence(gaussians, first, 11, 0.3) is first
    second = fitted.influence(gaussians, first, 12, 0.3)
    assert not torch.equal(first.offsets["means"], second.offsets["means"])
    assert torch.equal(first.memory["distortion"], second.memory["distortion"])


def test_the_file_holds_what_was_rendered_last():
    fitted = aware()
    result = run(Hooks(influence=fitted.influence))
    rounded = fitted.rounded(result.gaussians, result.push)
    decoded, shown = rounded.decoded(), result.gaussians.select(rounded.rows)
    torch.testing.assert_close(decoded.means, shown.means, atol=1e-6, rtol=0)
    torch.testing.assert_close(decoded.sh0, shown.sh0, atol=0.1, rtol=0)
    assert result.push.fixed == SHAPES


def test_a_stopped_run_goes_on_to_the_same_file(tmp_path: Path):
    whole = aware()
    expected = whole.finish((result := run(Hooks(influence=whole.influence))).gaussians, result.push)
    for stop in (13, 27, 36):
        path, fitted = tmp_path / f"{stop}.pt", aware()
        steps = iter(range(1, 1000))
        part = run(Hooks(influence=fitted.influence, checkpoint=path, should_stop=lambda n=stop, s=steps: next(s) >= n))
        assert not part.is_finished
        rest = run(Hooks(influence=fitted.influence, checkpoint=path))
        assert fitted.finish(rest.gaussians, rest.push).chunks == expected.chunks


def test_a_size_is_met():
    large, small = (aware(replace(WANTED, target_bytes=n)) for n in (2000, 1500))
    sizes = []
    for fitted in (large, small):
        result = run(Hooks(influence=fitted.influence))
        sizes.append(len(container_bytes(fitted.finish(result.gaussians, result.push))))
    assert sizes[0] == pytest.approx(2000, rel=0.1)
    assert sizes[1] == pytest.approx(1500, rel=0.1)


@pytest.mark.parametrize("method", ["context", "codebook", "grid"])
def test_runs_of_one_step_give_a_file(method: str):
    fitted = fit_compact.aware_fit(CAPTURE, STEADY, replace(WANTED, method=method), SceneInfo())
    result = fit(CAPTURE, SCENE.payload, replace(STEADY, max_steps=1), Hooks(influence=fitted.influence))
    assert fitted.finish(result.gaussians, result.push).n_items > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target_mb": 0.0}, "compact.target_mb: expected more than 0"),
        ({"drop_db": 11.0}, "compact.drop_db: expected more than 0 and at most 10 dB, got 11"),
        ({"rate_weight": -1.0}, "compact.rate_weight: expected at least 0"),
    ],
)
def test_wishes_out_of_range_are_told(values: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        fit_compact.order(CompactConfig(**values))


def test_the_stage_writes_a_small_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    capture = write_tiny_capture(tmp_path / "capture", SCENE)
    (tmp_path / "fit").mkdir()
    (tmp_path / "fit" / "scene.ply").write_bytes(b"of an earlier fit")
    fit_stage.run(fit_stage.Config(capture, tmp_path / "fit", compact=True, max_steps=60, test_every=4, sh_degree=1))
    said = capsys.readouterr().out
    assert "Gaussians in " in said
    assert "bits each" in said
    scene = read_scene(tmp_path / "fit" / "scene.s3d")
    assert not (tmp_path / "fit" / "scene.ply").exists()
    assert scene.info.source == str(capture)
    assert len(scene.splats()) > 0


def test_codes_are_what_is_rendered_and_what_is_written():
    fitted = fit_compact.aware_fit(CAPTURE, STEADY, replace(WANTED, method="codebook"), SceneInfo())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codebook_aware, "N_CODES", {"quats": 6, "log_scales": 6, "sh0": 6, "shN": 6})
        result = run(Hooks(influence=fitted.influence))
        assert result.is_finished
        push = fitted.influence(SCENE.payload, None, 10, 0.3)
        shown = push.shown(SCENE.payload)
        container = fitted.finish(shown, push)
    for name in ("log_scales", "sh0", "shN"):
        assert len(getattr(shown, name).flatten(1).mul(1e4).round().unique(dim=0)) <= 6, name
    turned = torch.nn.functional.normalize(shown.quats, dim=1)
    assert float((turned * torch.nn.functional.normalize(SCENE.payload.quats, dim=1)).sum(dim=1).min()) > 0
    decoded = decode_codebook(container, Path("in memory"))
    assert len(decoded.sh0.flatten(1).unique(dim=0)) <= 6


def test_neighbours_on_the_grid_become_alike():
    plain, smooth = (replace(WANTED, method="grid", rate_weight=weight) for weight in (0.0, 1e5))
    losses = []
    for wanted in (plain, smooth):
        fitted = fit_compact.aware_fit(CAPTURE, STEADY, wanted, SceneInfo())
        result = run(Hooks(influence=fitted.influence))
        order = result.push.memory["order"]
        losses.append(float(neighbor_loss(result.gaussians.log_scales[order], grid_width(len(order)))))
        assert 20 < fitted.finish(result.gaussians, result.push).n_items <= len(order)
    assert losses[1] < 0.9 * losses[0]


def test_gradient_of_the_grid_is_that_of_its_loss():
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    grads = grid_aware.neighbor_grads(SCENE.payload, order, 2.0)
    leaf = SCENE.payload.log_scales.clone().requires_grad_()
    (expected,) = torch.autograd.grad(2 * neighbor_loss(leaf[order], grid_width(30)), leaf)
    torch.testing.assert_close(grads["log_scales"], expected)
    assert set(grads) == {"quats", "log_scales", "opacity_logits"}


def test_other_backends_are_told(tmp_path: Path):
    capture = write_tiny_capture(tmp_path / "capture", SCENE)
    with pytest.raises(
        ValueError, match="backend: fits with --compact run on the CPU, expected auto or cpu, got 'cuda'"
    ):
        fit_stage.run(fit_stage.Config(capture, tmp_path / "fit", compact=True, backend="cuda", max_steps=2))


def test_fields_do_not_know_it(tmp_path: Path):
    capture = write_tiny_capture(tmp_path / "capture", SCENE)
    with pytest.raises(ValueError, match="--compact: only --kind gaussians knows it"):
        fit_stage.run(fit_stage.Config(capture, tmp_path / "fit", compact=True, kind="vm", max_steps=2))
