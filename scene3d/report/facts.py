"""Facts about a scene file or a capture: what `scene3d info` tells, as data and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from scene3d.core.capture import Capture
from scene3d.core.scene import Scene

PERCENTILES = (0.0, 1.0, 50.0, 99.0, 100.0)
# Below half a step of 8-bit colour a Gaussian of full brightness changes nothing.
TRANSPARENT = 1 / 255
BAR_WIDTH = 40
HISTOGRAM_BINS = 10


@dataclass(frozen=True)
class Histogram:
    """Counts between edges.

    Attributes:
        edges: Rising, one more than counts.
        counts: How many values lie between two edges; the last edge is included.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class SceneFacts:
    """A scene of Gaussians.

    Attributes:
        size_bytes: Of the file.
        n_gaussians: Count.
        sh_degree: Highest degree stored.
        n_nonfinite: Gaussians with a NaN or an infinity; the other facts leave them out.
        n_transparent: Gaussians fainter than one step of 8-bit colour.
        bounds: Percentiles of the centres: for each of PERCENTILES, x y z.
        scales: Largest standard deviation of each Gaussian, percentiles, scene units.
        scale_histogram: The same, edges evenly spaced in the logarithm.
        opacity_histogram: Opacities in ten equal steps.
        bytes_per_attribute: Memory of each parameter in float32.
        tags: Facts that the file states about itself.
    """

    size_bytes: int
    n_gaussians: int
    sh_degree: int
    n_nonfinite: int
    n_transparent: int
    bounds: dict[str, tuple[float, float, float]]
    scales: dict[str, float]
    scale_histogram: Histogram
    opacity_histogram: Histogram
    bytes_per_attribute: dict[str, int]
    tags: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class CaptureFacts:
    """A capture.

    Attributes:
        n_photos: With poses.
        n_train: To fit.
        n_test: Held out.
        sizes: Photos of each size, "270x480" -> 50.
        focal: Smallest and largest focal length, pixels.
        spread: Distances of the cameras from their mean: median and largest, scene units.
        n_points: From structure from motion.
        has_alpha: Photos have transparency.
        protocol: How photos are resized and split.
        notices: What the reader left out or changed.
    """

    n_photos: int
    n_train: int
    n_test: int
    sizes: dict[str, int]
    focal: tuple[float, float]
    spread: tuple[float, float]
    n_points: int
    has_alpha: bool
    protocol: str
    notices: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def scene_facts(scene: Scene, size_bytes: int) -> SceneFacts:
    """Gather the facts of a scene of Gaussians whose file has `size_bytes`."""
    everything = scene.splats().detach()
    keep = everything.is_finite()
    gaussians = everything.select(keep)
    opacities = gaussians.opacities
    largest = gaussians.scales.amax(dim=1) if len(gaussians) else torch.zeros(0)
    columns = [_percentiles(column) for column in gaussians.means.unbind(dim=1)]
    info = scene.info
    tags = {"antialiased": info.antialiased, "up": info.up, "source": info.source, "made_by": info.made_by}
    return SceneFacts(
        size_bytes=size_bytes,
        n_gaussians=len(everything),
        sh_degree=everything.sh_degree,
        n_nonfinite=int((~keep).sum()),
        n_transparent=int((opacities < TRANSPARENT).sum()),
        bounds={name: (columns[0][name], columns[1][name], columns[2][name]) for name in columns[0]},
        scales=_percentiles(largest),
        scale_histogram=_log_histogram(largest),
        opacity_histogram=_histogram(opacities, torch.linspace(0, 1, HISTOGRAM_BINS + 1)),
        bytes_per_attribute={name: 4 * value.numel() for name, value in everything.params().items()},
        tags={**tags, "notes": list(info.notes)},
    )


def capture_facts(capture: Capture) -> CaptureFacts:
    """Gather the facts of a capture; no photo is decoded."""
    cameras = capture.cameras
    sizes: dict[str, int] = {}
    for width, height in cameras.sizes.tolist():
        sizes[f"{width}x{height}"] = sizes.get(f"{width}x{height}", 0) + 1
    centers = cameras.centers()
    distances = (centers - centers.mean(dim=0)).norm(dim=1)
    focal = cameras.Ks[:, 0, 0]
    return CaptureFacts(
        n_photos=len(capture),
        n_train=len(capture.train),
        n_test=len(capture.test),
        sizes=sizes,
        focal=(float(focal.min()), float(focal.max())),
        spread=(float(distances.median()), float(distances.max())),
        n_points=len(capture.points),
        has_alpha=capture.has_alpha,
        protocol=capture.protocol,
        notices=capture.notices,
    )


