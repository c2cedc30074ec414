"""The native steps of fitting, of the CPU and of CUDA (its kernels on the host), against the one through autograd."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from emulation import load_emulated
from tiny_capture import tiny_capture, tiny_scene

from scene3d.core.gaussians import Gaussians
from scene3d.core.push import Push
from scene3d.ops import cuda_call
from scene3d.ops.memory_limit import GIGABYTE, set_memory_limit
from scene3d.recon.densify import GradStats
from scene3d.recon.descent import Descent, Objective
from scene3d.recon.optim import AdamState
from scene3d.recon.photos import PhotoStore, Target
from scene3d.recon.settings import FitSettings, LearningRates
from scene3d.recon.step import Outcome, Rates, View
from scene3d.render import backends
from scene3d.render.types import RasterSettings

try:
    from scene3d import _cuda_emulated as emulated
except ImportError:
    emulated = None

pytestmark = pytest.mark.skipif(backends.why_unavailable("cpu") is not None, reason="the native module is not built")

SCENE = tiny_scene()
CAPTURE = tiny_capture(SCENE)
BACKGROUND = (0.2, 0.3, 0.4)
SETTINGS = FitSettings(backend="cpu", opacity_reg=0.3, scale_reg=0.2)
LRS = dict.fromkeys(SCENE.payload.params(), 0.001)
# The two paths differ by the order of float32 sums; Adam's first step turns every gradient into one of length lr.
CLOSE = 2e-5
BAND_BYTES = 1100  # For the lists of one row of tiles, and too little for both.


def first_state(degree: int = 2) -> AdamState:
    generator = torch.Generator().manual_seed(3)
    noisy = SCENE.payload.map(lambda value: value + 0.05 * torch.randn(value.shape, generator=generator))
    return AdamState.start(noisy, degree)


def view_of(index: int = 0, **changes: object) -> View:
    photos = PhotoStore(CAPTURE)
    raster = RasterSettings(background=BACKGROUND)
    return replace(View(index, photos.camera(index, 1), photos.target(index, 1), BACKGROUND, raster), **changes)


@pytest.fixture(params=["cpu", "cuda", "cuda in order", "cuda in bands"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Which native step is tried."""
    if request.param != "cpu":
        emulated_or_skip()
    yield request.param
    if emulated is not None:
        emulated.set_schedule(0)


def emulated_or_skip() -> None:
    if emulated is None:
        load_emulated()


@contextmanager
def settings_for(backend: str, schedule: int = 3) -> Iterator[FitSettings]:
    """Settings of a fit by a backend; that of CUDA takes tensors of the CPU inside."""
    name = backend.split()[0]
    with pytest.MonkeyPatch.context() as patch:
        if name == "cuda":
            patch.setattr(cuda_call, "module", emulated)
            emulated.set_schedule(schedule)
        if backend == "cuda in bands":
            set_memory_limit(BAND_BYTES / GIGABYTE)
        torch.use_deterministic_algorithms(backend == "cuda in order")
        try:
            yield replace(SETTINGS, backend=name)
        finally:
            torch.use_deterministic_algorithms(False)
            set_memory_limit(None)


def run_steps(
    objective: Objective | None, view: View, n_steps: int = 4, backend: str = "cpu", push: Push | None = None
) -> tuple[AdamState, GradStats, Outcome]:
    state = first_state()
    stats = GradStats.zeros(len(state))
    with settings_for(backend) as settings:
        descent = Descent(settings, objective)
        for _ in range(n_steps):
            outcome = descent.step(state, stats, view, Rates(LRS, 0.5, 2.0, True), push)
    return state, stats, outcome


def assert_same_steps(view: View, backend: str, push: Push | None = None) -> None:
    native, native_stats, native_outcome = run_steps(None, view, backend=backend, push=push)
    oracle, oracle_stats, outcome = run_steps(Objective(), view, push=push)
    assert native_outcome.loss == pytest.approx(outcome.loss, rel=1e-5)
    assert native.n_steps == oracle.n_steps == 4
    for name, value in oracle.values.items():
        moved = (native.values[name] - value).abs().detach()
        # Where a gradient is rounding noise, Adam still takes a whole step: such rows are few.
        assert moved.flatten().quantile(0.98) < CLOSE, name
    assert torch.equal(native_stats.counts, oracle_stats.counts)
    torch.testing.assert_close(native_stats.sums, oracle_stats.sums, rtol=1e-3, atol=1e-7)


def test_native_step_moves_as_autograd_does(backend: str):
    assert_same_steps(view_of(), backend)


def test_native_step_takes_weights_and_float_targets(backend: str):
    target = view_of().target
    weight = torch.linspace(0, 1, target.rgb.shape[1]).expand(target.rgb.shape[:2]).contiguous()
    assert_same_steps(view_of(target=Target(target.rgb.float() / 255, None, weight)), backend)


