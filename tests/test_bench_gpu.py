"""tools/bench_gpu.py from end to end, its kernels on the host."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from emulation import load_emulated
from tiny_capture import tiny_scene, write_tiny_capture

from scene3d.core.errors import BackendUnavailable
from scene3d.ops import cuda_call

load_emulated()
TOOLS = Path(__file__).resolve().parents[1] / "tools"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.setattr(cuda_call, "module", None)
    import bench_gpu

    yield bench_gpu
    for name in ("bench_gpu", "gpu_parity", "bench_raster"):
        sys.modules.pop(name, None)


def test_one_call_compares_and_times_everything(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = write_tiny_capture(tmp_path / "tiny", tiny_scene())
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(bench, "PRESETS", ("fast",))
    config = bench.Config(repeats=1, rays=16, captures=(capture,), data_factor=1, emulate=True, out=out)
    assert bench.run(config) == 0
    found = json.loads(out.read_text())
    pairs = ["cuda / cpu", "step: cuda / cpu", "discs: cuda / cpu", "field: cuda / torch"]
    assert [line["pair"] for line in found["parity"]] == pairs
    assert all(line["passed"] for line in found["parity"])
    assert found["emulated"]
    assert all(row["step"] > 0 for row in found["times"])
    assert set(found["million rays a second"]) == {"forward", "forward and backward"}
    assert found["fits"][0]["psnr"] > 3
    assert "half a dB less after" in capsys.readouterr().out


def test_errors_beyond_the_bound_fail(bench: ModuleType) -> None:

    one, other = {"a": torch.ones(3), "b": torch.ones(3)}, {"a": torch.ones(3), "b": torch.full((3,), 1.002)}
    judge = sys.modules["gpu_parity"].judge
    judged = judge("x / y", 70.0, one, other)
    assert (judged.worst, judged.passed) == ("b", False)
    assert not judge("x / y", 59.0, one, one).passed
    assert not judge("x / y", float("nan"), one, one).passed


def test_without_a_gpu_it_says_what_is_missing(bench: ModuleType) -> None:
    with pytest.raises(BackendUnavailable, match="the CUDA module is not built"):
        bench.run(bench.Config())