def scene_text(facts: SceneFacts) -> str:
    """The facts of a scene for a terminal."""
    n = max(facts.n_gaussians, 1)
    lines = [
        f"Gaussians     {facts.n_gaussians:,}, spherical harmonics of degree {facts.sh_degree}",
        f"file          {size_text(facts.size_bytes)}, {facts.size_bytes / n:.1f} bytes each",
        f"transparent   {facts.n_transparent:,} ({100 * facts.n_transparent / n:.1f} %) below 1/255",
        f"not finite    {facts.n_nonfinite:,}",
        *(f"{name:<13} {_tag(value)}" for name, value in facts.tags.items() if value not in (None, "", [])),
        "",
        "centres       " + "".join(f"{name:>12}" for name in facts.bounds),
        *(
            f"  {axis:<12}" + "".join(f"{value[i]:>12.4g}" for value in facts.bounds.values())
            for i, axis in enumerate("xyz")
        ),
        "largest scale " + "".join(f"{value:>12.4g}" for value in facts.scales.values()),
        "",
        "largest scale, scene units",
        *_bars(facts.scale_histogram),
        "",
        "opacity",
        *_bars(facts.opacity_histogram),
        "",
        "memory as float32",
        *(f"  {name:<15} {size_text(size):>10}" for name, size in facts.bytes_per_attribute.items()),
    ]
    return "\n".join(lines)


def capture_text(facts: CaptureFacts) -> str:
    """The facts of a capture for a terminal."""
    sizes = ", ".join(f"{count} of {size}" for size, count in facts.sizes.items())
    alpha = "yes" if facts.has_alpha else "no"
    lines = [
        f"photos        {facts.n_photos}: {facts.n_train} to fit, {facts.n_test} held out",
        f"sizes         {sizes}",
        f"focal length  {facts.focal[0]:.1f} to {facts.focal[1]:.1f} pixels",
        f"cameras       {facts.spread[0]:.4g} from their mean (median), {facts.spread[1]:.4g} at most",
        f"points        {facts.n_points:,}",
        f"transparency  {alpha}",
        f"protocol      {facts.protocol}",
        *(f"notice        {notice}" for notice in facts.notices),
    ]
    return "\n".join(lines)


def size_text(size_bytes: float) -> str:
    """Bytes with a unit that makes them readable, 1 MB = 10^6 bytes."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes:.0f} bytes"


def _percentiles(values: Tensor) -> dict[str, float]:
    if len(values) == 0:
        return {f"{p:g}%": 0.0 for p in PERCENTILES}
    ordered = values.double().sort().values
    places = (torch.tensor(PERCENTILES) / 100 * (len(ordered) - 1)).round().long()
    return {f"{p:g}%": float(ordered[i]) for p, i in zip(PERCENTILES, places, strict=True)}


def _log_histogram(values: Tensor) -> Histogram:
    found = values[values > 0].double()
    if len(found) == 0:
        return Histogram((0.0, 1.0), (0,))
    low, high = float(found.log10().min().floor()), float(found.log10().max().ceil())
    high = max(high, low + 1)
    # Steps of a half or a whole power of ten, so that edges are round.
    step = 0.5 if high - low <= 8 else 1.0
    exponents = torch.arange(low, high + 0.5 * step, step, dtype=torch.float64)
    return _histogram(found, 10**exponents)


def _histogram(values: Tensor, edges: Tensor) -> Histogram:
    places = torch.searchsorted(edges.double(), values.double(), right=True) - 1
    counts = torch.bincount(places.clamp(0, len(edges) - 2), minlength=len(edges) - 1)
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))


def _bars(histogram: Histogram) -> list[str]:
    most = max(*histogram.counts, 1)
    rows = zip(histogram.edges, histogram.edges[1:], histogram.counts, strict=False)
    return [f"  {a:>8.3g} - {b:<8.3g} {_bar(count / most)} {count:,}" for a, b, count in rows]


def _bar(share: float) -> str:
    return f"{'#' * round(BAR_WIDTH * share):<{BAR_WIDTH}}"


def _tag(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(str(part) for part in value) if isinstance(value, list | tuple) else str(value)
