"""The page of `scene3d compress --report`: what was reached, beside the same scene in the standard formats."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from scene3d.compress.judge import Judge
from scene3d.core.scene import Scene
from scene3d.io.atomic import write_text
from scene3d.io.registry import read_scene, scene_size, write_scene
from scene3d.ops.image import ssim
from scene3d.report.rate_distortion import Row, html_page

# .splat has no harmonics, glTF and USD are as large as .ply.
COMPARED = (".ply", ".compressed.ply", ".spz", ".sog")


def write_report(path: Path, scene: Scene, out: Path, judge: Judge, seconds: float, told: str) -> None:
    """Write the page.

    Args:
        path: Of the page.
        scene: Uncompressed, finite.
        out: The .s3d file that was written.
        judge: Compares renders.
        seconds: That writing `out` took.
        told: What was printed: attributes, verdict, sizes.

    Raises:
        OutputError: the page cannot be written.
    """
    rows = [row_of(out.name, "method", out, judge, seconds)]
    with tempfile.TemporaryDirectory() as folder:
        for suffix in COMPARED:
            copy = Path(folder) / f"scene{suffix}"
            start = time.perf_counter()
            write_scene(scene, copy)
            rows.append(row_of(suffix, "format", copy, judge, time.perf_counter() - start))
    views = f"{len(judge.cameras)} views that decided nothing"
    sentences = [
        f"PSNR and SSIM are those of renders against the uncompressed scene, over {views}.",
        "Writing the .s3d file includes its search, with all rendering.",
    ]
    write_text(path, html_page(f"{out.name} and the standard formats", sentences, rows, len(scene.splats()), told))


def row_of(name: str, kind: str, path: Path, judge: Judge, encode_seconds: float) -> Row:
    """Read a file back and judge it."""
    start = time.perf_counter()
    gaussians = read_scene(path).splats()
    seconds = time.perf_counter() - start
    verdict = judge.verdict(gaussians)
    similar = [float(ssim(a, b)) for a, b in zip(judge.render(gaussians), judge.images, strict=True)]
    mean = sum(similar) / len(similar)
    fidelity, drop = verdict.fidelity_db, verdict.drop_db
    return Row(name, kind, scene_size(path), len(gaussians), fidelity, mean, drop, encode_seconds, seconds)
