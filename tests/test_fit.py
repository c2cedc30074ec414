"""The training loop on tiny captures, and the fit command."""

import json
import math
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_capture import tiny_capture, tiny_scene, write_tiny_capture

from scene3d.core.capture import Capture, Photo
from scene3d.core.errors import CaptureError
from scene3d.core.gaussians import Gaussians
from scene3d.core.interrupt import stop_requests
from scene3d.io.registry import read_scene
from scene3d.ops import quaternions
from scene3d.recon import losses
from scene3d.recon.fit import FitResult, Hooks, LogLine, fit
from scene3d.recon.fit_files import RunLog
from scene3d.recon.fit_state import FitState
from scene3d.recon.optim import AdamState, with_sh_degree
from scene3d.recon.pose_refine import PoseDeltas, rigid_motion
from scene3d.recon.settings import FitSettings, LearningRates, ResolutionSettings, StrategySettings
from scene3d.stages import fit as stage

SCENE = tiny_scene()
CAPTURE = tiny_capture(SCENE)
# Constant, large step sizes: 40 steps must show something.
QUICK = FitSettings(
    max_steps=40,
    sh_degree=1,
    backend="auto",
    lrs=LearningRates(means=1e-3, means_final=1.0, sh0=2e-2),
    strategy=StrategySettings(cap_max=60, refine_every=10),
    resolution=ResolutionSettings(),
)


def near_truth(noise: float = 0.1) -> Gaussians:
    generator = torch.Generator().manual_seed(0)
    truth = SCENE.payload
    return replace(truth.map(torch.clone), sh0=truth.sh0 + noise * torch.randn(truth.sh0.shape, generator=generator))


def run(settings: FitSettings, capture: Capture = CAPTURE, first: Gaussians | None = None) -> FitResult:
    return fit(capture, near_truth() if first is None else first, settings)


def test_fit_brings_renders_nearer_to_the_photos():
    lines: list[LogLine] = []
    settings = replace(QUICK, eval_steps=(1,), strategy=replace(QUICK.strategy, cap_max=30, reset_every=0))
    result = fit(CAPTURE, near_truth(0.5), settings, Hooks(log=lines.append))
    scored = [line for line in lines if line.psnr is not None]
    assert [line.step for line in scored] == [1, 40]
    assert scored[1].psnr > scored[0].psnr + 3
    assert result.is_finished
    assert result.n_steps == 40


def test_the_structure_of_random_pixels_can_be_learnt_too():
    settings = replace(QUICK, s3im=0.5, strategy=replace(QUICK.strategy, cap_max=30, reset_every=0))
    first, again, plain = (run(s) for s in (settings, settings, replace(settings, s3im=0.0)))
    assert torch.equal(first.gaussians.sh0, again.gaussians.sh0)
    assert not torch.equal(first.gaussians.sh0, plain.gaussians.sh0)
    assert first.validation is not None
    assert first.validation.psnr > 40


@pytest.mark.parametrize("name", ["default", "mcmc"])
def test_count_stays_below_the_cap(name: str):
    strategy = replace(QUICK.strategy, name=name, cap_max=37, grow_until=0.1, grow_grad2d=0.0)
    assert 30 < len(run(replace(QUICK, strategy=strategy)).gaussians) <= 37


@pytest.mark.parametrize("name", ["default", "mcmc"])
def test_same_seed_gives_the_same_bytes(name: str):
    settings = replace(QUICK, strategy=replace(QUICK.strategy, name=name))
    first, again = run(settings).gaussians, run(settings).gaussians
    assert all(torch.equal(a, b) for a, b in zip(first.params().values(), again.params().values(), strict=True))


def test_fit_does_not_change_its_arguments():
    first = near_truth()
    before = first.map(torch.clone)
    run(replace(QUICK, max_steps=3), first=first)
    assert all(torch.equal(a, b) for a, b in zip(before.params().values(), first.params().values(), strict=True))


