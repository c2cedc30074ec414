"""scene3d doctor: what it says, and when it fails."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from scene3d import __version__
from scene3d.cli import main
from scene3d.render import backends
from scene3d.report import machine
from scene3d.report.machine import Finding, examine, is_broken


def test_doctor_names_every_backend_and_package(capsys: pytest.CaptureFixture[str]):
    main(["doctor"])
    out = capsys.readouterr().out
    assert f"{__version__}, Python" in out
    assert torch.__version__ in out
    for name in [*backends.MODULES, *machine.PACKAGES, "nvcc"]:
        assert f" {name} " in out


def test_every_absent_backend_and_package_has_a_remedy():
    groups = examine()
    absent = [f for f in groups["backends"] + groups["packages"] if f.state != "ok"]
    assert all(f.text and f.remedy for f in absent)


def test_reference_backend_is_always_there():
    found = {f.name: f.state for f in examine()["backends"]}
    assert found["reference"] == "ok"


def test_missing_native_module_is_broken_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "scene3d._cpu", None)
    assert main(["doctor"]) == 1
    captured = capsys.readouterr()
    assert "! scene3d._cpu" in captured.out
    assert "pip install ." in captured.out
    assert captured.err == "scene3d: error: this installation cannot work: see the lines marked ! above\n"


def test_native_render_that_differs_is_broken(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("scene3d._cpu", reason="the native module is not built")
    honest = machine.rasterize

    def wrong(gaussians, cameras, settings, name):
        render = honest(gaussians, cameras, settings, "reference")
        return replace(render, rgb=render.rgb + (0.01 if name == "cpu" else 0.0))

    monkeypatch.setattr(machine, "rasterize", wrong)
    finding = machine._render_check("reinstall")
    assert (finding.state, finding.remedy) == ("broken", "reinstall")
    assert "largest difference from the reference 1.0e-02" in finding.text


def test_gpu_hidden_by_a_cpu_build_of_torch_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(machine, "_command_line", lambda *command: "NVIDIA H200")
    finding = machine._gpu()
    assert finding.text == "NVIDIA H200 is there, but this torch is a CPU build"
    assert "Install torch with CUDA" in finding.remedy


def test_absent_things_do_not_break_the_core():
    assert not is_broken({"packages": [Finding("open3d", "absent", "not installed")]})
    assert is_broken({"native code": [Finding("scene3d._cpu", "broken", "cannot be imported")]})


def test_command_that_is_not_there_says_nothing():
    assert machine._command_line("no-such-command-at-all") is None
