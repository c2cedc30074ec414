"""Measure radiance fields: rates of the native kernels, a step of fitting against plain torch, and time to quality.

python tools/bench_field.py CAPTURE [--kind trivec] [--budgets 60 180 600 900] prints tables for docs/benchmarks.md.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from scene3d import _cpu
from scene3d.core.cameras import Cameras, look_at
from scene3d.core.capture import Capture
from scene3d.core.fields import Decoder, Field, FieldKind, LeafLevel
from scene3d.core.scene import Scene
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.ops.rays import camera_rays, tiled_pixels
from scene3d.ops.threads import available_threads, set_threads
from scene3d.recon.field_fit import FieldHooks, fit_field
from scene3d.recon.field_rays import RayPool
from scene3d.recon.field_settings import field_preset, without_bounds
from scene3d.recon.validate import Validation, validate_scene
from scene3d.render.field_cpu import NativeDecoder, NativeField, empty_marks
from scene3d.render.field_march import MarchSettings, RaySums
from scene3d.render.scene_view import render_scene

NODES, SIDE, ROUNDS = 200, 64, 9
FOG = -6.0  # Density so thin that rays pass all of the box: rates are those of samples, not of empty space.


@dataclass(frozen=True)
class Config:
    """What to measure."""

    capture: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="CAPTURE")] = None
    """Folder with photos and poses; without one only kernels are measured."""
    kind: FieldKind = "vm"
    """Of the fits and of the step."""
    max_size: int = 400
    """Longer side of photos at most, pixels."""
    budgets: tuple[int, ...] = ()
    """Seconds of fitting, one fit each."""
    torch_steps: int = 3
    """Steps of the plain torch peer that are timed."""


def main(config: Config) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    with torch.no_grad():
        print("| kernel | samples or rows per second and core, M |\n| --- | --- |")
        for name, rate in kernel_rates():
            print(f"| {name} | {rate:.1f} |")
    if config.capture is None:
        return
    capture = read_capture(config.capture, CaptureOptions(max_size=config.max_size))
    if config.kind == "vm" and config.torch_steps > 0:
        print_step(capture, config.torch_steps)
    if config.budgets:
        print(
            "\n| seconds | steps | processor seconds | PSNR | numbers | memory |\n| --- | --- | --- | --- | --- | --- |"
        )
    for budget in config.budgets:
        print_fit(capture, config.kind, budget)


def kernel_rates() -> list[tuple[str, float]]:
    """Rates of one thread, millions a second."""
    set_threads(1)
    rays, rates = image_rays(), []
    fields = {"VM-16 density": (foggy_field(), 1.0), "VM-16 density and VM-48 colour": (foggy_field(), 0.0)}
    fields |= {"leaves: density": (foggy_leaves(16), 1.0), "leaves: density and 16 features": (foggy_leaves(16), 0.0)}
    fields |= {"leaves: density and 48 features": (foggy_leaves(48), 0.0)}
    try:
        for label, (field, min_weight) in fields.items():
            native = NativeField(field, MarchSettings(min_weight=min_weight))
            tape = native.new_tape()
            forward = best_time(lambda: native.march(*rays, None, tape))  # noqa: B023
            v = RaySums(torch.full((len(rays[0]), field.n_features), 1e-3), *torch.ones(2, len(rays[0])))
            grads = [torch.zeros_like(value) for value in field.factors()]
            marks = empty_marks(grads)
            backward = best_time(lambda: native.march_backward(tape, v, grads, marks))  # noqa: B023
            n = tape.n_samples / 1e6
            rates += [(f"{label}, forward", n / forward), (f"{label}, forward + backward", n / (forward + backward))]
        rates += decoder_rates(foggy_field().decoder)
    finally:
        set_threads(None)
    return rates


def decoder_rates(decoder: Decoder) -> list[tuple[str, float]]:
    """Pixels through the decoder, forward and with the way back."""
    n = 8192
    native = NativeDecoder(decoder)
    directions = torch.nn.functional.normalize(torch.randn(n, 3), dim=1)
    features, opacity, v = torch.randn(n, decoder.basis.shape[0]), torch.ones(n), torch.randn(n, 3)
    forward = best_time(lambda: native.decode(features, opacity, directions))
    backward = best_time(lambda: native.decode_backward(features, opacity, directions, v))
    return [("decoder, forward", n / forward / 1e6), ("decoder, forward + backward", n / (forward + backward) / 1e6)]


def foggy_field() -> Field:
    """VM-16/48 at NODES^3."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return 0.1 * torch.randn(*shape, generator=generator)

    def factors(rank: int) -> tuple[Tensor, ...]:
        return (*(normal(NODES, NODES, rank) for _ in range(3)), *(normal(NODES, rank) for _ in range(3)))

    decoder = Decoder(
        normal(144, 32), (normal(176, 64), normal(64, 64), normal(64, 3)), (normal(64), normal(64), normal(3))
    )
    box = torch.tensor([[-1.0] * 3, [1.0] * 3])
    return Field("vm", box, factors(16), factors(48), decoder, 1.0, 0.005, FOG)