def test_every_photo_is_used_once_per_epoch():
    state = FitState.start(CAPTURE, near_truth(), QUICK, 1.0)
    epochs = [[state.next_view() for _ in CAPTURE.train] for _ in range(20)]
    assert all(sorted(epoch) == [0, 1, 2] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_nonfinite_gaussians_are_dropped_before_the_first_step():
    first = near_truth()
    first.means[3, 1] = math.nan
    result = run(replace(QUICK, max_steps=2), first=first)
    assert len(result.gaussians) == len(first) - 1
    assert result.n_dropped == 1


def test_gaussian_that_becomes_nonfinite_is_dropped_and_the_run_goes_on():
    state = AdamState.start(near_truth(), 1)
    state.values["sh0"].detach()[5] = math.inf
    keep = state.drop_nonfinite()
    assert (~keep).nonzero()[:, 0].tolist() == [5]
    assert len(state) == len(keep) - 1
    assert all(len(value) == len(state) for value in (*state.exp_avg.values(), *state.exp_avg_sq.values()))


def test_run_without_finite_gaussians_says_so():
    first = near_truth().map(lambda value: torch.full_like(value, math.nan))
    with pytest.raises(CaptureError, match="no finite Gaussians"):
        run(QUICK, first=first)


def test_run_without_training_photos_says_so():
    with pytest.raises(CaptureError, match="no training photos"):
        run(QUICK, capture=replace(CAPTURE, train=()))


def test_stop_request_ends_the_run_cleanly():
    steps = iter([False, False, True])
    result = fit(CAPTURE, near_truth(), QUICK, Hooks(should_stop=lambda: next(steps)))
    assert (result.n_steps, result.is_finished) == (3, False)


def test_time_limit_ends_the_run():
    result = run(replace(QUICK, max_steps=10**9, time_limit=0.2))
    assert result.is_finished
    assert 0.2 <= result.seconds < 20


def test_spherical_harmonics_warm_up_and_are_complete_at_the_end():
    result = run(replace(QUICK, sh_degree=2, sh_every=0.3), first=with_sh_degree(near_truth(), 0))
    assert result.gaussians.sh_degree == 2
    assert float(result.gaussians.shN.abs().max()) > 0
    stopped = run(replace(QUICK, max_steps=2, sh_degree=3, sh_every=0.9), first=with_sh_degree(near_truth(), 0))
    assert stopped.gaussians.sh_degree == 3


def test_masked_pixels_teach_nothing():
    mask = torch.full((24, 32), 255, dtype=torch.uint8)
    mask[:, :16] = 0
    base = tiny_capture(SCENE, mask=mask)

    def spoiled(i: int) -> Photo:
        rgb = base.load(i).rgb.clone()
        rgb[:, :5] = 255
        return Photo(rgb, None, mask)

    # SSIM windows of pixels that count reach 5 pixels into the mask: what is farther must not matter.
    settings = replace(QUICK, max_steps=6)
    clean, other = (run(settings, capture=c).gaussians for c in (base, replace(base, load=spoiled)))
    torch.testing.assert_close(clean.sh0, other.sh0, rtol=0, atol=1e-6)


def test_random_background_teaches_alpha():
    alpha = torch.zeros(24, 32, dtype=torch.uint8)
    capture = tiny_capture(SCENE, alpha=alpha)
    lrs = replace(QUICK.lrs, opacity_logits=0.5)
    strategy = replace(QUICK.strategy, cap_max=30, reset_every=0, refine_start=1.0)
    result = run(replace(QUICK, lrs=lrs, strategy=strategy), capture=capture)
    assert float(result.gaussians.opacities.mean()) < 0.5 * float(near_truth().opacities.mean())


def test_exposure_of_photos_is_learnt_beside_the_scene():
    gains = (1.0, 0.6, 1.0, 1.4)

    def load(i: int) -> Photo:
        return Photo((CAPTURE.load(i).rgb * gains[i]).clamp(0, 255).to(torch.uint8))

    capture = replace(CAPTURE, load=load)
    settings = replace(QUICK, max_steps=150, strategy=replace(QUICK.strategy, cap_max=30, reset_every=0))
    plain, compensated = (run(replace(settings, exposure=e), capture=capture) for e in ("none", "affine"))
    assert compensated.validation.cc_psnr > plain.validation.cc_psnr + 0.3


def test_pose_refinement_finds_a_moved_camera():
    turn = torch.eye(4)
    turn[:3, :3] = quaternions.to_rotmat(torch.tensor([1.0, 0.0, 0.012, 0.0]))
    viewmats = CAPTURE.cameras.viewmats.clone()
    viewmats[2] = turn @ viewmats[2]
    moved = replace(CAPTURE, cameras=replace(CAPTURE.cameras, viewmats=viewmats))
    still = LearningRates(0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    settings = replace(QUICK, max_steps=120, lrs=still, pose_opt=True, pose_lr=2e-3, sh_every=0)
    strategy = replace(QUICK.strategy, refine_start=1.0, reset_every=0)
    result = run(replace(settings, strategy=strategy), capture=moved, first=SCENE.payload)
    before = float((viewmats[2] - CAPTURE.cameras.viewmats[2]).norm())
    after = float((result.capture.cameras.viewmats[2] - CAPTURE.cameras.viewmats[2]).norm())
    assert after < 0.3 * before
    assert torch.equal(result.capture.cameras.viewmats[0], viewmats[0])


def test_rigid_motion_is_rigid_and_identity_at_zero():
    torch.testing.assert_close(rigid_motion(torch.zeros(6), 3.0), torch.eye(4))
    motion = rigid_motion(torch.tensor([0.3, -0.2, 0.5, 1.0, 2.0, 3.0]), 2.0)
    torch.testing.assert_close(motion[:3, :3] @ motion[:3, :3].T, torch.eye(3), rtol=0, atol=1e-6)
    assert motion[:3, 3].tolist() == [2, 4, 6]


def test_motions_start_at_the_given_poses():
    poses = PoseDeltas.start(4, 1.0)
    torch.testing.assert_close(poses.moved(CAPTURE.cameras).viewmats, CAPTURE.cameras.viewmats)


def test_regularizer_gradients_are_those_of_autograd():
    settings = FitSettings(opacity_reg=0.3, scale_reg=0.7)
    state = AdamState.start(near_truth(), 0)
    gaussians = state.gaussians()
    extra = 0.3 * gaussians.opacities.mean() + 0.7 * gaussians.scales.mean() / 2.5
    expected = torch.autograd.grad(extra, [state.values["opacity_logits"], state.values["log_scales"]])
    for name in ("opacity_logits", "log_scales"):
        state.values[name].grad = torch.zeros_like(state.values[name])
    losses.add_regularizer_grads(state, gaussians, settings, extent=2.5)
    for name, value in zip(("opacity_logits", "log_scales"), expected, strict=True):
        torch.testing.assert_close(state.values[name].grad, value)


def test_log_of_a_resumed_run_has_every_step_once(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    log = RunLog(path, 0)
    for step in (50, 100, 150):
        log.write(LogLine(step, 1.0, math.nan, 10, 1))
    with path.open("a") as stream:
        stream.write('{"step": 2')
    RunLog(path, 100).write(LogLine(150, 2.0, 0.1, 10, 1))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [50, 100, 150]
    assert [line["loss"] for line in lines] == [None, None, 0.1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_becomes_a_stop_request(number: signal.Signals):
    before = signal.getsignal(number)
    with stop_requests() as request:
        assert not request()
        signal.raise_signal(number)
        assert request()
    assert request.exit_code == 128 + number
    assert signal.getsignal(number) is before


def test_second_interrupt_ends_at_once():
    # Jobs that a shell puts into the background inherit that SIGINT is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stop_requests():
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def config_of(tmp_path: Path, capture: Path, **changes: object) -> stage.Config:
    options = {"max_steps": 20, "test_every": 4, "out": tmp_path / "fit", "preset": "fast", **changes}
    return stage.Config(capture, **options)


def test_command_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write_tiny_capture(tmp_path / "tiny", SCENE)
    stage.run(config_of(tmp_path, folder, strategy=stage.StrategyConfig(name="mcmc", cap_max=500)))
    out = tmp_path / "fit"
    assert sorted(p.name for p in out.iterdir()) == [
        "cameras.json",
        "checkpoint.pt",
        "config.json",
        "log.jsonl",
        "scene.ply",
        "stats",
    ]
    record = json.loads((out / "config.json").read_text())
    assert record["settings"]["strategy"]["cap_max"] == 500
    assert json.loads((out / "stats" / "val_step00020.json").read_text())["step"] == 20
    assert len(read_scene(out / "scene.ply").payload) > 0
    assert "20 steps" in capsys.readouterr().out


def test_finished_command_run_again_gives_the_same_scene(tmp_path: Path):
    folder = write_tiny_capture(tmp_path / "tiny", SCENE)
    stage.run(config_of(tmp_path, folder))
    before = (tmp_path / "fit" / "scene.ply").read_bytes()
    stage.run(config_of(tmp_path, folder))
    assert (tmp_path / "fit" / "scene.ply").read_bytes() == before


def test_command_asks_for_ordered_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_tiny_capture(tmp_path / "tiny", SCENE)
    asked: list[bool] = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda mode, warn_only: asked.append(mode))
    for deterministic in (False, True):
        stage.run(config_of(tmp_path, folder, max_steps=1, resume=False, deterministic=deterministic))
    assert asked == [True]


def test_command_begins_with_a_given_scene(tmp_path: Path):
    folder = write_tiny_capture(tmp_path / "tiny", SCENE)
    stage.run(config_of(tmp_path, folder))
    again = config_of(tmp_path, folder, init=tmp_path / "fit" / "scene.ply", out=tmp_path / "more", max_steps=1)
    stage.run(again)
    assert len(read_scene(tmp_path / "more" / "scene.ply").payload) == len(
        read_scene(tmp_path / "fit" / "scene.ply").payload
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_steps": -5}, "max_steps: expected at least 1, got -5"),
        ({"sh_degree": 4}, "sh_degree: expected 0 to 3, got 4"),
        ({"s3im": -1.0}, "s3im: expected 0 or more, got -1.0"),
        ({"time_limit": 0.0}, "time_limit: expected more than 0 seconds, got 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(FitSettings(), **values)
