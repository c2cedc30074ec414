"""The native rasterizer on every instruction set and any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from comparison import ALL, EVERY_IMAGE, compare, gradients, leaves
from conftest import Target
from strategies import random_gaussians, ring_of_cameras

_cpu = pytest.importorskip("scene3d._cpu", reason="the native module is not built")
CPU = Target("cpu", torch.float32, "cpu")


@pytest.fixture(autouse=True)
def native() -> Iterator[Any]:
    """The native module, its level and threads restored afterwards."""
    level, n_threads = _cpu.simd_level(), _cpu.n_threads()
    yield _cpu
    _cpu.set_simd_level(level)
    _cpu.set_threads(n_threads)


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("level", _cpu.simd_levels())
def test_every_simd_level_has_the_gradients_of_the_reference(native: Any, level: str, antialiased: bool) -> None:
    assert native.set_simd_level(level)
    assert native.simd_level() == level
    settings = replace(ALL, antialiased=antialiased, absgrad=antialiased)
    compare(CPU, random_gaussians(77, seed=3), ring_of_cameras(2, 45, 35), settings, EVERY_IMAGE)


@pytest.mark.parametrize("level", _cpu.simd_levels())
def test_bytes_do_not_depend_on_the_number_of_threads(native: Any, level: str) -> None:
    native.set_simd_level(level)
    found = []
    for n_threads in (1, 2, 5):
        native.set_threads(n_threads)
        scene, views = leaves(random_gaussians(3000, seed=4), ring_of_cameras(2, 150, 100, focal=90.0))
        render = CPU.render(scene, views, ALL)
        EVERY_IMAGE(render).backward()
        found.append({**gradients(scene, views), "rgb": render.rgb.detach(), "grad2d": render.stats.grad2d})
    for other in found[1:]:
        for name, value in found[0].items():
            assert torch.equal(value, other[name]), name


def test_an_unknown_simd_level_is_refused_and_changes_nothing(native: Any) -> None:
    before = native.simd_level()
    assert not native.set_simd_level("mmx")
    assert native.simd_level() == before