def foggy_leaves(rank: int) -> Field:
    """One size of cubes, all with a leaf of 9 nodes; as many nodes as foggy_field."""
    level = LeafLevel(torch.ones(NODES // 8, NODES // 8, NODES // 8, dtype=torch.bool), 9)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return 0.1 * torch.randn(*shape, generator=generator)

    density, color = (tuple(normal(level.n_leaves, level.nodes, r) for _ in range(3)) for r in (16, rank))
    decoder = Decoder(normal(rank, 16), (normal(96, 64), normal(64, 64), normal(64, 3)), (*normal(2, 64), normal(3)))
    box = torch.tensor([[-1.0] * 3, [1.0] * 3])
    return Field("trivec", box, density, color, decoder, 1.0, 0.005, FOG, None, (level,))


def image_rays() -> tuple[Tensor, Tensor]:
    """Rays of an image of SIDE x SIDE pixels that the box fills."""
    viewmat = look_at(torch.tensor([0.3, -3.0, 0.5]), torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
    K = torch.tensor([[1.6 * SIDE, 0, SIDE / 2], [0, 1.6 * SIDE, SIDE / 2], [0, 0, 1]])
    camera = Cameras(viewmat[None], K[None], torch.tensor([[SIDE, SIDE]]))
    columns, rows = tiled_pixels(SIDE, SIDE)
    origins, directions = camera_rays(camera, torch.zeros_like(columns), columns, rows)
    return origins.contiguous(), directions.contiguous()


def best_time(action: Callable[[], object]) -> float:
    """Seconds of the fastest of some rounds."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return min(times)


def print_step(capture: Capture, n_steps: int) -> None:
    """Rays per second of a fit's steps, ours and plain torch's, all cores, on the same rays of the same field."""
    field = fit_field(capture, replace(field_preset("fast", "vm", 400), checkpoint_every=0)).field
    set_threads(None)
    with torch.no_grad():
        pool = RayPool(capture)
        native = NativeField(field)
        pool.keep_hits(native)
        batch = pool.draw(4096, torch.Generator().manual_seed(0))
    ours = time_native_step(field, native, batch.origins, batch.directions)
    torch.set_num_threads(available_threads())
    steps = [time_torch_step(field, batch.origins, batch.directions) for _ in range(n_steps)]
    torch.set_num_threads(1)
    theirs, n = min(steps), len(batch.origins)
    print("\n| step of 4,096 rays | ms | rays/s |\n| --- | --- | --- |")
    print(f"| native | {1e3 * ours:.0f} | {n / ours:,.0f} |\n| plain torch | {1e3 * theirs:.0f} | {n / theirs:,.0f} |")
    print(f"\n{theirs / ours:.0f} times the rays per second of plain torch; {field.resolution} nodes")
    camera = capture.cameras.select([capture.test[0]]).to(dtype=torch.float32)
    large = camera.resized(camera.sizes * 2)
    for view in (camera, large):
        seconds = best_time(lambda: render_scene(Scene(field), view))  # noqa: B023
        print(f"image of {view.width()}x{view.height()}: {1e3 * seconds:.0f} ms, {1 / seconds:.1f} a second")


def time_native_step(field: Field, native: NativeField, origins: Tensor, directions: Tensor) -> float:
    """Forward, decode, both ways back and Adam, as recon.field_fit does them."""
    tape = native.new_tape()
    grads = [torch.zeros_like(value) for value in field.factors()]
    moments = [(torch.zeros_like(value), torch.zeros_like(value)) for value in grads]
    marks, values = empty_marks(grads), [value.clone() for value in field.factors()]

    def step() -> None:
        sums = native.march(origins, directions, None, tape)
        decoder = NativeDecoder(field.decoder)
        colors = decoder.decode(sums.features, sums.opacity, directions)
        v_features, v_opacity, _ = decoder.decode_backward(sums.features, sums.opacity, directions, colors - 0.5)
        native.march_backward(tape, RaySums(v_features, v_opacity, torch.zeros_like(v_opacity)), grads, marks)
        for value, grad, (mean, square), mark in zip(values, grads, moments, marks, strict=True):
            rank, width = value.shape[-1], value.shape[-2]
            _cpu.field_adam(value, grad, mean, square, mark, width, rank, 0.0, 0.0, 1, [0.9, 0.99, 1e-15])

    with torch.no_grad():
        return best_time(step)


def time_torch_step(field: Field, origins: Tensor, directions: Tensor) -> float:
    """TensoRF's step as its users run it: dense samples, grid_sample, one evaluation of the network per sample of
    weight, autograd and Adam over all values."""
    leaf = field.map(lambda value: value.clone().requires_grad_())
    leaves = [*leaf.factors(), *leaf.decoder.tensors()]
    adam = torch.optim.Adam(leaves, lr=1e-4, betas=(0.9, 0.99))
    began = time.perf_counter()
    colors, opacity = torch_rays(leaf, origins, directions)
    loss = (colors + (1 - opacity[:, None]) - 0.5).square().mean()
    loss.backward()
    adam.step()
    return time.perf_counter() - began


def torch_rays(field: Field, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Colours and opacities of rays, samples outside of the occupancy left out."""
    low, high = field.box
    a, b = (low - origins) / directions, (high - origins) / directions
    near, far = torch.minimum(a, b).amax(dim=1).clamp_min(0), torch.maximum(a, b).amin(dim=1)
    k = torch.arange(int(((far - near) / field.step).max()) + 1)
    t = near[:, None] + (k + 0.5) * field.step
    points = origins[:, None] + directions[:, None] * t[..., None]
    unit = (points - low) / (high - low) * 2 - 1
    taken = (t < far[:, None]) & (unit.abs() <= 1).all(dim=2)
    if field.occupancy is not None:
        cells = field.occupancy.float()[None, None]
        hit = torch.nn.functional.grid_sample(cells, unit[None, None], mode="nearest", align_corners=False)
        taken &= hit[0, 0, 0] > 0.5
    feature = torch.zeros_like(t).masked_scatter(taken, torch_products(field.density, unit[taken]).sum(dim=0))
    optical = torch.nn.functional.softplus(feature + field.density_shift) * (field.density_scale * field.step)
    alpha = torch.where(taken, 1 - torch.exp(-optical), 0.0)
    passing = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha[:, :-1] + 1e-10], dim=1), dim=1)
    weights = alpha * passing
    shown = weights > 1e-4
    sums = torch_products(field.color, unit[shown]).T
    rays = directions[:, None].expand(-1, t.shape[1], -1)[shown]
    rgb = torch.zeros(*t.shape, 3).masked_scatter(shown[..., None], torch_decode(field.decoder, sums, rays))
    return (weights[..., None] * rgb).sum(dim=1), weights.sum(dim=1)


