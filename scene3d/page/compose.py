"""Put a page together: template, style, viewer, scene and poster in one text that loads nothing.

The viewer is packed by tools/update_web_viewer.py. Its world is y up; the scene is turned into it as a whole, so that
coordinates in the embedded file stay those of the scene.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

import torch
from torch import Tensor

from scene3d import __version__
from scene3d.ops import quaternions
from scene3d.render.first_view import FirstView

# Formats the viewer reads, by the suffix of the embedded file.
EMBEDDED_SUFFIXES = (".sog", ".compressed.ply", ".ply")
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; worker-src blob:; img-src data: blob:; "
    "connect-src data: blob:; style-src 'unsafe-inline'"
)


@dataclass(frozen=True)
class PageContent:
    """What goes into a page.

    Attributes:
        title: Shown in the browser's tab.
        scene: Bytes of a scene file.
        suffix: Its format, one of EMBEDDED_SUFFIXES.
        poster: A square JPEG of the first view, shown until the viewer is ready.
        view: Where the page opens.
        antialiased: As the scene was fitted.
        background: sRGB behind the scene.
    """

    title: str
    scene: bytes
    suffix: str
    poster: bytes
    view: FirstView
    antialiased: bool
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.suffix not in EMBEDDED_SUFFIXES:
            raise ValueError(f"suffix: expected one of {', '.join(EMBEDDED_SUFFIXES)}, got {self.suffix!r}")


def compose(content: PageContent) -> str:
    """The page as text, UTF-8, self-contained."""
    manifest = viewer_manifest()
    parts = {
        "title": escape(content.title),
        "policy": POLICY,
        "made_by": f"scene3d {escape(__version__)}",
        "viewer_name": escape(f"{manifest['package']} {manifest['version']}"),
        "background": "rgb({})".format(", ".join(str(round(255 * c)) for c in content.background)),
        "viewer_css": _text("viewer/viewer.css"),
        "page_css": _text("page.css"),
        "poster": _base64(content.poster),
        "license": escape(_text("viewer/LICENSE.txt")),
        "config": _json(_config(content)),
        "viewer": _base64(_bytes("viewer/viewer.js.gz")),
        "scene": _base64(content.scene),
        "script": _text("page.js"),
    }
    page = _text("page.html")
    # One pass over the template: what is put in is never looked at again, whatever it holds.
    pieces = page.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        filled += [parts[name], rest]
    return "".join(filled)


def viewer_manifest() -> dict[str, Any]:
    """Which viewer is packed, how it was edited, and the digests of its files."""
    manifest: dict[str, Any] = json.loads(_text("viewer/manifest.json"))
    return manifest


def viewer_digests() -> dict[str, str]:
    """SHA-256 of the packed files as they are, by name."""
    return {name: hashlib.sha256(_bytes(f"viewer/{name}")).hexdigest() for name in viewer_manifest()["sha256"]}


def viewer_from_world(up: Tensor) -> Tensor:
    """The rotation that turns `up` to +y and leaves z where it can. [3] -> [3, 3]"""
    axis = torch.eye(3, dtype=up.dtype)[2 if abs(float(up[2])) < 0.9 else 0]
    back = torch.nn.functional.normalize(axis - (axis @ up) * up, dim=0)
    return torch.stack([torch.linalg.cross(up, back), up, back])


def _config(content: PageContent) -> dict[str, Any]:
    rotation = viewer_from_world(content.view.up)
    w, x, y, z = quaternions.from_rotmat(rotation[None])[0].tolist()
    initial = {
        "position": (rotation @ content.view.position).tolist(),
        "target": (rotation @ content.view.target).tolist(),
        "fov": content.view.fov_deg,
    }
    return {
        "file": f"scene{content.suffix}",
        "antialiased": content.antialiased,
        "rotation": [x, y, z, w],
        "settings": _settings(initial, content.background),
    }


def _settings(initial: dict[str, Any], background: tuple[float, float, float]) -> dict[str, Any]:
    """Settings of the viewer, version 2: colours are shown as rendered, in 16 bits until the last step."""
    effects: dict[str, dict[str, Any]] = {
        "sharpness": {"amount": 0},
        "bloom": {"intensity": 0.1, "blurLevel": 2},
        "grading": {"brightness": 1, "contrast": 1, "saturation": 1, "tint": [1, 1, 1]},
        "vignette": {"intensity": 0.5, "inner": 0.3, "outer": 0.75, "curvature": 1},
        "fringing": {"intensity": 0.5},
    }
    return {
        "version": 2,
        "tonemapping": "none",
        "highPrecisionRendering": True,
        "background": {"color": list(background)},
        "postEffectSettings": {name: {"enabled": False, **values} for name, values in effects.items()},
        "animTracks": [],
        "cameras": [{"initial": initial}],
        "annotations": [],
        "startMode": "default",
    }


def _json(data: Any) -> str:
    # "</script>" within a text would end the element.
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(name: str) -> bytes:
    return (resources.files("scene3d.page") / name).read_bytes()


def _text(name: str) -> str:
    return _bytes(name).decode("utf-8")
