"""Checkpoints: complete, atomic, refused where they do not belong."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_capture import tiny_capture, tiny_scene, write_tiny_capture

import scene3d
from scene3d.core.errors import FormatError
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.io.registry import write_scene
from scene3d.ops.threads import set_threads
from scene3d.recon import checkpoint
from scene3d.recon.fit import Hooks, fit
from scene3d.recon.initialize import from_points
from scene3d.recon.settings import FitSettings, ResolutionSettings, StrategySettings

CAPTURE = tiny_capture(tiny_scene())
SETTINGS = FitSettings(
    max_steps=60,
    sh_degree=2,
    sh_every=0.2,
    exposure="affine",
    pose_opt=True,
    background="random",
    checkpoint_every=0,
    strategy=StrategySettings(cap_max=90, refine_every=7, grow_grad2d=1e-5),
    resolution=ResolutionSettings((2,), (0.4,)),
)


def first() -> Gaussians:
    generator = torch.Generator().manual_seed(1)
    return from_points(torch.randn(50, 3, generator=generator) / 2, torch.rand(50, 3, generator=generator), generator)


def stopping_after(n: int, path: Path) -> Hooks:
    calls = iter(range(1, 10**6))
    return Hooks(should_stop=lambda: next(calls) == n, checkpoint=path)


def assert_same(a: Gaussians, b: Gaussians) -> None:
    for name, value in a.params().items():
        assert torch.equal(value, b.params()[name]), name


@pytest.mark.parametrize("name", ["default", "mcmc"])
@pytest.mark.parametrize("stop", [1, 29])
def test_resumed_run_gives_the_very_numbers_of_an_uninterrupted_one(tmp_path: Path, name: str, stop: int):
    settings = replace(SETTINGS, strategy=replace(SETTINGS.strategy, name=name))
    whole = fit(CAPTURE, first(), settings)
    path = tmp_path / "checkpoint.pt"
    assert not fit(CAPTURE, first(), settings, stopping_after(stop, path)).is_finished
    resumed = fit(CAPTURE, first(), settings, Hooks(checkpoint=path))
    assert_same(whole.gaussians, resumed.gaussians)
    assert torch.equal(whole.capture.cameras.viewmats, resumed.capture.cameras.viewmats)
    assert len(whole.gaussians) > 50


@pytest.mark.parametrize("name", ["default", "mcmc"])
def test_number_of_threads_does_not_change_the_result(name: str):
    settings = replace(SETTINGS, max_steps=30, strategy=replace(SETTINGS.strategy, name=name))
    results = []
    for n in (1, 3):
        set_threads(n)
        torch.set_num_threads(n)
        results.append(fit(CAPTURE, first(), settings).gaussians)
    set_threads(None)
    torch.set_num_threads(1)
    assert_same(*results)


def test_checkpoint_file_holds_the_whole_state(tmp_path: Path):
    path = tmp_path / "checkpoint.pt"
    fit(CAPTURE, first(), SETTINGS, stopping_after(9, path))
    state = checkpoint.load(path, CAPTURE, SETTINGS)
    checkpoint.save(tmp_path / "again.pt", state, CAPTURE, SETTINGS)
    again = checkpoint.load(tmp_path / "again.pt", CAPTURE, SETTINGS)
    assert (again.step, again.position, again.n_start) == (9, state.position, 50)
    assert torch.equal(again.generator.get_state(), state.generator.get_state())
    assert torch.equal(again.stats.sums, state.stats.sums)
    for name, value in state.adam.exp_avg_sq.items():
        assert torch.equal(value, again.adam.exp_avg_sq[name])


def test_truncated_checkpoint_is_refused_with_a_remedy(tmp_path: Path):
    path = tmp_path / "checkpoint.pt"
    fit(CAPTURE, first(), SETTINGS, stopping_after(1, path))
    data = path.read_bytes()
    for n in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:n])
        with pytest.raises(FormatError, match=r"not a readable checkpoint.*--no-resume"):
            checkpoint.load(path, CAPTURE, SETTINGS)


def test_checkpoint_that_is_a_pickle_of_something_else_is_refused(tmp_path: Path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"hello": 1}, path)
    with pytest.raises(FormatError, match="expected a checkpoint of version 1, got None"):
        checkpoint.load(path, CAPTURE, SETTINGS)


def test_checkpoint_of_other_settings_names_the_difference(tmp_path: Path):
    path = tmp_path / "checkpoint.pt"
    fit(CAPTURE, first(), SETTINGS, stopping_after(1, path))
    with pytest.raises(FormatError, match="max_steps was 60, now 61"):
        checkpoint.load(path, CAPTURE, replace(SETTINGS, max_steps=61))


def test_checkpoint_of_another_capture_is_refused(tmp_path: Path):
    path = tmp_path / "checkpoint.pt"
    fit(CAPTURE, first(), SETTINGS, stopping_after(1, path))
    with pytest.raises(FormatError, match="another capture"):
        checkpoint.load(path, replace(CAPTURE, train=(1, 2)), SETTINGS)


def test_settings_that_do_not_touch_the_result_may_differ(tmp_path: Path):
    path = tmp_path / "checkpoint.pt"
    fit(CAPTURE, first(), SETTINGS, stopping_after(1, path))
    changed = replace(SETTINGS, eval_steps=(5,), checkpoint_every=7)
    assert checkpoint.load(path, CAPTURE, changed).step == 1


def test_killed_command_resumes_to_the_same_bytes(tmp_path: Path):
    folder = write_tiny_capture(tmp_path / "tiny", tiny_scene())
    command = [sys.executable, "-m", "scene3d", "fit", str(folder), "--max-steps", "400", "--checkpoint-every", "20"]
    command += ["--preset", "fast", "--strategy.cap-max", "300", "--init", str(tmp_path / "init.ply")]
    write_scene(Scene(first()), tmp_path / "init.ply")
    root = Path(scene3d.__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    killed = tmp_path / "killed"
    process = subprocess.Popen([*command, "--out", str(killed)], cwd=tmp_path, env=environment)
    deadline = time.monotonic() + 60
    while not (killed / "checkpoint.pt").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.wait()
    for out in (killed, tmp_path / "whole"):
        subprocess.run([*command, "--out", str(out)], cwd=tmp_path, env=environment, check=True)
    assert (killed / "scene.ply").read_bytes() == (tmp_path / "whole" / "scene.ply").read_bytes()
