"""Line plots as inline SVG: axes with round ticks, colours from the page's CSS so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 42
MAX_POINTS = 400


@dataclass(frozen=True)
class Plot:
    """One curve.

    Attributes:
        title: Above the plot.
        x_label: With unit.
        y_label: With unit.
        points: (x, y); those that are not finite are left out.
        has_markers: Draw a dot with its value at every point: for few points.
        is_log: Logarithmic y.
    """

    title: str
    x_label: str
    y_label: str
    points: tuple[tuple[float, float], ...]
    has_markers: bool = False
    is_log: bool = False


def draw(plot: Plot) -> str:
    """The plot as an <svg> element, or a sentence where there is nothing to draw."""
    points = [(x, y) for x, y in plot.points if math.isfinite(x) and math.isfinite(y) and (y > 0 or not plot.is_log)]
    if not points:
        return f'<p class="none">{escape(plot.title)}: no data</p>'
    x_axis = _Axis.over([x for x, _ in points], LEFT, WIDTH - RIGHT, is_log=False, from_zero=True)
    y_axis = _Axis.over([y for _, y in points], HEIGHT - BOTTOM, TOP, plot.is_log, from_zero=False)
    thinned = points if plot.has_markers else _thin(points)
    places = [(x_axis.place(x), y_axis.place(y)) for x, y in thinned]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    last = points[-1]
    label = f"{plot.title}: {number(last[1])} at {plot.x_label} {number(last[0])}"
    return "".join(
        [
            f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">',
            *(_x_tick(x, x_axis.place(x)) for x in x_axis.ticks),
            *(_y_tick(y, y_axis.place(y)) for y in y_axis.ticks),
            f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>',
            f'<polyline class="curve" points="{path}"/>',
            *(_marker(place, y) for place, (_, y) in zip(places, thinned, strict=True) if plot.has_markers),
            f'<text class="label" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
            f"{escape(plot.x_label)}</text>",
            f'<text class="label" transform="translate(12 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" '
            f'text-anchor="middle">{escape(plot.y_label)}</text>',
            "</svg>",
        ]
    )


def number(value: float) -> str:
    """A number as short as an axis needs it: 0.05, 26.9, 12k, 1.5M."""
    for unit, factor in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{unit}"
    return f"{value:.4g}"


def nice_ticks(low: float, high: float, target: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that cover [low, high]."""
    step = _nice_step((high - low) / max(target, 1))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    begin: float
    end: float
    is_log: bool
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, values: Sequence[float], begin: float, end: float, is_log: bool, from_zero: bool) -> _Axis:
        low, high = min(values), max(values)
        if is_log:
            ticks = _log_ticks(low, high)
            return cls(min(low, ticks[0]), max(high, ticks[-1]), begin, end, True, ticks)
        low = min(low, 0.0) if from_zero else low
        if high - low < 1e-9 * max(abs(high), 1e-9):
            low, high = low - max(0.5 * abs(low), 0.5), high + max(0.5 * abs(high), 0.5)
        ticks = tuple(nice_ticks(low, high))
        # x ends where the data ends; y ends on a tick.
        if from_zero:
            return cls(low, high, begin, end, False, tuple(t for t in ticks if low <= t <= high))
        return cls(ticks[0], ticks[-1], begin, end, False, ticks)

    def place(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.is_log else v for v in (self.low, self.high, value))
        return self.begin + (at - low) / (high - low) * (self.end - self.begin)


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    """1, 2, 5, 10 ... around [low, high]."""
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    found = [m * 10.0**e for e in exponents for m in (1, 2, 5)]
    below = max(v for v in found if v <= low * (1 + 1e-9))
    above = min((v for v in found if v >= high * (1 - 1e-9) and v > below), default=10 * below)
    ticks = [round(v, 12) for v in found if below <= v <= above]
    return tuple(ticks if len(ticks) <= 8 else [t for t in ticks if f"{t:e}"[0] == "1"])


def _nice_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(max(step, 1e-30)))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS of them, the last among them."""
    every = -(-len(points) // MAX_POINTS)
    kept = points[::every]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _x_tick(value: float, place: float) -> str:
    bottom = HEIGHT - BOTTOM
    line = f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}" y2="{bottom}"/>'
    return f'{line}<text x="{place:.1f}" y="{bottom + 16}" text-anchor="middle">{number(value)}</text>'


def _y_tick(value: float, place: float) -> str:
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>'
    return f'{line}<text x="{LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{number(value)}</text>'


def _marker(place: tuple[float, float], value: float) -> str:
    title = f"<title>{number(value)}</title>"
    return f'<circle class="dot" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="3.5">{title}</circle>'
