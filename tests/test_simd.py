"""Every operation of the SIMD type, on every instruction set that this processor runs, against torch."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

_cpu = pytest.importorskip("scene3d._cpu", reason="the native module is not built")

ROUNDING = 2e-7  # Relative: one unit in the last place, and one more where a fused product is emulated.


@pytest.fixture(params=_cpu.simd_levels())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _cpu.simd_level()
    assert _cpu.set_simd_level(request.param)
    yield request.param
    _cpu.set_simd_level(before)


def operands(seed: int) -> Tensor:  # [3, 16], no zeros, some equal lanes
    abc = torch.randn(3, 16, generator=torch.Generator().manual_seed(seed)) * 3
    abc[1, 4] = abc[0, 4]
    abc[2, 5] = abc[0, 5]
    return abc


def shifted(a: Tensor, by: int) -> Tensor:
    result = a.roll(by)
    result[0 if by > 0 else -1] = 0
    return result


def first(a: Tensor, n: int, rest: Tensor) -> Tensor:
    return torch.where(torch.arange(16) < n, a, rest)


def expected_rows(a: Tensor, b: Tensor, c: Tensor) -> list[tuple[str, Tensor]]:
    lanes = torch.arange(16)
    low, high, zero = a < b, a >= c, torch.zeros(16)
    rows = [
        ("a + b", a + b),
        ("a - b", a - b),
        ("a * b", a * b),
        ("a / b", a / b),
        ("fma", (a.double() * b + c).float()),
        ("fnma", (c - a.double() * b).float()),
        ("min", torch.minimum(a, b)),
        ("max", torch.maximum(a, b)),
        ("abs", a.abs()),
        ("sqrt", a.abs().sqrt()),
        ("reciprocal", 1 / b),
        ("a < b", low.float()),
        ("a >= c", high.float()),
        ("and", (low & high).float()),
        ("bits", torch.full((16,), float((low * 2**lanes).sum()))),
        ("mask_of", ((0x9C35 >> lanes) & 1).float()),
        ("any", torch.full((16,), float(low.any()))),
        ("keep", torch.where(low, a, zero)),
        ("select", torch.where(low, a, c)),
        ("lane_index", lanes.float()),
        ("shift_up", shifted(a, 1)),
        ("shift_down", shifted(a, -1)),
    ]
    for n in (0, 5, 10, 15):
        rows += [("load_first", first(a, n, zero)), ("store_first", first(a, n, b))]
    return rows + [("transpose", a[i] * lanes) for i in range(16)]


@pytest.mark.parametrize("seed", range(4))
def test_every_operation_gives_what_torch_gives(level: str, seed: int) -> None:
    abc = operands(seed)
    found = _cpu.simd_probe(abc)
    expected = expected_rows(*abc)
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (name, lanes), (_, row) in zip(found, expected, strict=True):
        # Sums of products cancel: their rounding is that of the products.
        atol = ROUNDING * 100 if name in ("fma", "fnma") else 0
        torch.testing.assert_close(
            torch.tensor(lanes), row, rtol=ROUNDING, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_comparisons_with_nan_are_false(level: str) -> None:
    abc = operands(0)
    abc[:, 3] = torch.nan
    found = dict(_cpu.simd_probe(abc))
    assert found["a < b"][3] == 0
    assert found["a >= c"][3] == 0
