"""Fetch the web viewer from npm at its pinned version, make it draw as we do, and pack it into scene3d/page/viewer.

Needs Node with npm, for developers only: pages are built from the packed files. The viewer is PlayCanvas'
supersplat-viewer (MIT). EDITS say how its shaders differ from our rasterizer, whose pictures the page must show.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import subprocess
import tarfile
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import tyro

PACKAGE = "@playcanvas/supersplat-viewer"
VERSION = "1.36.2"
INTEGRITY = "sha512-L7w0BlagAonRHQg5qhaDyBB8zrRtiU9QgglNU3kUgsqHpokCAtuf9j4P0kxsUaQn61FZ1qJGkRKsOCbrLCDR0w=="
ESBUILD = "0.28.2"
REGISTRY = "https://registry.npmjs.org"
TARGET = Path(__file__).resolve().parents[1] / "scene3d" / "page" / "viewer"

# The WebGL shaders count in half pixels, so that variances are four times ours. Each text occurs exactly once.
EDITS: tuple[tuple[str, str, str], ...] = (
    (
        "the antialiasing dilation is 0.3 square pixels, not 0.075",
        "float detBlur = (cov[0][0] + 0.3) * (cov[1][1] + 0.3) - cov[0][1] * cov[0][1];",
        "float detBlur = (cov[0][0] + 1.2) * (cov[1][1] + 1.2) - cov[0][1] * cov[0][1];",
    ),
    (
        "the dilation along x is 0.3 square pixels, not 0.075",
        "\tfloat diagonal1 = cov[0][0] + 0.3;",
        "\tfloat diagonal1 = cov[0][0] + 1.2;",
    ),
    (
        "the dilation along y is 0.3 square pixels, not 0.075",
        "\tfloat diagonal2 = cov[1][1] + 0.3;",
        "\tfloat diagonal2 = cov[1][1] + 1.2;",
    ),
    (
        "the Jacobian is held at the frustum widened by 0.3 of half the image: splats beside it do not smear into it",
        "\t\tvec2 J2 = -J1 / vp.z * vp.xy;",
        "\t\tvec2 edge = vec2(1.0, viewport_size.y / viewport_size.x) * (1.3 / center.projMat00);\n"
        "\t\tvec2 J2 = -J1 * clamp(vp.xy / vp.z, -edge, edge);",
    ),
    (
        "splats are not held to the size of the window: a sky is wider",
        "\tfloat vmin = min(1024.0, min(viewport_size.x, viewport_size.y));",
        "\tfloat vmin = 1e6;",
    ),
    (
        "splats reach to where alpha is 1/255, not to 2.83 standard deviations",
        "float clip = min(1.0, sqrt(max(0.0, log(alpha / alphaClipValue))) * 0.5);",
        "float clip = sqrt(max(0.0, log(alpha / alphaClipValue))) * 0.5;",
    ),
    (
        "pixels are not dropped before that",
        "\tmediump float A = dot(gaussianUV, gaussianUV);\n\tif (A > 1.0) {",
        "\tmediump float A = dot(gaussianUV, gaussianUV);\n\tif (A > 1.5) {",
    ),
    (
        "the profile is a Gaussian, not one lowered so that it ends at zero",
        "\treturn (exp(x * -4.0) - EXP4) * INV_EXP4;",
        "\treturn exp(x * -4.0);",
    ),
    (
        "splats are sorted into 2^20 steps of depth: coarse steps mix up neighbours on a wall",
        "const numVertices = centersData2.totalActiveSplats;\n"
        "\t\tconst compareBits = Math.max(10, Math.min(20, Math.round(Math.log2(numVertices / 4))));",
        "const numVertices = centersData2.totalActiveSplats;\n\t\tconst compareBits = 20;",
    ),
)


@dataclass(frozen=True)
class Config:
    """Where to put the packed viewer."""

    out: Path = TARGET
    """Folder of the package's viewer files."""


def run(config: Config) -> None:
    """Fetch, edit, minify, pack, and write down what came of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = _fetch(folder)
        script = folder / "viewer.js"
        script.write_text(_edited(files["public/index.js"].decode("utf-8")), encoding="utf-8")
        minified = _minify(script)
    outputs = {
        "viewer.js.gz": gzip.compress(minified, 9, mtime=0),
        "viewer.css": files["public/index.css"],
        "LICENSE.txt": files["LICENSE"],
    }
    config.out.mkdir(parents=True, exist_ok=True)
    for file, data in outputs.items():
        (config.out / file).write_bytes(data)
    manifest = {
        "package": PACKAGE,
        "version": VERSION,
        "integrity": INTEGRITY,
        "license": "MIT",
        "minified_with": f"esbuild {ESBUILD}",
        "edits": [why for why, _, _ in EDITS],
        "sha256": {file: hashlib.sha256(data).hexdigest() for file, data in outputs.items()},
    }
    (config.out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    print(f"{PACKAGE} {VERSION}: {sum(map(len, outputs.values())):,} bytes -> {config.out}")


def _fetch(folder: Path) -> dict[str, bytes]:
    """Files of the published package by path, once its digest is as pinned."""
    url = f"{REGISTRY}/{PACKAGE}/-/{PACKAGE.split('/')[-1]}-{VERSION}.tgz"
    with urllib.request.urlopen(url) as response:
        data = response.read()
    found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if found != INTEGRITY:
        raise SystemExit(f"{url}: expected {INTEGRITY}, got {found}")
    archive = folder / "package.tgz"
    archive.write_bytes(data)
    wanted = ("LICENSE", "public/index.js", "public/index.css")
    with tarfile.open(archive) as tar:
        members = {path: tar.extractfile(f"package/{path}") for path in wanted}
        return {path: member.read() for path, member in members.items() if member is not None}


def _edited(text: str) -> str:
    for why, before, after in EDITS:
        if text.count(before) != 1:
            raise SystemExit(f"{why}: expected one place in {VERSION}, got {text.count(before)}. Revise EDITS.")
        text = text.replace(before, after)
    return text.replace("//# sourceMappingURL=index.js.map", "")


def _minify(script: Path) -> bytes:
    out = script.with_suffix(".min.js")
    flags = ["--minify", "--legal-comments=inline", "--format=esm", "--log-level=error", f"--outfile={out}"]
    subprocess.run(["npx", "--yes", f"esbuild@{ESBUILD}", str(script), *flags], check=True, cwd=script.parent)
    return out.read_bytes()


if __name__ == "__main__":
    run(tyro.cli(Config, description=__doc__))
