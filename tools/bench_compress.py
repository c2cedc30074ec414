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
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import tyro

from scene3d.compress.judge import Judge, judge_by_cameras, judge_by_capture, judge_by_synthesis
from scene3d.core.cameras import Cameras
from scene3d.core.errors import Scene3dError
from scene3d.core.scene import Scene
from scene3d.io.atomic import write_text
from scene3d.io.camera_path import cameras_json, read_cameras
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.registry import WRITERS, read_scene, write_scene
from scene3d.render.paths import Shot, orbit
from scene3d.render.scene_points import scene_points
from scene3d.render.surround import from_points
from scene3d.report.rate_distortion import Row, html_page, plot, table
from scene3d.stages.compress_report import row_of

# Loose files are the same bytes as .sog, and .spz in glTF those of .spz.
ORBIT_DEG = (10.0, 45.0)
SKIPPED = ("meta.json", ".s3d", ".spz.glb")


@dataclass(frozen=True)
class Config:
    """What to compare."""

    scene: tyro.conf.Positional[Path]
    """Scene file."""
    capture: Path | None = None
    """Its photos and poses: adds the drop against held-out photos."""
    cameras: Path | None = None
    """A cameras.json instead. Default: views made up from the splats."""
    orbit: int = 0
    """So many views of 800x600 from two circles around the scene instead, as objects are photographed and shown."""
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
    """Folder for table.md, rows.json, plot.png and report.html."""


def main(config: Config) -> None:
    """Run the comparison."""
    scene = read_scene(config.scene)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        if config.orbit:
            path = Path(folder) / "cameras.json"
            path.write_text(cameras_json(orbit_of(scene, config.orbit)), encoding="utf-8")
            config = replace(config, cameras=path)
        judge = _judge(config, scene)
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
        sentences = [line.strip() for line in (__doc__ or "").split("\n\n")[1:]]
        write_text(config.out / "report.html", html_page(config.scene.name, sentences, rows, len(scene.splats())))


def orbit_of(scene: Scene, n_views: int) -> Cameras:
    """Views from circles at 10 and 45 degrees above the middle of a scene."""
    surround = from_points(scene_points(scene))
    circles = [orbit(surround, Shot(800, 600, (n_views + 1) // 2), elevation_deg) for elevation_deg in ORBIT_DEG]
    parts = (torch.cat([getattr(circle, name) for circle in circles]) for name in ("viewmats", "Ks", "sizes"))
    return Cameras(*parts)


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
    row = row_of(name, kind, path, judge, told["encode"])
    return replace(row, decode_seconds=told["decode"], peak_mb=told["peak_mb"])


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


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        main(tyro.cli(Config, description=__doc__))
