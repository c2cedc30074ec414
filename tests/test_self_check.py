"""What has to hold before "auto" takes the CUDA kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from emulation import load_emulated

from scene3d.core.errors import BackendUnavailable
from scene3d.ops import cuda_call
from scene3d.render import backends, self_check
from scene3d.report import machine

emulated = load_emulated()
GPU = torch.device("cuda")


class Faulty:
    """The kernels with one of their calls replaced."""

    def __init__(self, name: str, replacement: Callable[..., Any]) -> None:
        self._name, self._replacement = name, replacement

    def __getattr__(self, name: str) -> Any:
        return self._replacement if name == self._name else getattr(emulated, name)


def brighter_forward(settings: Any, params: Any, images: Any, *rest: Any) -> Any:
    state = emulated.raster_forward(settings, params, images, *rest)
    images[0].mul_(1.02)
    return state


def backward_without_quats(*arguments: Any) -> None:
    emulated.raster_backward(*arguments)
    arguments[5][1].zero_()


def backward_with_nan(*arguments: Any) -> None:
    emulated.raster_backward(*arguments)
    arguments[5][0][3] = torch.nan


def no_kernel(*arguments: Any) -> None:
    raise RuntimeError("CUDA: project_kernel: no kernel image is available for execution on the device")


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_sound_kernels_pass(context: Callable[[], Any]) -> None:
    with context():
        assert self_check.problem_of(Faulty("", no_kernel)) is None


@pytest.mark.parametrize(
    ("name", "replacement", "problem"),
    [
        ("raster_forward", brighter_forward, r"differs from that of the CPU \(rgb, "),
        ("raster_backward", backward_without_quats, r"differs from that of the CPU \(gradient of quats\)"),
        ("raster_backward", backward_with_nan, r"differs from that of the CPU \(gradient of means\)"),
        ("raster_forward", no_kernel, r"it does not run here: CUDA: project_kernel: no kernel image"),
    ],
    ids=["image", "gradient", "nan", "no kernel"],
)
def test_wrong_kernels_are_not_chosen(
    name: str, replacement: Callable[..., Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_call, "module", Faulty(name, replacement))
    monkeypatch.delenv(backends.VARIABLE, raising=False)
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match=problem + r".*Use --backend cpu"):
            backends.choose("auto", GPU)
    assert backends.choose("cuda", GPU) == "cuda"


def test_doctor_tells_what_the_check_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_call, "module", Faulty("raster_backward", backward_with_nan))
    finding = machine._backend("cuda")
    assert (finding.state, finding.remedy) == ("broken", "Use --backend cpu, and please report it")
    monkeypatch.setattr(cuda_call, "module", emulated)
    assert machine._backend("cuda").state == "ok"


def test_kernels_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return emulated.raster_forward(*arguments)

    monkeypatch.setattr(cuda_call, "module", Faulty("raster_forward", counted))
    monkeypatch.delenv(backends.VARIABLE, raising=False)
    assert [backends.choose("auto", GPU) for _ in range(3)] == ["cuda"] * 3
    assert len(calls) == 1
