"""The CUDA kernels of radiance fields, run on the host, against the torch oracle and the CPU kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from emulation import load_emulated
from field_scenes import random_field, random_rays
from torch import Tensor

from scene3d.core.errors import BackendUnavailable
from scene3d.core.fields import Field
from scene3d.ops import cuda_call
from scene3d.recon.field_adam import step_factors
from scene3d.recon.field_state import FieldState
from scene3d.render import field, field_cuda, field_reference
from scene3d.render.field_cpu import NativeField, empty_marks
from scene3d.render.field_cuda import CudaField
from scene3d.render.field_march import SMOOTH, USUAL, MarchSettings, RaySums

emulated = load_emulated()

KINDS = ("vm", "cp", "trivec", "cover")
# A sample within rounding of a cell's border may fall to either side: few rays differ by a sample.
SHARE_OF_RAYS = 0.95


@pytest.fixture(autouse=True)
def on_emulation(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cuda_call, "module", emulated)
    yield
    emulated.set_schedule(0)


def march_both(scene: Field, n_rays: int, settings: MarchSettings) -> tuple[RaySums, RaySums]:
    """In float32 by the kernels, in float64 by torch."""
    origins, directions, jitter = random_rays(n_rays)
    found = field_cuda.march(
        scene.to(dtype=torch.float32), origins.float(), directions.float(), jitter.float(), settings
    )
    return found, field_reference.march(scene, origins, directions, jitter, settings)


@pytest.mark.parametrize("settings", [USUAL, SMOOTH, MarchSettings(near=2.0, far=3.5)], ids=["usual", "smooth", "cut"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_occupancy", [False, True])
def test_march_gives_what_torch_gives(kind: str, has_occupancy: bool, settings: MarchSettings) -> None:
    found, expected = march_both(random_field(kind, has_occupancy=has_occupancy), 60, settings)
    close = (found.opacity.double() - expected.opacity).abs() < 5e-5
    assert close.double().mean() > SHARE_OF_RAYS
    # A weight at the threshold of 1e-4 may fall to either side, and with it a colour of a few units.
    torch.testing.assert_close(found.features[close].double(), expected.features[close], rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(found.distance[close].double(), expected.distance[close], rtol=1e-3, atol=2e-4)


def gradients(march, scene: Field, rays: tuple[Tensor, ...], dtype: torch.dtype) -> list[Tensor]:
    factors = [value.detach().to(dtype).requires_grad_() for value in scene.factors()]
    sums = march(scene.to(dtype=dtype).with_factors(tuple(factors)), *(r.to(dtype) for r in rays), SMOOTH)
    generator = torch.Generator().manual_seed(3)
    total = sum((torch.randn(v.shape, generator=generator, dtype=torch.float64).to(dtype) * v).sum()
                for v in (sums.features, sums.opacity, sums.distance))  # fmt: skip
    total.backward()
    return [value.grad for value in factors]


@pytest.mark.parametrize("schedule", [0, 1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_factors_are_those_of_torch(kind: str, schedule: int) -> None:
    emulated.set_schedule(schedule)
    scene, rays = random_field(kind, ranks=(16, 16)), random_rays(40)
    found = gradients(field_cuda.march, scene, rays, torch.float32)
    expected = gradients(field_reference.march, scene, rays, torch.float64)
    for a, b in zip(found, expected, strict=True):
        assert torch.nn.functional.cosine_similarity(a.double().flatten(), b.flatten(), dim=0) > 0.9999
        assert (a - b).norm() < 2e-3 * b.norm()


def both_natives(kind: str, ranks: tuple[int, int] = (16, 32)) -> tuple[CudaField, NativeField, Field]:
    scene = random_field(kind, ranks=ranks, has_occupancy=True).to(dtype=torch.float32)
    return CudaField(scene), NativeField(scene), scene


@pytest.mark.parametrize("kind", KINDS)
def test_points_and_hits_are_those_of_the_cpu(kind: str) -> None:
    ours, cpu, scene = both_natives(kind)
    generator = torch.Generator().manual_seed(1)
    points = scene.box[0] + torch.rand(37, 3, generator=generator) * (scene.box[1] - scene.box[0])
    torch.testing.assert_close(ours.density_features(points), cpu.density_features(points), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.color_features(points), cpu.color_features(points), rtol=1e-4, atol=1e-5)
    origins, directions, _ = (value.float() for value in random_rays(60))
    assert torch.equal(ours.hits(origins, directions), cpu.hits(origins, directions))


@pytest.mark.parametrize("schedule", [0, 3])
@pytest.mark.parametrize("distortion", [0.0, 0.05])
@pytest.mark.parametrize("kind", KINDS)
def test_way_back_is_that_of_the_cpu(kind: str, distortion: float, schedule: int) -> None:
    emulated.set_schedule(schedule)
    # So many ranks that a block takes only some of a leaf.
    ranks = (48, 160) if kind == "trivec" and distortion else (16, 32)
    rays = [value.float() for value in random_rays(60)]
    results = []
    for native in both_natives(kind, ranks)[:2]:
        scene = random_field(kind, ranks=ranks, has_occupancy=True)
        tape = native.new_tape()
        sums = native.march(*rays, tape)
        generator = torch.Generator().manual_seed(2)
        v = RaySums(
            *(torch.randn(value.shape, generator=generator) for value in (sums.features, sums.opacity, sums.distance))
        )
        grads = [torch.zeros(value.shape) for value in scene.factors()]
        marks = empty_marks(grads)
        native.march_backward(tape, v, grads, marks, distortion)
        results.append((tape.n_samples, grads, marks))
    (n_found, found, marked), (n_expected, expected, wanted) = results
    assert n_found == pytest.approx(n_expected, abs=4)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() < 5e-3 * b.norm()
    assert sum(int((a != b).sum()) for a, b in zip(marked, wanted, strict=True)) <= 0.01 * sum(
        int(b.sum()) for b in wanted
    )


@pytest.mark.parametrize("kind", ["vm", "trivec"])
def test_masked_steps_of_adam_are_those_of_the_cpu(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = random_field(kind, ranks=(16, 32)).to(dtype=torch.float32)
    results = []
    for module in (emulated, None):
        monkeypatch.setattr(cuda_call, "module", module)
        generator = torch.Generator().manual_seed(4)
        state = FieldState(scene.map(torch.clone), [], (torch.zeros(1), torch.zeros(1)), generator)
        state.start_moments()
        state.since_growth = 3
        for grad, marks in zip(state.grads, state.marks, strict=True):
            grad.copy_(torch.randn(grad.shape, generator=generator))
            marks.copy_(torch.rand(marks.shape, generator=generator) < 0.3)
        # Only nodes that were reached have gradients.
        state.grads[0].view(-1)[7] = torch.nan
        state.marks[0][0, 0] = 1
        state.count_bad(step_factors(state, 0.02, 0.1, (0.9, 0.99)))
        results.append((state, [grad.clone() for grad in state.grads]))
    (found, cleared), (expected, wanted) = results
    assert found.n_bad == expected.n_bad == 1
    for a, b in zip(found.field.factors(), expected.field.factors(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(cleared, wanted, strict=True):
        torch.testing.assert_close(a, b)
    assert not any(bool(marks.any()) for marks in found.marks)


def test_wrong_arrays_of_the_way_back_are_told() -> None:
    ours, _, scene = both_natives("vm")
    tape = ours.new_tape()
    sums = ours.march(*(value.float() for value in random_rays(5)), tape)
    with pytest.raises(ValueError, match="grads: an array has the wrong size"):
        ours.march_backward(tape, sums, [torch.zeros(3) for _ in scene.factors()], [])


def test_odd_numbers_of_rays_and_wide_ranks_are_marched() -> None:
    found, expected = march_both(random_field("vm", ranks=(48, 64)), 5, SMOOTH)
    torch.testing.assert_close(found.features.double(), expected.features, rtol=2e-3, atol=1e-3)
    none = field_cuda.march(
        random_field("vm").to(dtype=torch.float32), *(r[:0].float() for r in random_rays(1)), SMOOTH
    )
    assert none.features.shape == (0, 96)


def test_too_many_features_are_refused() -> None:
    wide = random_field("cp", ranks=(16, 1040)).to(dtype=torch.float32)
    assert not field_cuda.takes(wide)
    with pytest.raises(ValueError, match="features: expected at most 1024"):
        field_cuda.march(wide, *(r.float() for r in random_rays(2)))


def test_fields_elsewhere_are_refused_by_name() -> None:
    with pytest.raises(BackendUnavailable, match="it needs the CUDA module, and a field in float32 on a CUDA device"):
        field.choose_backend("cuda", random_field())