def torch_products(factors: tuple[Tensor, ...], unit: Tensor) -> Tensor:  # [P, 3] -> [3 R, P]
    axes, across = ((0, 1), (0, 2), (1, 2)), (2, 1, 0)
    parts = []
    for mode in range(3):
        plane, line = factors[mode].permute(2, 0, 1)[None], factors[3 + mode].T[None, ..., None]
        at = unit[:, axes[mode]][None, None]
        on_line = torch.stack([torch.zeros(len(unit)), unit[:, across[mode]]], dim=1)[None, None]
        values = torch.nn.functional.grid_sample(plane, at, align_corners=True)[0, :, 0]
        parts.append(values * torch.nn.functional.grid_sample(line, on_line, align_corners=True)[0, :, 0])
    return torch.cat(parts)


def torch_decode(decoder: Decoder, features: Tensor, directions: Tensor) -> Tensor:
    from scene3d.render.field_reference import decode

    return decode(decoder, features, torch.ones(len(features)), directions)


def print_fit(capture: Capture, kind: FieldKind, seconds: int) -> None:
    """A fit of so many seconds."""
    steps = {60: 1500, 180: 4000}.get(seconds, 25 * seconds)
    preset = field_preset("fast" if seconds <= 180 else "balanced", kind, steps)
    preset = preset if capture.has_alpha else without_bounds(preset)
    began = time.process_time()
    result = fit_field(capture, replace(preset, time_limit=float(seconds), checkpoint_every=0), FieldHooks())
    score: Validation | None = result.validation or validate_scene(Scene(result.field), capture, (1.0,) * 3, 0, 0.0)
    assert score is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"| {seconds} | {result.n_steps:,} | {time.process_time() - began:.0f} | {score.psnr:.2f} dB | "
        f"{result.field.n_numbers / 1e6:.1f} M | {peak:.2f} GB |",
        flush=True,
    )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
