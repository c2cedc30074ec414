"""Sections of the report page, each a function from a run to HTML. Everything from files is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from scene3d.core.progress import duration_text
from scene3d.ops.colormap import css_stops
from scene3d.report import plots
from scene3d.report.embed import EmbeddedVideo
from scene3d.report.facts import size_text
from scene3d.report.pictures import ERROR_MAX
from scene3d.report.run_folder import RunFolder, flatten

N_EXTREMES = 3
# Runs longer than this show minutes on their time axis.
MINUTES_ABOVE = 300.0


def title(run: RunFolder) -> str:
    """What the run is called: its capture, or its folder where the cameras were found within the run."""
    capture = str(run.metrics.get("capture") or "")
    return capture if capture and not (run.path / capture / "sparse").is_dir() else run.path.resolve().name


def header(run: RunFolder) -> str:
    """Title and one line on what was done."""
    words = []
    if run.log:
        words.append(f"{run.log[-1].step:,} steps")
    if run.views:
        words.append(f"{len(run.views)} views measured")
    if run.metrics.get("backend"):
        words.append(f"rendered by backend {run.metrics['backend']}")
    line = escape(", ".join(words))
    if run.has_page:
        line += ' &middot; <a href="page.html">open the scene in 3D</a>'
    return f'<header><h1>{escape(title(run))}</h1><p class="sub">{line}</p></header>'


def headline(run: RunFolder) -> str:
    """The numbers that count, as cards."""
    metrics = run.metrics
    scores = [
        _card("PSNR", _fixed(metrics.get("psnr"), 2), "dB", is_main=True),
        _card("SSIM", _fixed(metrics.get("ssim"), 4), "", is_main=True),
        _card("FLIP, lower is better", _fixed(metrics.get("flip"), 4), "", is_main=True),
        _card("LPIPS, lower is better", _fixed(metrics.get("lpips"), 4), "", is_main=True),
    ]
    cards = []
    count = metrics.get("n_gaussians") or (run.log[-1].n_gaussians if run.log else None)
    # A radiance field has none.
    if count is not None and (count or not metrics.get("scene_size")):
        cards.append(_card("Gaussians", f"{int(count):,}", ""))
    if run.scene_bytes:
        value, unit = size_text(run.scene_bytes).split(" ", 1)
        cards.append(_card("scene file", value, unit))
    if run.log and run.log[-1].seconds > 0:
        last = run.log[-1]
        cards.append(_card("fitting", duration_text(last.seconds), ""))
        cards.append(_card("steps a second", _fixed(last.step / last.seconds, 1), ""))
    seconds = metrics.get("seconds_per_frame")
    if seconds:
        cards.append(_card("to render a frame", _fixed(1000 * seconds, 1), "ms"))
    missing = "" if metrics else '<p class="hint">Not evaluated yet: run scene3d evaluate, then scene3d report.</p>'
    rows = [f'<div class="cards">{"".join(row)}</div>' for row in (scores, cards) if any(row)]
    return "".join(rows) + missing


def comparison(run: RunFolder, pictures: dict[int, dict[str, str]]) -> str:
    """The slider between photo and render (or two scenes) or error."""
    if not pictures:
        return ""
    options = [f'<option value="{place}">{escape(_name(run, place))}</option>' for place in pictures]
    stops = ", ".join(css_stops(9))
    hidden = len(run.views) - len(pictures)
    note = f" {len(pictures)} of {len(run.views)} views are kept in this file." if hidden else ""
    left, right = (escape(label) for label in run.labels)
    return f"""<h2 id="compare">{escape(run.heading(" and "))}</h2><div class="panel">
