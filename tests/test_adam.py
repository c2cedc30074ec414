import math

import pytest
import torch
from torch import Tensor

from scene3d.ops import adam
from scene3d.ops.adam import adam_step_

cpu = pytest.importorskip("scene3d._cpu", reason="the native module is not built")

SHAPES = [(3,), (4,), (3,), (), (1, 3), (15, 3)]
LRS = [1e-3, 2e-3, 5e-3, 5e-2, 2.5e-3, 1e-4]
BETAS = (0.9, 0.999)
ROUNDING = 3e-6  # A few float32 roundings of values near 1.


class Group:
    def __init__(self, n: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.params = [torch.randn(n, *shape, generator=generator) for shape in SHAPES]
        self.grads: list[Tensor | None] = [torch.randn(n, *shape, generator=generator) for shape in SHAPES]
        self.exp_avgs = [torch.randn(n, *shape, generator=generator) * 0.1 for shape in SHAPES]
        self.exp_avg_sqs = [torch.rand(n, *shape, generator=generator) for shape in SHAPES]

    def step(self, step: int, visible: Tensor | None, eps: float = 1e-15) -> int:
        return adam_step_(
            self.params, self.grads, self.exp_avgs, self.exp_avg_sqs, LRS, step, visible, betas=BETAS, eps=eps
        )

    def everything(self) -> list[Tensor]:
        return [*self.params, *self.exp_avgs, *self.exp_avg_sqs]

    def copies(self) -> list[Tensor]:
        return [t.clone() for t in self.everything()]


@pytest.mark.parametrize("n", [1, 15, 16, 17, 513, 1100])
def test_five_steps_equal_torch_adam_in_float64(n):
    group = Group(n, seed=n)
    for moment in [*group.exp_avgs, *group.exp_avg_sqs]:
        moment.zero_()
    twins = [p.double().requires_grad_() for p in group.params]
    reference = torch.optim.Adam([{"params": [t], "lr": lr} for t, lr in zip(twins, LRS, strict=True)], betas=BETAS)
    for step in range(1, 6):
        for twin, grad in zip(twins, group.grads, strict=True):
            twin.grad = grad.double() * step
        reference.step()
        kept = group.grads
        group.grads = [g * step for g in kept]
        group.step(step, None, eps=1e-8)
        group.grads = kept
    for twin, param in zip(twins, group.params, strict=True):
        torch.testing.assert_close(param.double(), twin.detach(), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("n", [5, 16, 1100])
def test_visible_rows_move_as_if_all_were_visible(n, fraction):
    visible = torch.rand(n, generator=torch.Generator().manual_seed(1)) < fraction
    some, every = Group(n, seed=2), Group(n, seed=2)
    before = some.copies()
    some.step(3, visible.to(torch.uint8))
    every.step(3, None)
    for mine, moved, old in zip(some.everything(), every.everything(), before, strict=True):
        assert torch.equal(mine[visible], moved[visible])
        assert torch.equal(mine[~visible], old[~visible])


@pytest.mark.parametrize("n_columns", [1, 2, 15, 16, 17, 32, 33, 45, 50])
def test_mask_covers_exactly_its_rows_for_any_row_length(n_columns):
    visible = torch.rand(75, generator=torch.Generator().manual_seed(0)) < 0.5
    param, moment, square = torch.zeros(75, n_columns), torch.zeros(75, n_columns), torch.zeros(75, n_columns)
    adam_step_([param], [torch.ones(75, n_columns)], [moment], [square], [1.0], 1, visible)
    assert torch.equal(param != 0, visible[:, None].expand(75, n_columns))
    assert torch.equal(moment != 0, param != 0)
    assert torch.equal(square != 0, param != 0)


def test_bool_and_uint8_masks_mean_the_same():
    visible = torch.arange(40) % 3 == 0
    a, b = Group(40, seed=3), Group(40, seed=3)
    a.step(1, visible)
    b.step(1, visible.to(torch.uint8))
    assert all(torch.equal(x, y) for x, y in zip(a.everything(), b.everything(), strict=True))


def test_nonfinite_gradients_count_as_zero_and_are_counted():
    broken, mended = Group(33, seed=4), Group(33, seed=4)
    for value, row in ((math.nan, 3), (math.inf, 20), (-math.inf, 32)):
        broken.grads[5][row, 2, 1] = value
        mended.grads[5][row, 2, 1] = 0.0
    broken.grads[0][7, 0] = math.nan
    mended.grads[0][7, 0] = 0.0
    assert broken.step(1, None) == 4
    assert mended.step(1, None) == 0
    assert all(torch.equal(x, y) for x, y in zip(broken.everything(), mended.everything(), strict=True))


def test_nonfinite_gradients_of_invisible_rows_are_not_counted():
    group = Group(33, seed=5)
    group.grads[5][3] = math.nan
    visible = torch.ones(33, dtype=torch.uint8)
    visible[3] = 0
    assert group.step(1, visible) == 0


def test_gradient_that_was_always_zero_moves_nothing():
    group = Group(20, seed=6)
    for tensor in [*group.grads, *group.exp_avgs, *group.exp_avg_sqs]:
        tensor.zero_()
    before = group.copies()
    group.step(1, None)
    assert all(torch.equal(x, y) for x, y in zip(group.everything(), before, strict=True))


def test_tiny_gradients_move_as_far_as_large_ones():
    group = Group(20, seed=7)
    for tensor in [*group.exp_avgs, *group.exp_avg_sqs]:
        tensor.zero_()
    group.grads = [torch.full_like(g, 1e-9) for g in group.grads]
    before = [p.clone() for p in group.params]
    group.step(1, None)
    for param, old, lr in zip(group.params, before, LRS, strict=True):
        torch.testing.assert_close(old - param, torch.full_like(param, lr), rtol=0, atol=ROUNDING)


def test_array_without_gradient_is_left_alone():
    group = Group(20, seed=8)
    group.grads[1] = None
    before = group.copies()
    group.step(1, None)
    assert torch.equal(group.params[1], before[1])
    assert not torch.equal(group.params[0], before[0])


def test_noncontiguous_gradients_are_taken():
    a, b = Group(20, seed=9), Group(20, seed=9)
    b.grads = [g.clone().expand(2, *g.shape)[1].flip(0).flip(0) for g in b.grads]
    b.grads[0] = a.grads[0].t().contiguous().t()
    a.step(1, None)
    b.step(1, None)
    assert all(torch.equal(x, y) for x, y in zip(a.everything(), b.everything(), strict=True))


@pytest.mark.parametrize("with_mask", [False, True])
def test_torch_fallback_gives_the_same(monkeypatch, with_mask):
    native, fallback = Group(100, seed=10), Group(100, seed=10)
    for group in (native, fallback):
        group.grads[0][5, 1] = math.nan
    visible = torch.arange(100) % 2 == 1 if with_mask else None
    n_native = native.step(4, visible)
    monkeypatch.setattr(adam, "_cpu", None)
    assert fallback.step(4, visible) == n_native == 1
    for x, y in zip(native.everything(), fallback.everything(), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=ROUNDING)


def test_missing_native_module_is_logged_once(monkeypatch, caplog):
    monkeypatch.setattr(adam, "_cpu", None)
    adam._warn_slow.cache_clear()
    Group(3, seed=11).step(1, None)
    Group(3, seed=11).step(1, None)
    assert [record.message for record in caplog.records] == [
        "Adam runs in torch: the native module is not built. Install scene3d with pip install ."
    ]
    adam._warn_slow.cache_clear()


def test_no_rows_are_no_error():
    assert Group(0, seed=12).step(1, None) == 0


def test_error_names_the_array_whose_shape_differs():
    group = Group(8, seed=13)
    group.exp_avgs[1] = torch.zeros(8, 3)
    with pytest.raises(ValueError, match=r"exp_avgs\[1\]: expected shape \[8, 4\], got \[8, 3\]"):
        group.step(1, None)


def test_error_says_that_values_must_be_contiguous():
    group = Group(8, seed=14)
    group.params[0] = torch.randn(3, 8).t()
    with pytest.raises(ValueError, match=r"params\[0\]: expected a contiguous tensor"):
        group.step(1, None)


def test_error_names_wrong_mask():
    with pytest.raises(TypeError, match=r"visible: expected dtype torch.uint8 or torch.bool, got torch.float32"):
        Group(8, seed=15).step(1, torch.ones(8))
    with pytest.raises(ValueError, match=r"visible: expected shape \[8\], got \[9\]"):
        Group(8, seed=15).step(1, torch.ones(9, dtype=torch.uint8))


def test_step_counts_from_one():
    with pytest.raises(ValueError, match="step: expected 1 or more, got 0"):
        Group(8, seed=16).step(0, None)
