"""The report page: complete, self-contained, bounded in size, and safe with hostile names and damaged files."""

from __future__ import annotations

import base64
import itertools
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_capture import tiny_scene

from scene3d.core.errors import CaptureError, FormatError
from scene3d.io.registry import write_scene
from scene3d.report.embed import MAX_VIEWS, pick_views
from scene3d.report.html import build_page
from scene3d.report.plots import Plot, draw, nice_ticks, number
from scene3d.report.run_folder import flatten, read_run
from scene3d.stages.report import Config, run

HOSTILE = "images/<script>alert('1')</script>&\".png"
VOID = {"meta", "img", "input", "line", "polyline", "circle", "br"}


class Page(HTMLParser):
    """Checks that elements nest and collects what a browser would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "poster", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def make_run(folder: Path, n_views: int = 3, names: list[str] | None = None, side: int = 24) -> Path:
    """A run with pictures of noise."""
    rng = np.random.default_rng(0)
    views = []
    for i in range(n_views):
        pictures = {}
        for kind in ("truth", "render", "error"):
            pictures[kind] = f"views/{i}_{kind}.jpg"
            path = folder / "eval" / pictures[kind]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(path)
        name = names[i] if names else f"images/{i:04d}.jpg"
        views.append({"index": i, "name": name, "psnr": 20.0 + i, "ssim": 0.8, "flip": 0.1, "lpips": None})
        views[-1] |= {"seconds": 0.01, "pictures": pictures}
    metrics = {"psnr": 21.5, "ssim": 0.8, "flip": 0.1, "lpips": None, "lpips_note": "not available: no weights"}
    metrics |= {"n_gaussians": 12345, "protocol": "8-bit; 3 test views", "views": views, "seconds_per_frame": 0.01}
    (folder / "eval" / "metrics.json").write_text(json.dumps(metrics))
    (folder / "fit").mkdir(exist_ok=True)
    lines = [{"step": s, "seconds": s / 50, "loss": 1 / s, "n_gaussians": 10 * s, "psnr": None} for s in (50, 100, 150)]
    lines[1]["psnr"] = 19.5
    (folder / "fit" / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "fit" / "config.json").write_text(json.dumps({"max_steps": 150, "strategy": {"name": "mcmc"}}))
    return folder


def test_page_parses_and_names_every_view_and_number(tmp_path: Path) -> None:
    page = Page(build_page(read_run(make_run(tmp_path))))
    assert page.open == []
    text = " ".join(page.texts)
    for words in ("images/0000.jpg", "images/0002.jpg", "21.50", "12,345", "3 test views", "strategy.name", "mcmc"):
        assert words in text
    assert "LPIPS not available: no weights" in text


def test_page_loads_nothing_from_outside(tmp_path: Path) -> None:
    text = build_page(read_run(make_run(tmp_path)))
    assert all(value == "" or value.startswith("data:") for value in Page(text).loads)
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|fetch\(|XMLHttp", text)


def test_page_holds_each_picture_once(tmp_path: Path) -> None:
    text = build_page(read_run(make_run(tmp_path)))
    assert text.count("data:image/jpeg") == 9


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    text = build_page(read_run(make_run(tmp_path, 2, [HOSTILE, "</script><b>x"])))
    assert "<script>alert" not in text
    page = Page(text)
    assert page.open == []
    assert any(HOSTILE in data for data in page.texts)


@pytest.mark.parametrize("max_bytes", [340_000, 600_000])
def test_page_keeps_to_its_size(tmp_path: Path, max_bytes: int) -> None:
    run_folder = read_run(make_run(tmp_path, 6, side=240))
    assert len(build_page(run_folder)) > 700_000
    assert len(build_page(run_folder, max_bytes)) < max_bytes


def test_many_views_keep_worst_and_best_pictures_but_all_rows(tmp_path: Path) -> None:
    text = build_page(read_run(make_run(tmp_path, 40, side=8)))
    assert text.count("data:image/jpeg") == 3 * MAX_VIEWS
    assert len(re.findall(r"<tr data-view=", text)) == 40
    assert f"{MAX_VIEWS} of 40 views are kept" in text


def test_picked_views_include_the_extremes() -> None:
    views = [{"psnr": float((7 * i) % 50)} for i in range(50)]
    picked = pick_views(views)
    values = [views[place]["psnr"] for place in picked]
    assert len(picked) == MAX_VIEWS
    assert {0.0, 1.0, 48.0, 49.0} <= set(values)


def test_run_without_evaluation_still_has_a_page(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "eval" / "metrics.json").unlink()
    text = build_page(read_run(tmp_path))
    assert "Not evaluated yet: run scene3d evaluate" in text
    assert Page(text).open == []


def test_evaluation_without_fit_still_has_a_page(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "fit" / "log.jsonl").unlink()
    assert "No fit/log.jsonl in this run" in build_page(read_run(tmp_path))


def test_missing_pictures_leave_numbers(tmp_path: Path) -> None:
    make_run(tmp_path)
    for path in (tmp_path / "eval" / "views").iterdir():
        path.unlink()
    text = build_page(read_run(tmp_path))
    assert "data:image/jpeg" not in text
    assert "images/0001.jpg" in text


def test_videos_are_embedded_as_long_as_they_fit(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "renders").mkdir()
    (tmp_path / "renders" / "small.mp4").write_bytes(b"x" * 1000)
    (tmp_path / "renders" / "large.mp4").write_bytes(b"x" * 3_000_000)
    text = build_page(read_run(tmp_path))
    assert text.count("data:video/mp4") == 1
    assert "small" in text


def test_meshes_can_be_turned_and_their_facts_are_told(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    Image.new("RGB", (60, 40), (10, 200, 30)).save(run / "mesh_turntable.jpg")
    Image.new("RGB", (30, 40), (10, 100, 30)).save(run / "mesh_beside.jpg")
    facts = {"file": "<b>.glb", "n_faces": 1234, "texture": [64, 32], "preview_columns": 6, "preview_views": 24}
    (run / "mesh_facts.json").write_text(json.dumps(facts))
    page = build_page(read_run(run))
    assert "&lt;b&gt;.glb" in page
    assert "1,234" in page
    assert "64x32 texels" in page
    assert 'data-columns="6" data-views="24"' in page
    for name in ("mesh_turntable.jpg", "mesh_beside.jpg"):
        assert page.count(base64.b64encode((run / name).read_bytes()).decode()) == 1


def test_small_files_and_what_their_bytes_go_to_are_told(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for name in ("scene.s3d", "scene.splat"):
        write_scene(tiny_scene(), run / name)
    page = build_page(read_run(run))
    assert "What the bytes of scene.s3d go to" in page
    assert "What the bytes of scene.splat go to" not in page
    assert "log_scales" in page


def test_torn_and_repeated_log_lines_are_mended(tmp_path: Path) -> None:
    make_run(tmp_path)
    log = tmp_path / "fit" / "log.jsonl"
    log.write_text(log.read_text() + '\n{"step": 100, "seconds": 9, "loss": null, "n_gaussians": 7}\n{"step": 2')
    points = read_run(tmp_path).log
    assert [point.step for point in points] == [50, 100, 150]
    assert points[1].n_gaussians == 7
    assert math.isnan(points[1].loss)


def test_damaged_metrics_are_one_clear_message(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "eval" / "metrics.json").write_text("{")
    with pytest.raises(FormatError, match=r"metrics\.json: is not JSON"):
        read_run(tmp_path)


def test_damaged_picture_is_named(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "eval" / "views" / "0_truth.jpg").write_bytes(b"no picture")
    with pytest.raises(FormatError, match=r"0_truth\.jpg: is no picture"):
        build_page(read_run(tmp_path))


@pytest.mark.parametrize(("name", "words"), [("none", "no such folder"), (".", "holds no run")])
def test_folder_without_a_run_is_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(CaptureError, match=words):
        read_run(tmp_path / name)


def test_stage_writes_the_page_beside_the_run(tmp_path: Path, capsys) -> None:
    run(Config(make_run(tmp_path)))
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "report of" in capsys.readouterr().out


def test_settings_flatten_to_dotted_names() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": {}, "e": [2]}) == {"a.b.c": 1, "d": {}, "e": [2]}


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.03, 0.0301), (-7, 12), (1e4, 3e6), (26.1, 26.9)])
def test_ticks_are_round_and_cover_the_data(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    steps = {round(b - a, 9) for a, b in itertools.pairwise(ticks)}
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= high - 1e-9
    assert len(ticks) <= 8
    assert len(steps) == 1
    assert f"{steps.pop():.0e}"[0] in "125"


@pytest.mark.parametrize("is_log", [False, True])
@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [0.001, 0.5, 90.0], [math.nan, 3.0, math.inf, 4.0]])
def test_curves_stay_inside_their_plot(values: list[float], is_log: bool) -> None:
    svg = draw(Plot("t", "step", "y", tuple(enumerate(values)), has_markers=True, is_log=is_log))
    places = re.search(r'points="([^"]+)"', svg)
    assert places is not None
    for pair in places.group(1).split():
        x, y = map(float, pair.split(","))
        assert 0 <= x <= 420
        assert 0 <= y <= 260


def test_plot_without_data_says_so() -> None:
    assert "no data" in draw(Plot("Loss", "step", "y", ((0, math.nan),)))


@pytest.mark.parametrize(("value", "text"), [(0.05, "0.05"), (26.9, "26.9"), (12000, "12k"), (1.5e6, "1.5M")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text