def test_native_step_takes_colour_transforms_and_gives_their_gradient(backend: str):
    transform = torch.tensor([[1.1, 0.1, 0.0, 0.02], [0.0, 0.9, 0.05, -0.01], [0.02, 0.0, 1.2, 0.0]])
    view = view_of(transform=transform)
    assert_same_steps(view, backend)
    native, oracle = run_steps(None, view, 1, backend)[2], run_steps(Objective(), view, 1)[2]
    assert native.v_transform is not None
    assert oracle.v_transform is not None
    torch.testing.assert_close(native.v_transform, oracle.v_transform, rtol=1e-4, atol=1e-6)


def test_native_step_gives_the_gradient_of_the_camera(backend: str):
    view = view_of(wants_viewmat=True)
    native, oracle = run_steps(None, view, 1, backend)[2], run_steps(Objective(), view, 1)[2]
    assert native.v_viewmat is not None
    assert oracle.v_viewmat is not None
    assert native.v_viewmat.abs().max() > 0
    torch.testing.assert_close(native.v_viewmat[:3], oracle.v_viewmat[:3], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("objective", [None, Objective()])
def test_step_without_a_finite_loss_moves_nothing(objective: Objective | None, backend: str):
    target = view_of().target
    broken = Target(torch.full(target.rgb.shape, torch.nan), None, None)
    state, stats, outcome = run_steps(objective, view_of(target=broken), 1, backend)
    assert outcome.loss != outcome.loss
    assert state.n_steps == 0
    assert all(torch.equal(a, b) for a, b in zip(state.values.values(), first_state().values.values(), strict=True))
    assert not stats.counts.any()


def test_unseen_gaussians_stay_where_they_are(backend: str):
    state = first_state()
    state.values["means"].detach()[4] = torch.tensor([0.0, 0.0, -1e3])
    before = state.gaussians().detach().map(torch.clone)
    with settings_for(backend) as settings:
        Descent(settings).step(state, GradStats.zeros(len(state)), view_of(), Rates(LRS, 0.5, 2.0, True))
    same = {name: torch.equal(value[4], before.params()[name][4]) for name, value in state.values.items()}
    assert all(same.values()), same


def test_step_follows_arrays_that_were_replaced(backend: str):
    state, stats, view = first_state(), GradStats.zeros(len(SCENE.payload)), view_of()
    with settings_for(backend) as settings:
        descent = Descent(settings)
        descent.step(state, stats, view, Rates(LRS, 0.5, 2.0, True))
        state.rearrange(torch.arange(10), torch.zeros(10, dtype=torch.bool))
        before = state.values["sh0"].detach().clone()
        descent.step(state, GradStats.zeros(10), view, Rates(LRS, 0.5, 2.0, True))
    assert not torch.equal(before, state.values["sh0"].detach())


def test_ordered_steps_do_not_depend_on_the_order_of_threads_and_blocks():
    emulated_or_skip()
    runs = []
    for schedule in range(4):
        state = first_state()
        stats = GradStats.zeros(len(state))
        with settings_for("cuda in order", schedule) as settings:
            descent = Descent(settings)
            for _ in range(3):
                descent.step(state, stats, view_of(), Rates(LRS, 0.5, 2.0, True))
        runs.append([*state.values.values(), *state.exp_avg_sq.values(), stats.sums])
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_cuda_step_takes_every_degree(degree: int):
    emulated_or_skip()
    moved = []
    for backend in ("cpu", "cuda"):
        state = first_state(degree)
        with settings_for(backend) as settings:
            outcome = Descent(settings).step(state, GradStats.zeros(len(state)), view_of(), Rates(LRS, 0.5, 2.0, False))
        moved.append((outcome.loss, state))
    (found_loss, found), (loss, expected) = reversed(moved)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    for name, value in expected.exp_avg_sq.items():  # before Adam has divided sizes away
        torch.testing.assert_close(
            found.exp_avg_sq[name],
            value,
            rtol=5e-3,
            atol=float(value.abs().max()) * 1e-4 if len(value.flatten()) else 0,
        )


def test_too_little_memory_for_the_lists_is_said_and_moves_nothing(monkeypatch: pytest.MonkeyPatch):
    emulated_or_skip()
    monkeypatch.setitem(globals(), "BAND_BYTES", 100)
    state = first_state()
    with (
        settings_for("cuda in bands") as settings,
        pytest.raises(MemoryError, match=r"one row of tiles .* are allowed"),
    ):
        Descent(settings).step(state, GradStats.zeros(len(state)), view_of(), Rates(LRS, 0.5, 2.0, False))
    assert torch.equal(state.values["means"], first_state().values["means"])


def push_of(**changes: object) -> Push:
    generator = torch.Generator().manual_seed(5)
    values = first_state().gaussians().detach().params()
    noise = {name: 0.05 * torch.randn(value.shape, generator=generator) for name, value in values.items()}
    grads = {name: 1e-3 * torch.randn(values[name].shape, generator=generator) for name in ("log_scales", "shN")}
    return replace(Push(noise, grads), **changes)


def test_native_step_takes_offsets_and_gradients_as_autograd_does(backend: str):
    assert_same_steps(view_of(), backend, push_of())


@pytest.mark.parametrize("backend", ["cuda", "cuda in bands", "cuda in order"])
def test_cuda_step_takes_masks_and_leaves_their_gradient(backend: str):
    emulated_or_skip()

    def masked() -> Push:
        masks = torch.linspace(0, 1, len(SCENE.payload)).masked_fill(torch.arange(len(SCENE.payload)) % 3 == 0, 0.0)
        return push_of(masks=masks.requires_grad_())

    assert_same_steps(view_of(), backend, masked())
    pushes = masked(), masked()
    for name, objective, push in zip((backend, "cpu"), (None, Objective()), pushes, strict=True):
        run_steps(objective, view_of(), 1, name, push)
    found, expected = (push.masks.grad for push in pushes if push.masks is not None)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert bool(found[::3].any()), "hidden ones have a gradient"


def test_cuda_steps_refuse_arrays_of_other_sizes():
    emulated_or_skip()
    short = push_of(grads={"means": torch.zeros(3, 3)})
    with pytest.raises(ValueError, match=r"added: expected .* numbers, got 9"):
        run_steps(None, view_of(), 1, "cuda", short)
    with pytest.raises(ValueError, match=r"masks: expected .* numbers, got 2"):
        run_steps(None, view_of(), 1, "cuda", push_of(masks=torch.ones(2).requires_grad_()))


def test_offsets_are_shown_and_do_not_stay():
    push = push_of(grads={})
    plain, shown = run_steps(None, view_of(), 1)[2].loss, run_steps(None, view_of(), 1, push=push)[2].loss
    assert shown != pytest.approx(plain, rel=1e-3)
    moved = run_steps(None, view_of(), 1, push=push)[0]
    for name, value in first_state().values.items():
        assert (moved.values[name] - value).abs().max() <= 1.01 * LRS[name]


def test_fixed_tensors_do_not_move():
    moved = run_steps(None, view_of(), 2, push=push_of(fixed=("means", "quats")))[0]
    for name, value in first_state().values.items():
        assert torch.equal(moved.values[name], value) == (name in ("means", "quats"))


def test_steps_go_on_where_a_push_begins_and_ends():
    state, stats, descent = first_state(), GradStats.zeros(len(SCENE.payload)), Descent(SETTINGS)
    rates = Rates(LRS, 0.5, 2.0, True)
    gone = push_of(offsets={"opacity_logits": torch.full((len(state),), -30.0)}, grads={})
    losses = [descent.step(state, stats, view_of(), rates, push).loss for push in (None, gone, None)]
    assert losses[1] != pytest.approx(losses[0], rel=0.05)
    assert losses[2] == pytest.approx(losses[0], rel=0.05)


def test_objective_replaces_what_is_shown_and_adds_to_the_loss():
    seen: list[int] = []

    def halve(gaussians: Gaussians, fraction: float) -> Gaussians:
        return replace(gaussians, opacity_logits=gaussians.opacity_logits - 2 * fraction)

    def penalty(gaussians: Gaussians, render: object, view: int, fraction: float) -> torch.Tensor:
        seen.append(view)
        return 10 + 0 * gaussians.means.sum()

    plain = run_steps(Objective(), view_of(), 1)[2].loss
    shown = run_steps(Objective(shown=halve), view_of(), 1)[2].loss
    added = run_steps(Objective(penalty=penalty), view_of(), 1)[2].loss
    assert shown != pytest.approx(plain, rel=1e-3)
    assert added == pytest.approx(plain + 10, rel=1e-5)
    assert seen == [0]


def test_rates_are_those_of_the_settings():
    fast = FitSettings(backend="cpu", lrs=LearningRates(beta1=0.0, beta2=0.0))
    state = first_state()
    before = state.values["sh0"].detach().clone()
    Descent(fast).step(state, GradStats.zeros(len(state)), view_of(), Rates({**LRS, "sh0": 0.25}, 0.5, 2.0, False))
    moved = (state.values["sh0"].detach() - before).abs()
    # Without memory every step of Adam is lr long.
    assert moved.max() == pytest.approx(0.25, rel=1e-4)
