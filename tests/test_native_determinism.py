"""Kernels other than the rasterizer: same bytes for any number of threads, same numbers on any instruction set."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from scene3d.ops.adam import adam_step_
from scene3d.ops.knn import nearest
from scene3d.ops.mcmc_noise import mcmc_noise_
from scene3d.render.loss import l1_ssim_parts

_cpu = pytest.importorskip("scene3d._cpu", reason="the native module is not built")

LEVEL_ERROR = 1e-5  # Relative to the largest value: sums of products, fused or not.


@pytest.fixture(autouse=True)
def native() -> Iterator[None]:
    level, n_threads = _cpu.simd_level(), _cpu.n_threads()
    yield
    _cpu.set_simd_level(level)
    _cpu.set_threads(n_threads)


def run_loss() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(190, 600, 3, generator=generator).requires_grad_()
    target = torch.rand(190, 600, 3, generator=generator)
    parts = l1_ssim_parts(rgb, target, torch.rand(190, 600, generator=generator))
    parts.loss.backward()
    assert rgb.grad is not None
    return [rgb.grad, torch.tensor([parts.l1, parts.ssim, parts.loss.item()], dtype=torch.float64)]


def run_adam() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(3,), (), (15, 3)]
    params, grads, means = ([torch.randn(3001, *s, generator=generator) for s in shapes] for _ in range(3))
    squares = [torch.rand(3001, *s, generator=generator) for s in shapes]
    grads[2][17, 3] = torch.nan
    visible = torch.rand(3001, generator=generator) < 0.6
    n_bad = adam_step_(params, [*grads], means, squares, [1e-2] * 3, 4, visible)
    return [*params, *means, *squares, torch.tensor(n_bad)]


def run_knn() -> list[Tensor]:
    points = torch.randn(4000, 3, generator=torch.Generator().manual_seed(2)).mul(4).round() / 4
    return list(nearest(points, points, 6))


def run_noise() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    means, quats = torch.randn(5000, 3, generator=generator), torch.randn(5000, 4, generator=generator)
    mcmc_noise_(means, quats, means - 2, torch.randn(5000, generator=generator) * 3 - 3, 10.0, 1, 2)
    return [means]


RUNS = [run_loss, run_adam, run_knn, run_noise]


@pytest.mark.parametrize("level", _cpu.simd_levels())
@pytest.mark.parametrize("run", RUNS)
def test_bytes_do_not_depend_on_the_number_of_threads(run: Callable[[], list[Tensor]], level: str) -> None:
    _cpu.set_simd_level(level)
    found = []
    for n_threads in (1, 2, 3):
        _cpu.set_threads(n_threads)
        found.append(run())
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("level", _cpu.simd_levels())
@pytest.mark.parametrize("run", RUNS)
def test_every_simd_level_agrees_with_scalar_code(run: Callable[[], list[Tensor]], level: str) -> None:
    _cpu.set_simd_level("scalar")
    expected = run()
    _cpu.set_simd_level(level)
    for a, b in zip(run(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=LEVEL_ERROR * float(b.abs().max()))
