"""--memory-limit: what needs more is refused before it begins. How lists follow it is tried in test_descent.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_capture import tiny_capture, tiny_scene, write_tiny_capture

from scene3d import cli
from scene3d.io.registry import write_scene
from scene3d.ops import cuda_call
from scene3d.ops.memory_limit import GIGABYTE, gigabytes_text, memory_limit, set_memory_limit
from scene3d.recon.forecast import check_memory, memory_bytes
from scene3d.recon.settings import FitSettings, StrategySettings
from scene3d.render.memory import render_bytes

SCENE = tiny_scene()
CAPTURE = tiny_capture(SCENE)


@pytest.fixture(autouse=True)
def no_limit_afterwards() -> Iterator[None]:
    yield
    set_memory_limit(None)


def test_limit_is_kept_in_bytes_and_lifted():
    set_memory_limit(1.5)
    assert memory_limit() == 1.5 * GIGABYTE
    assert cuda_call.available_bytes(torch.device("cpu")) == 1.5 * GIGABYTE
    set_memory_limit(None)
    assert memory_limit() is None


@pytest.mark.parametrize("gigabytes", [0.0, -1.0, float("nan")])
def test_limits_that_are_no_size_are_refused(gigabytes: float):
    with pytest.raises(ValueError, match=r"memory-limit: expected more than 0 GB, got"):
        set_memory_limit(gigabytes)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_count_that_is_proposed_fits(device: str):
    settings = FitSettings(strategy=StrategySettings(cap_max=2_000_000))
    limit = memory_bytes(CAPTURE, 500_000, settings, device)
    with pytest.raises(ValueError, match=r"needs about .* with at most 2,000,000 Gaussians, got .* GB") as raised:
        check_memory(CAPTURE, 30, settings, device, limit)
    cap_max = int(str(raised.value).split("--strategy.cap-max ")[1].split(",")[0])
    assert 499_000 < cap_max <= 500_000
    fitting = replace(settings, strategy=replace(settings.strategy, cap_max=cap_max))
    check_memory(CAPTURE, 30, fitting, device, limit)


def test_where_not_even_the_first_gaussians_fit_no_count_is_proposed():
    with pytest.raises(ValueError, match=r"Give it more, or smaller photos"):
        check_memory(CAPTURE, 30, FitSettings(), "cpu", 1000)


def test_a_gpu_needs_less_for_a_gaussian_than_the_host():
    counts = [memory_bytes(CAPTURE, n, FitSettings(), device) for device in ("cpu", "cuda") for n in (0, 10**6)]
    assert 700 * 10**6 < counts[3] - counts[2] < counts[1] - counts[0]


def test_commands_refuse_before_they_begin(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write_tiny_capture(tmp_path / "capture", SCENE)
    out = tmp_path / "fit"
    assert cli.main(["fit", str(folder), "--out", str(out), "--memory-limit", "0.01", "--backend", "cpu"]) == 1
    assert "memory-limit: this fit needs about" in capsys.readouterr().err
    assert not out.exists()
    write_scene(SCENE, tmp_path / "scene.ply")
    arguments = [str(tmp_path / "scene.ply"), "--backend", "cpu", "--out", str(tmp_path / "video.mp4")]
    assert cli.main(["render", *arguments, "--memory-limit", "0.01"]) == 1
    assert "memory-limit: 30 splats at" in capsys.readouterr().err
    assert cli.main(["fit", str(folder), "--kind", "vm", "--memory-limit", "1"]) == 1
    assert "--memory-limit: only --kind gaussians knows it" in capsys.readouterr().err


def test_rendering_counts_splats_and_pixels():
    few = render_bytes(SCENE.payload, 100, "cpu")
    assert render_bytes(SCENE.payload, 10**6, "cpu") - few > 40 * 10**6
    assert render_bytes(SCENE.payload.select(torch.zeros(10**4, dtype=torch.long)), 100, "cpu") - few > 10**6


def test_sizes_are_told_in_units_that_suit():
    assert gigabytes_text(1.5 * GIGABYTE) == "1.5 GB"
    assert gigabytes_text(1 << 20) == "1.0 MB"
