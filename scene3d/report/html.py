"""The report page of a run: one HTML file that holds its pictures, styles and script, and loads nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any

from scene3d import __version__
from scene3d.report import products, sections
from scene3d.report.embed import embed_pictures, embed_videos
from scene3d.report.run_folder import RunFolder

# A page that mail and chat programs still pass on.
PAGE_BYTES = 6_000_000
VIDEO_BYTES = 2_500_000
TEXT_BYTES = 300_000


def build_page(run: RunFolder, max_bytes: int = PAGE_BYTES) -> str:
    """Build the page.

    Args:
        run: What the run left behind; missing parts are named in the page.
        max_bytes: Of the whole page, kept by making pictures smaller.

    Raises:
        FormatError: a picture of the run is damaged.
    """
    videos = embed_videos(run, min(VIDEO_BYTES, max_bytes // 2))
    previews = products.picture_uris(run)
    embedded = sum(len(video.uri) for video in videos) + sum(map(len, previews.values()))
    room = max_bytes - TEXT_BYTES - embedded
    pictures = embed_pictures(run, max(room, 0))
    parts = [
        sections.header(run),
        sections.headline(run),
        sections.comparison(run, pictures),
        sections.extremes(run, pictures),
        sections.curves(run),
        sections.videos(videos),
        products.meshes(run, previews),
        products.files(run),
        sections.table(run),
        sections.facts(run),
    ]
    views = f'<script id="views" type="application/json">{_json(_data(run, pictures))}</script>'
    note = "<noscript><p>Pictures and sorting need JavaScript; numbers and curves do not.</p></noscript>"
    script = f"{views}\n<script>{_asset('page.js')}</script>"
    return page(f"{sections.title(run)}: scene3d report", [note, *parts], script)


def page(title: str, parts: Sequence[str], script: str = "") -> str:
    """A whole document in the style of all our pages.

    Args:
        title: Of the browser's tab, plain text.
        parts: HTML, what comes from files escaped; empty ones are left out.
        script: Script elements for the end.
    """
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{_asset('page.css')}</style></head>",
            "<body><main>",
            *(part for part in parts if part),
            f"<footer>Made by scene3d {escape(__version__)}. This file needs no other file and no network.</footer>",
            "</main>",
            f"{script}</body></html>",
            "",
        ]
    )


def _data(run: RunFolder, pictures: dict[int, dict[str, str]]) -> dict[str, Any]:
    views = run.views
    return {
        "pictures": {str(place): kinds for place, kinds in pictures.items()},
        "names": {str(place): str(views[place].get("name", place)) for place in pictures},
        "readouts": {str(place): sections.readout(views[place]) for place in pictures},
        "first": sections.middle_view(run, pictures),
        "labels": list(run.labels),
    }


def _json(data: dict[str, Any]) -> str:
    # "</script>" in a file name would end the element.
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return resources.files("scene3d.report").joinpath(name).read_text(encoding="utf-8")