<div class="controls"><button id="previous" aria-label="previous view">&#8592;</button>
<select id="pick" aria-label="view">{"".join(options)}</select>
<button id="next" aria-label="next view">&#8594;</button>
<span class="group"><button data-kind="render" aria-pressed="true">{right}</button>
<button data-kind="error" aria-pressed="false">error</button></span></div>
<div class="frame" id="frame"><img id="under" alt=""><img id="over" class="over" alt=""><div class="bar"></div>
<span class="tag left">{left}</span><span class="tag right" id="right">{right}</span>
<input id="slide" type="range" min="0" max="100" step="0.5" value="50" aria-label="share of the left picture"></div>
<div class="ramp" id="ramp" hidden>FLIP 0<i style="background:linear-gradient(90deg, {stops})"></i>{ERROR_MAX:g} or more
</div>
<div class="readout" id="readout"></div>
<p class="hint">Drag, or use the arrow keys.{note}</p></div>"""


def extremes(run: RunFolder, pictures: dict[int, dict[str, str]]) -> str:
    """The worst and the best views by PSNR."""
    order = sorted(pictures, key=lambda place: _value(run.views[place], "psnr"))
    n = min(N_EXTREMES, len(order) // 2)
    if n == 0:
        return ""
    figures = [_trio(run, place, "worst") for place in order[:n]]
    figures += [_trio(run, place, "best") for place in reversed(order[-n:])]
    words = "Worst and best view" if n == 1 else f"The {n} worst and the {n} best views"
    hint = f"{escape(run.heading(', '))}, error."
    return f'<h2>{words}</h2><div class="extremes">{"".join(figures)}</div><p class="hint">{hint}</p>'


def curves(run: RunFolder) -> str:
    """Loss, PSNR and count over steps and time."""
    if not run.is_fit:
        return ""
    if not run.log:
        return '<h2>Curves</h2><p class="none">No fit/log.jsonl in this run.</p>'
    in_minutes = run.log[-1].seconds > MINUTES_ABOVE
    unit, divisor = ("minutes", 60.0) if in_minutes else ("seconds", 1.0)
    measured = [(point, point.psnr) for point in run.log if point.psnr is not None]
    drawn = [
        plots.Plot("Loss", "step", "loss", tuple((p.step, p.loss) for p in run.log), is_log=_spans_a_decade(run)),
    ]
    if any(p.n_gaussians for p in run.log):
        drawn.append(plots.Plot("Gaussians", "step", "count", tuple((p.step, p.n_gaussians) for p in run.log)))
    if measured:
        by_time = tuple((point.seconds / divisor, psnr) for point, psnr in measured)
        by_step = tuple((float(point.step), psnr) for point, psnr in measured)
        drawn.insert(0, plots.Plot("PSNR of test views over time", unit, "dB", by_time, has_markers=True))
        drawn.insert(1, plots.Plot("PSNR of test views over steps", "step", "dB", by_step, has_markers=True))
    panels = [f'<div class="panel"><h3>{escape(p.title)}</h3>{plots.draw(p)}</div>' for p in drawn]
    return f'<h2>Curves</h2><div class="plots">{"".join(panels)}</div>'


def videos(found: Sequence[EmbeddedVideo]) -> str:
    """Rendered videos."""
    if not found:
        return ""
    figures = []
    for video in found:
        player = (
            f'<img src="{video.uri}" alt="{escape(video.name)}">'
            if video.is_image
            else f'<video src="{video.uri}" controls loop muted playsinline></video>'
        )
        figures.append(f'<figure class="panel video">{player}<figcaption>{escape(video.name)}</figcaption></figure>')
    return f'<h2>Renders</h2><div class="videos">{"".join(figures)}</div>'


def table(run: RunFolder) -> str:
    """All views with their numbers; sorted by the script."""
    if not run.views:
        return ""
    has_lpips = any(view.get("lpips") is not None for view in run.views)
    names = ["view", "PSNR", "SSIM", "FLIP", *(["LPIPS"] if has_lpips else []), "ms"]
    heads = "".join(f'<th scope="col"><button>{name}</button></th>' for name in names)
    rows = "".join(_row(place, view, has_lpips) for place, view in enumerate(run.views))
    tall = " tall" if len(run.views) > 14 else ""
    return (
        f'<h2>All views</h2><div class="panel scroll{tall}"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def facts(run: RunFolder) -> str:
    """Protocol, machine and settings."""
    parts = [part.strip() for part in str(run.metrics.get("protocol", "")).split(";") if part.strip()]
    if run.metrics.get("lpips") is None and run.metrics.get("lpips_note"):
        parts.append(f"LPIPS {run.metrics['lpips_note']}")
    parts += [f"left out, its mask is empty: {name}" for name in run.metrics.get("skipped", [])]
    protocol = "".join(f"<li>{escape(part)}</li>" for part in parts)
    panels = []
    if protocol:
        panels.append(f'<div class="panel"><h3>How it was measured</h3><ul class="protocol">{protocol}</ul></div>')
    machine = run.metrics.get("environment")
    if isinstance(machine, dict) and machine:
        panels.append(f'<div class="panel"><h3>Measured by and on</h3>{_facts_table(machine)}</div>')
    settings = flatten(run.settings)
    below = ""
    if settings:
        summary = f"<summary>Settings of the fit ({len(settings)})</summary>"
        below = f'<h2>Settings</h2><details class="panel">{summary}{_facts_table(settings)}</details>'
    heading = "<h2>Protocol</h2>" if panels else ""
    return f'{heading}<div class="two">{"".join(panels)}</div>{below}'


def readout(view: dict[str, Any]) -> str:
    """The numbers of one view in a line."""
    words = [("PSNR", f"{_fixed(view.get('psnr'), 2)} dB"), ("SSIM", _fixed(view.get("ssim"), 4))]
    words.append(("FLIP", _fixed(view.get("flip"), 4)))
    if view.get("lpips") is not None:
        words.append(("LPIPS", _fixed(view["lpips"], 4)))
    return "".join(f"<div><span>{name}</span> {escape(str(value))}</div>" for name, value in words)


def middle_view(run: RunFolder, pictures: dict[int, dict[str, str]]) -> int:
    """The view of median PSNR: neither flatters nor frightens."""
    order = sorted(pictures, key=lambda place: _value(run.views[place], "psnr"))
    return order[len(order) // 2] if order else -1


def _card(label: str, value: str | None, unit: str, is_main: bool = False) -> str:
    if value is None:
        return ""
    small = f" <small>{escape(unit)}</small>" if unit else ""
    kind = "card main" if is_main else "card"
    return f'<div class="{kind}"><b>{escape(value)}{small}</b><span>{escape(label)}</span></div>'


def _trio(run: RunFolder, place: int, kind: str) -> str:
    view = run.views[place]
    images = "".join(f'<img data-view="{place}" data-kind="{k}" alt="{k}">' for k in ("truth", "render", "error"))
    psnr = _fixed(view.get("psnr"), 2)
    return (
        f'<figure class="panel {kind}"><button class="trio" data-open="{place}" aria-label="open this view">{images}'
        f"</button><figcaption><b>{psnr} dB</b> {escape(_name(run, place))}</figcaption></figure>"
    )


def _row(place: int, view: dict[str, Any], has_lpips: bool) -> str:
    name = str(view.get("name", place))
    cells = [f'<td data-value="{escape(name)}">{escape(name)}</td>']
    columns = [("psnr", 2, 1.0), ("ssim", 4, 1.0), ("flip", 4, 1.0)]
    columns += [("lpips", 4, 1.0)] if has_lpips else []
    for key, digits, factor in [*columns, ("seconds", 1, 1000.0)]:
        value = _value(view, key) * factor
        cells.append(f'<td data-value="{value:.6g}">{_fixed(value, digits) or "&ndash;"}</td>')
    return f'<tr data-view="{place}">{"".join(cells)}</tr>'


def _facts_table(values: dict[str, Any]) -> str:
    rows = [f"<tr><td>{escape(name)}</td><td>{escape(_setting(value))}</td></tr>" for name, value in values.items()]
    return f'<table class="facts"><tbody>{"".join(rows)}</tbody></table>'


def _setting(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_setting(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _name(run: RunFolder, place: int) -> str:
    return str(run.views[place].get("name", place))


def _value(view: dict[str, Any], key: str) -> float:
    value = view.get(key)
    return float(value) if isinstance(value, int | float) else math.nan


def _fixed(value: Any, digits: int) -> str | None:
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return f"{value:.{digits}f}" if is_number else None


def _spans_a_decade(run: RunFolder) -> bool:
    losses = [point.loss for point in run.log if point.loss > 0]
    return bool(losses) and max(losses) > 10 * min(losses)
