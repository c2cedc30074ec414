"""Forecast of a fit: how long it will take and how much memory, from a few timed steps at its beginning."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from scene3d.core.capture import Capture
from scene3d.core.gaussians import SH_COUNTS, Gaussians
from scene3d.ops.memory_limit import gigabytes_text
from scene3d.recon import losses, schedule
from scene3d.recon.densify import GradStats, count_limit
from scene3d.recon.descent import Descent
from scene3d.recon.optim import AdamState
from scene3d.recon.photos import PhotoStore, reduced_size
from scene3d.recon.settings import FitSettings
from scene3d.recon.step import Rates, View
from scene3d.render.near import with_near
from scene3d.render.types import RasterSettings

N_FRACTIONS = 200
PROBE_SCALE = 4
N_REPEATS = 5  # Of a timed step; the shortest counts, the first ones pay for fresh memory.
PHOTO_CACHE_BYTES = 512 << 20


@dataclass(frozen=True)
class MemoryModel:
    """What a fit takes on a kind of device.

    Attributes:
        base: Bytes of the program itself.
        per_pixel: Bytes: images, their gradients, loss maps, tile lists.
        per_splat: Bytes: projected values and their gradients, per-thread rows, sort keys.
        per_parameter: Numbers: value, two moments, gradient, and a copy while rows are rearranged.
        keeps_photos: Whether photos count.
    """

    base: int
    per_pixel: int
    per_splat: int
    per_parameter: float
    keeps_photos: bool


# The largest tensor holds three quarters of a Gaussian's numbers and is copied alone. Torch's cache cannot use all of
# what it holds; photos stay on a GPU only where there is room.
MEMORY = {
    "cpu": MemoryModel(600 << 20, 160, 400, 5, True),
    "cuda": MemoryModel(256 << 20, 120, 340, 4, False),
}


@dataclass(frozen=True)
class CostModel:
    """Seconds of one step = base + per_gaussian · N + per_pixel · H · W."""

    base: float
    per_gaussian: float
    per_pixel: float

    def step_seconds(self, n_gaussians: int, n_pixels: int) -> float:
        return self.base + self.per_gaussian * n_gaussians + self.per_pixel * n_pixels


@dataclass(frozen=True)
class Forecast:
    """What a fit will take, about: scenes differ, and the count may stay below its cap."""

    seconds: float
    memory_bytes: int
    n_gaussians: int


def measure_cost(capture: Capture, gaussians: Gaussians, settings: FitSettings) -> CostModel:
    """Time steps on one photo at two sizes and two counts. Leaves all arguments as they are."""
    view = capture.train[0]
    store = PhotoStore(capture)
    few = gaussians.select(torch.arange(0, len(gaussians), 4))
    width, height = capture.cameras.width(view), capture.cameras.height(view)
    small = reduced_size(width, height, PROBE_SCALE)
    pixels, few_pixels = width * height, small[0] * small[1]
    whole = _time_step(store, view, gaussians, 1, settings)
    coarse = _time_step(store, view, gaussians, PROBE_SCALE, settings)
    thin = _time_step(store, view, few, PROBE_SCALE, settings)
    per_pixel = max(whole - coarse, 0.0) / max(pixels - few_pixels, 1)
    per_gaussian = max(coarse - thin, 0.0) / max(len(gaussians) - len(few), 1)
    base = max(thin - per_gaussian * len(few) - per_pixel * few_pixels, 0.0)
    return CostModel(base, per_gaussian, per_pixel)


def forecast(capture: Capture, n_start: int, settings: FitSettings, cost: CostModel) -> Forecast:
    """Sum the cost over the schedules of resolution and count.

    Args:
        capture: Its largest training photo counts.
        n_start: Gaussians at the beginning.
        settings: Of the fit.
        cost: From `measure_cost`.
    """
    sizes = capture.cameras.sizes[list(capture.train)]
    width, height = sizes[int((sizes[:, 0] * sizes[:, 1]).argmax())].tolist()
    fractions = [(i + 0.5) / N_FRACTIONS for i in range(N_FRACTIONS)]
    counts = [max(n_start, count_limit(settings.strategy, fraction, n_start)) for fraction in fractions]
    total = 0.0
    for fraction, count in zip(fractions, counts, strict=True):
        scale = schedule.scale_at(settings.resolution, fraction, int(fraction * settings.max_steps))
        size = reduced_size(width, height, scale) if scale > 1 else (width, height)
        total += cost.step_seconds(count, size[0] * size[1])
    seconds = total / N_FRACTIONS * settings.max_steps
    if settings.time_limit:
        seconds = min(seconds, settings.time_limit)
    return Forecast(seconds, memory_bytes(capture, max(counts), settings), max(counts))


def memory_bytes(capture: Capture, n_gaussians: int, settings: FitSettings, device_type: str = "cpu") -> int:
    """What a fit takes at most with so many Gaussians, about, in the memory of the host or of the GPU."""
    model = MEMORY[device_type]
    sizes = capture.cameras.sizes[list(capture.train)]
    n_parameters = 11 + 3 * SH_COUNTS[settings.sh_degree]
    per_gaussian = 4 * n_parameters * model.per_parameter + model.per_splat
    photos = int(capture.cameras.sizes.prod(dim=1).sum()) * (5 if capture.has_alpha else 3)
    # Reduced photos of two scales add a third at most.
    kept = min(photos * 4 // 3, PHOTO_CACHE_BYTES) if model.keeps_photos else 0
    pixels = int(sizes.prod(dim=1).max()) * model.per_pixel
    return model.base + kept + int(n_gaussians * per_gaussian) + pixels


def check_memory(capture: Capture, n_start: int, settings: FitSettings, device_type: str, n_bytes: int) -> None:
    """Compare what a fit may take with what it is allowed, before it begins.

    Raises:
        ValueError: it is too much; says how many Gaussians would do.
    """
    n_most = max(n_start, settings.strategy.cap_max)
    needed = memory_bytes(capture, n_most, settings, device_type)
    if needed <= n_bytes:
        return
    none = memory_bytes(capture, 0, settings, device_type)
    n_possible = max(0, int((n_bytes - none) * n_most / (needed - none)))
    remedy = f"Use --strategy.cap-max {n_possible:,}".replace(",", "") if n_possible >= n_start else "Give it more"
    raise ValueError(
        f"memory-limit: this fit needs about {gigabytes_text(needed)} with at most {n_most:,} Gaussians, "
        f"got {gigabytes_text(n_bytes)}. {remedy}, or smaller photos (--max-size)"
    )


def _time_step(store: PhotoStore, view: int, gaussians: Gaussians, scale: int, settings: FitSettings) -> float:
    state = AdamState.start(gaussians, settings.sh_degree)
    stats, descent = GradStats.zeros(len(state)), Descent(settings)
    camera = store.camera(view, scale)
    raster = with_near(RasterSettings(antialiased=settings.antialiased), gaussians.means, camera)
    photo = View(view, camera, store.target(view, scale), losses.BLACK, raster)
    still = Rates(dict.fromkeys(state.values, 0.0), 0.0, 1.0, True)
    times = []
    for _ in range(N_REPEATS):
        began = time.perf_counter()
        descent.step(state, stats, photo, still)
        times.append(time.perf_counter() - began)
    return min(times)
