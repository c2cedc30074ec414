"""Sections of the report on what was made of the scene: meshes that can be turned, and files of other formats."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Any

from scene3d.report.facts import size_text
from scene3d.report.run_folder import MeshProduct, RunFolder, SceneFile

MAX_PARTS = 6
N_COLORS = 7


def picture_uris(run: RunFolder) -> dict[Path, str]:
    """The pictures of the meshes as data URIs."""
    paths = [path for product in run.meshes for path in product.pictures()]
    return {path: f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}" for path in paths}


def meshes(run: RunFolder, uris: dict[Path, str]) -> str:
    """A turntable and the facts of every mesh, and the mesh beside the scene."""
    if not run.meshes:
        return ""
    panels = [_mesh(product, uris) for product in run.meshes]
    return f'<h2>Mesh</h2><div class="two">{"".join(panels)}</div>'


def files(run: RunFolder) -> str:
    """Sizes of the scene in other formats, and what their bytes go to."""
    if not run.files:
        return ""
    rows = [_file_row(file, run.scene_bytes) for file in run.files]
    heads = "".join(f"<th>{name}</th>" for name in ("file", "size", "of the fit", "each"))
    table = f'<table class="plain"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    bars = "".join(_parts(file) for file in run.files if file.parts)
    return f'<h2>Small files</h2><div class="stack"><div class="panel scroll">{table}</div>{bars}</div>'


def _mesh(product: MeshProduct, uris: dict[Path, str]) -> str:
    facts = product.facts
    lines = [
        ("triangles", _count(facts.get("n_faces"))),
        ("vertices", _count(facts.get("n_vertices"))),
        ("texture", _texture(facts)),
        ("open edges", _count(facts.get("n_open_edges"))),
        ("file", size_text(float(facts.get("size_bytes") or 0))),
    ]
    rows = "".join(f"<tr><td>{name}</td><td>{escape(value)}</td></tr>" for name, value in lines)
    table = f'<table class="facts"><tbody>{rows}</tbody></table>'
    if product.preview is None:
        return f'<div class="panel"><h3>{escape(product.name)}</h3>{table}</div>'
    uri, pair = uris[product.preview], ""
    if product.beside is not None:
        alt = "from the same places: the scene, the mesh, the normals of the mesh"
        pair = (
            f'<figure class="panel wide"><img src="{uris[product.beside]}" alt="{alt}">'
            f"<figcaption>From the same places: the scene, the mesh, the normals of the mesh.</figcaption></figure>"
        )
    columns, views = int(facts.get("preview_columns") or 1), int(facts.get("preview_views") or 1)
    turn = (
        f'<div class="turn" data-columns="{columns}" data-views="{views}" '
        f'style="background-image:url({uri});background-size:{100 * columns}% auto">'
        f'<input type="range" min="0" max="{views}" step="1" value="0" aria-label="turn the mesh"></div>'
    )
    hint = '<p class="hint">Drag to turn.</p>'
    return f'<div class="panel"><h3>{escape(product.name)}</h3>{turn}{hint}</div><div class="panel">{table}</div>{pair}'


def _file_row(file: SceneFile, before: int | None) -> str:
    share = f"{100 * file.size_bytes / before:.1f} %" if before else ""
    each = f"{file.size_bytes / file.n_items:.1f} bytes" if file.n_items else ""
    cells = [escape(file.name), size_text(file.size_bytes), share, each]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _parts(file: SceneFile) -> str:
    total = sum(file.parts.values())
    shown = sorted(file.parts.items(), key=lambda part: -part[1])[:MAX_PARTS]
    rest = total - sum(size for _, size in shown)
    shown += [("other", rest)] if rest > 0 else []
    bar = "".join(
        f'<i class="c{i % N_COLORS}" style="width:{100 * size / max(total, 1):.2f}%" title="{escape(name)}"></i>'
        for i, (name, size) in enumerate(shown)
    )
    legend = "".join(
        f'<span><i class="c{i % N_COLORS}"></i>{escape(name)} {size_text(size)}</span>'
        for i, (name, size) in enumerate(shown)
    )
    return (
        f'<div class="panel"><h3>What the bytes of {escape(file.name)} go to</h3><div class="parts">{bar}</div>'
        f'<div class="legend">{legend}</div></div>'
    )


def _texture(facts: dict[str, Any]) -> str:
    size = facts.get("texture")
    if isinstance(size, list | tuple) and len(size) == 2:
        return f"{size[0]}x{size[1]} texels"
    return "colours at vertices" if facts.get("has_colors") else "none"


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else ""
