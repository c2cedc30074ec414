"""Compare formats and methods on one scene: size, fidelity, time and memory; a table, JSON and a rate-distortion plot.

Fidelity is PSNR and SSIM of renders against those of the uncompressed scene, over views that decided nothing; with
--capture also the drop of PSNR against its held-out photos. Every row is encoded and decoded in a process of its own,
so that its peak memory is its own; seconds are wall time without starting Python, for methods of `scene3d compress`
with all of their search, rendering included.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from PIL import Image, ImageDraw

from scene3d.compress.judge import Judge, judge_by_cameras, judge_by_capture, judge_by_synthesis
from scene3d.core.errors import Scene3dError
from scene3d.core.scene import Scene
from scene3d.io.camera_path import read_cameras
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.registry import WRITERS, read_scene, scene_size, write_scene
from scene3d.ops.image import ssim

# Loose files are the same bytes as .sog, and .spz in glTF those of .spz.
SKIPPED = ("meta.json", ".s3d", ".spz.glb")
PLOT_WIDTH, PLOT_HEIGHT, MARGIN = 900, 560, 70
COLORS = {"format": (200, 80, 40), "method": (40, 90, 200)}


@dataclass(frozen=True)
class Config:
    """What to compare."""

    scene: tyro.conf.Positional[Path]
    """Scene file."""
    capture: Path | None = None
    """Its photos and poses: adds the drop against held-out photos."""
    cameras: Path | None = None
    """A cameras.json instead. Default: views made up from the splats."""
    data_factor: int | None = None
    """Reduce the photos by this whole number."""
    formats: tuple[str, ...] = ()
    """Suffixes of formats to write. Default: all."""
    scene_psnr: float = 30.0
    """PSNR of the scene against photos in dB, without a capture."""
    drops: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.5)
    """Drops in dB at which to run our own method."""
    methods: tuple[str, ...] = ("codebook", "grid")
    """Other methods of `scene3d compress`, at their own defaults."""
    tune_steps: int = 0
    """Also run our own method with so many steps of tuning, at 0.1 dB."""
    out: Path | None = None
    """Folder for table.md, rows.json and plot.png."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: Format or method.
        kind: "format" or "method".
        size_bytes: Of the file.
        n_splats: That it holds.
        psnr: Against the uncompressed render, dB, of the mean square error.
        ssim: Against the uncompressed render, mean of the views.
        drop_db: Against photos; None without.
        encode_seconds: Of writing; for methods with a search all of it.
        decode_seconds: Of reading.
        peak_mb: Memory of the process that wrote it, Python and torch included, megabytes.
    """

    name: str
    kind: str
    size_bytes: int
    n_splats: int
    psnr: float
    ssim: float
    drop_db: float | None
    encode_seconds: float
    decode_seconds: float
    peak_mb: float


def main(config: Config) -> None:
    """Run the comparison."""
    scene = read_scene(config.scene)
    judge = _judge(config, scene)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, kind, job in _jobs(config):
            row = _row(config, judge, Path(folder), name, kind, job)
            rows += [row] if row else []
            print(
                f"{name}: {row.size_bytes:,} bytes, {row.psnr:.2f} dB" if row else f"{name}: left out", file=sys.stderr
            )
    text = table(rows, len(scene.splats()), config.scene.stat().st_size)
    print(text)
    if config.out is not None:
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / "table.md").write_text(text + "\n", encoding="utf-8")
        data = [{**asdict(row), "psnr": row.psnr if math.isfinite(row.psnr) else None} for row in rows]
        (config.out / "rows.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
        plot(rows, config.scene.name).save(config.out / "plot.png")


def _judge(config: Config, scene: Scene) -> Judge:
    if config.capture is not None:
        return judge_by_capture(scene, read_capture(config.capture, CaptureOptions(data_factor=config.data_factor)))[0]
    if config.cameras is not None:
        return judge_by_cameras(scene, read_cameras(config.cameras))[0]
    return judge_by_synthesis(scene)[0]


def _jobs(config: Config) -> list[tuple[str, str, list[str]]]:
    """Name, kind and what the child is told: a suffix, or options of `scene3d compress`."""
    jobs = [(suffix, "format", [suffix]) for suffix in config.formats or WRITERS if suffix not in SKIPPED]
    given = [f"--scene-psnr={config.scene_psnr}"]
    given += [f"--capture={config.capture}"] if config.capture else []
    given += [f"--cameras={config.cameras}"] if config.cameras else []
    given += [f"--data-factor={config.data_factor}"] if config.data_factor else []
    for drop in config.drops:
        jobs.append((f".s3d {drop:g} dB", "method", [".s3d", f"--max-drop-db={drop}", *given]))
    if config.tune_steps:
        tuned = [".s3d", "--max-drop-db=0.1", f"--tune-steps={config.tune_steps}", *given]
        jobs.append((".s3d 0.1 dB, tuned", "method", tuned))
    jobs.append((".s3d lossless", "method", [".s3d", "--lossless", *given]))
    jobs += [(f".s3d {name}", "method", [".s3d", f"--method={name}", *given]) for name in config.methods]
    return jobs


def _row(config: Config, judge: Judge, folder: Path, name: str, kind: str, job: list[str]) -> Row | None:
    path = folder / f"scene{job[0]}"
    command = [sys.executable, __file__, "--child", str(config.scene), str(path), *job]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        print(f"{name}: {child.stderr.strip().splitlines()[-1:] or 'failed'}", file=sys.stderr)
        return None
    told = json.loads(child.stdout.splitlines()[-1])
    gaussians = read_scene(path).splats()
    verdict = judge.verdict(gaussians)
    pairs = zip(judge.render(gaussians), judge.images, strict=True)
    similar = [float(ssim(a, b)) for a, b in pairs]
    return Row(
        name,
        kind,
        scene_size(path),
        len(gaussians),
        verdict.fidelity_db,
        sum(similar) / len(similar),
        verdict.drop_db,
        told["encode"],
        told["decode"],
        told["peak_mb"],
    )


def child(arguments: Sequence[str]) -> None:
    """Encode and decode once; print seconds and memory as JSON."""
    source, path, suffix, *options = arguments
    try:
        if suffix == ".s3d":
            from scene3d.stages import compress

            config = tyro.cli(compress.Config, args=[source, path, *options])
            start = time.perf_counter()
            compress.run(config)
        else:
            scene = read_scene(Path(source))
            start = time.perf_counter()
            write_scene(scene, Path(path))
    except (Scene3dError, ValueError) as error:
        sys.exit(str(error))
    encode, peak = time.perf_counter() - start, _peak_mb()
    start = time.perf_counter()
    read_scene(Path(path))
    decode = time.perf_counter() - start
    print(json.dumps({"encode": encode, "decode": decode, "peak_mb": peak}))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def table(rows: list[Row], n_splats: int, source_bytes: int) -> str:
    """The rows as Markdown, largest first."""
    has_drop = any(row.drop_db is not None for row in rows)
    head = ["", "bytes", "B/splat", "PSNR", "SSIM", *(["drop"] if has_drop else []), "encode", "decode", "memory"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for row in sorted(rows, key=lambda r: -r.size_bytes):
        drop = [f"{row.drop_db:.3f} dB" if row.drop_db is not None else ""] if has_drop else []
        fidelity = f"{row.psnr:.1f} dB" if math.isfinite(row.psnr) else "exact"
        cells = [
            row.name,
            f"{row.size_bytes:,}",
            f"{row.size_bytes / n_splats:.1f}",
            fidelity,
            f"{row.ssim:.4f}",
            *drop,
        ]
        cells += [f"{row.encode_seconds:.2f} s", f"{row.decode_seconds:.2f} s", f"{row.peak_mb:.0f} MB"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"{n_splats:,} splats, source {source_bytes:,} bytes"])


def plot(rows: list[Row], title: str) -> Image.Image:
    """PSNR over bytes, the latter on a logarithmic scale; our own method is joined to a curve."""
    shown = [row for row in rows if math.isfinite(row.psnr) and row.psnr < 90]
    image = Image.new("RGB", (PLOT_WIDTH, PLOT_HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    if not shown:
        return image
    sizes, psnrs = [math.log10(row.size_bytes) for row in shown], [row.psnr for row in shown]
    x_low, x_high = min(sizes) - 0.1, max(sizes) + 0.25
    y_low, y_high = math.floor(min(psnrs) / 5) * 5, math.ceil(max(psnrs) / 5) * 5 + 1

    def place(size: float, psnr: float) -> tuple[float, float]:
        x = MARGIN + (size - x_low) / (x_high - x_low) * (PLOT_WIDTH - 2 * MARGIN)
        return x, PLOT_HEIGHT - MARGIN - (psnr - y_low) / (y_high - y_low) * (PLOT_HEIGHT - 2 * MARGIN)

    for psnr in range(y_low, y_high + 1, 5):
        draw.line([place(x_low, psnr), place(x_high, psnr)], fill=(225, 225, 225))
        draw.text((MARGIN - 40, place(x_low, psnr)[1] - 6), f"{psnr} dB", fill="black")
    for exponent in range(3, 10):
        for digit in (1, 2, 5):
            size = math.log10(digit * 10**exponent)
            if x_low <= size <= x_high:
                draw.line([place(size, y_low), place(size, y_high)], fill=(225, 225, 225))
                draw.text(
                    (place(size, y_low)[0] - 18, PLOT_HEIGHT - MARGIN + 8),
                    f"{digit * 10**exponent // 1000} kB",
                    fill="black",
                )
    curve = sorted(
        (math.log10(r.size_bytes), r.psnr) for r in shown if r.name.startswith(".s3d ") and r.name.endswith(" dB")
    )
    if len(curve) > 1:
        draw.line([place(*point) for point in curve], fill=COLORS["method"], width=2)
    for row in shown:
        x, y = place(math.log10(row.size_bytes), row.psnr)
        draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=COLORS[row.kind])
        draw.text((x + 8, y - 6), row.name, fill=COLORS[row.kind])
    draw.text((MARGIN, 20), f"{title}: PSNR against the uncompressed render over the size of the file", fill="black")
    return image


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        main(tyro.cli(Config, description=__doc__))
