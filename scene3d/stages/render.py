"""Render a scene along an orbit, a flight through its cameras, the photos' views or a camera file, to PNG or video."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from PIL import Image

from scene3d.core.cameras import Cameras
from scene3d.core.errors import OutputError, SceneKindError
from scene3d.core.fields import Field
from scene3d.core.progress import Progress
from scene3d.core.scene import Scene
from scene3d.io.atomic import atomic_write
from scene3d.io.camera_path import read_cameras, views_of
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.registry import read_scene
from scene3d.io.shell_files import has_shell, read_shell, why_other_shell, write_shell
from scene3d.io.video import WRITTEN_SUFFIXES, write_video
from scene3d.meshing.shell import MIN_LIGHT, extract_shell
from scene3d.ops.memory_limit import set_memory_limit
from scene3d.render import backends
from scene3d.render.field_bricks import bake
from scene3d.render.first_view import choose
from scene3d.render.frames import FrameSettings, Mode, frames
from scene3d.render.itinerary import Itinerary, PathName, Wish, fit_size, plan
from scene3d.render.memory import check_memory
from scene3d.render.panorama import panoramas
from scene3d.render.scene_points import scene_points
from scene3d.render.shell_gain import ShellGain, measure_shell

PANORAMA_WIDTH = 2048
# Small views within a shell must agree so far with those of the whole scene, dB; shells that cut a little have 32.
CHECKED_SIDE, SHELL_FIDELITY = 96, 28.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What to render, from where, and to which file."""

    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE")]
    """Scene file."""
    out: Path | None = None
    """A .mp4, .webm or .gif, a .png for a single view, or a folder for numbered PNG files. Default: a video in
    renders, beside the folder of the scene; a folder there for dataset views."""
    capture: Path | None = None
    """Folder with the photos and poses of the scene: every path but a plain orbit needs it."""
    cameras: Path | None = None
    """A camera_path.json of nerfstudio or a cameras.json of a splat trainer; replaces --path."""
    path: PathName = "auto"
    """orbit = turntable, ellipse = around along the photos' places, spiral = small circles in front, flight = smoothly
    through the training cameras, train, test, all = the photos' own views. auto = orbit or flight, what suits."""
    only: int | None = None
    """Render only this view of the path, counted from 0; a .png takes one view."""
    lens: Literal["perspective", "panorama"] = "perspective"
    """panorama = all directions in one picture, twice as wide as high, for 360 degree viewers; --width is 2048 then."""
    mode: Mode = "rgb"
    """rgb, depth (near bright, one scale for the whole video), normals or alpha."""
    width: int | None = None
    """Pixels. Default: as the photos, or in proportion to the height."""
    height: int | None = None
    """Pixels. Default: as the photos, or in proportion to the width."""
    fps: float = 30.0
    """Frames a second."""
    seconds: float = 8.0
    """Length of a path."""
    elevation_deg: float | None = None
    """Height of an orbit above the horizon, degrees. Default: as the photos."""
    up: tuple[float, float, float] | None = None
    """World direction that is up. Default: from the photos or the scene, else -y."""
    background: Literal["auto", "black", "white"] = "auto"
    """Behind the scene. auto = white where the photos have alpha, else black."""
    depth_percentiles: tuple[float, float] = (2.0, 98.0)
    """Depths, as percentiles over the whole path, of the brightest and the darkest colour."""
    data_factor: int | None = None
    """Reduce the photos' views by this whole number."""
    test_every: int = 8
    """Every n-th photo by name is a test view."""
    backend: str = "auto"
    """Rasterizer: auto, cpu, cuda, gsplat or reference."""
    shell: Path | None = None
    """Fields only: folder with a shell, two meshes between which alone rays are sampled. Where none lies there it is
    made and left; scene3d shell makes one with other settings. Prints what it saves."""
    any_shell: bool = False
    """Render through a shell that hides what the scene shows, too: by mistake one is of another scene."""
    memory_limit: float | None = None
    """GB of the GPU's memory to take at most, of the host's where there is no GPU. Splats are listed in parts that fit;
    what cannot fit is refused at once. Default: all that is free."""


def run(config: Config) -> None:
    """Render every view and print where it is."""
    set_memory_limit(config.memory_limit)
    scene = read_scene(config.scene)
    if config.shell is not None:
        scene = _in_shell(scene, config)
    options = CaptureOptions(data_factor=config.data_factor, test_every=config.test_every)
    capture = None if config.capture is None else read_capture(config.capture, options)
    wish = Wish(config.path, config.width, config.height, config.seconds, config.fps, config.elevation_deg, config.up)
    if config.cameras is None:
        itinerary = plan(wish, scene_points(scene), capture, scene.info.up)
    else:
        given = fit_size(read_cameras(config.cameras), config.width, config.height)
        itinerary = Itinerary(config.cameras.stem, given)
    itinerary = _chosen(itinerary, config.only)
    if config.lens == "panorama":
        itinerary = _around(itinerary, config)
    if config.shell is not None and not config.any_shell:
        _check_shell(scene.field(), config.shell, itinerary.cameras)
    check_memory(scene, itinerary.cameras, backends.device_for(config.backend).type)
    out = config.out or _default_out(config, itinerary)
    _check_output(out, itinerary.cameras)
    is_white = config.background == "white" or (
        config.background == "auto" and capture is not None and capture.has_alpha
    )
    background = (1.0, 1.0, 1.0) if is_white else (0.0, 0.0, 0.0)
    settings = FrameSettings(config.mode, background, None, config.depth_percentiles, config.backend)
    with Progress(len(itinerary.cameras), "rendering") as progress:
        if config.lens == "panorama":
            up = choose(scene, views_of(config.scene, capture), config.up).up
            found = panoramas(scene, itinerary.cameras, up, itinerary.cameras.width(), settings)
        else:
            found = frames(scene, itinerary.cameras, settings)
        pictures = _counted(found, progress)
        if out.suffix.lower() in WRITTEN_SUFFIXES:
            write_video(out, pictures, config.fps)
        else:
            _write_pngs(out, pictures, itinerary.cameras.names)
    width, height = itinerary.cameras.sizes[0].tolist()
    print(f"{len(itinerary.cameras)} frames of {width}x{height} ({itinerary.path}, {config.mode}) -> {out}")
    if config.shell is not None:
        print(f"shell: {_gain(scene.field(), itinerary.cameras).text()}")


def _in_shell(scene: Scene, config: Config) -> Scene:
    """The scene with its shell, read or made.

    Raises:
        SceneKindError: it is not sampled along rays.
        ValueError: the mode, lens or backend knows no shell.
    """
    if "density" not in scene.capabilities:
        remedy = "Splats are drawn, not sampled along rays: render without --shell, or scene3d convert --to vm first."
        raise SceneKindError("a radiance field", scene.size_text(), remedy)
    if config.mode == "normals" or config.lens == "panorama" or config.backend not in ("auto", "cpu"):
        words = f"{config.mode}, {config.lens}, {config.backend}"
        raise ValueError(f"shell: expected --mode rgb, depth or alpha, --lens perspective, --backend cpu; got {words}")
    assert config.shell is not None
    why = why_other_shell(config.shell, config.scene, MIN_LIGHT) if has_shell(config.shell) else None
    if why is not None:
        logger.warning("the shell in %s was made otherwise (%s)", config.shell, why)
    if not has_shell(config.shell):
        logger.info("making the shell %s", config.shell)
        write_shell(extract_shell(scene), config.shell, config.scene, MIN_LIGHT)
    return replace(scene, payload=replace(scene.field(), shell=read_shell(config.shell)))


def _check_shell(field: Field, folder: Path, cameras: Cameras) -> None:
    """Whether the scene looks the same within the shell, in small views.

    Raises:
        ValueError: it does not.
    """
    assert field.shell is not None
    shrink = (CHECKED_SIDE / cameras.sizes.amax(dim=1, keepdim=True).double()).clamp_max(1.0)
    small = cameras.resized((cameras.sizes * shrink).round().long().clamp_min(1))
    fidelity = measure_shell(field, field.shell, small, rounds=1).fidelity
    if fidelity < SHELL_FIDELITY:
        seen = f"the scene within it looks like the whole to {fidelity:.1f} dB only"
        remedy = "name a new folder and one is made, or take this all the same with --any-shell"
        raise ValueError(f"shell: expected one of this scene, {seen} ({folder}): {remedy}")


def _gain(field: Field, cameras: Cameras) -> ShellGain:
    assert field.shell is not None
    return measure_shell(bake(field), field.shell, cameras)


def _chosen(itinerary: Itinerary, only: int | None) -> Itinerary:
    if only is None:
        return itinerary
    if not 0 <= only < len(itinerary.cameras):
        raise ValueError(f"only: expected 0 to {len(itinerary.cameras) - 1}, the views of the path, got {only}")
    return Itinerary(itinerary.path, itinerary.cameras.select([only]))


def _around(itinerary: Itinerary, config: Config) -> Itinerary:
    """The same places with the size of panoramas."""
    width = config.width or (2 * config.height if config.height is not None else PANORAMA_WIDTH)
    if width % 2 or (config.height is not None and 2 * config.height != width):
        raise ValueError(f"width, height: expected a panorama twice as wide as high, got {width} x {config.height}")
    cameras = itinerary.cameras
    sizes = torch.tensor([[width, width // 2]]).repeat(len(cameras), 1)
    return Itinerary(f"{itinerary.path}_panorama", cameras.resized(sizes))


def _default_out(config: Config, itinerary: Itinerary) -> Path:
    folder = config.scene.resolve().parent
    base = (folder.parent if folder.name == "fit" else folder) / "renders"
    name = itinerary.path if config.mode == "rgb" else f"{itinerary.path}_{config.mode}"
    return base / name if itinerary.path in ("train", "test", "all") else base / f"{name}.mp4"


def _check_output(out: Path, cameras: Cameras) -> None:
    """Check before minutes of rendering what would make writing fail after them.

    Raises:
        OutputError: the suffix is unknown, or the views do not fit into it.
    """
    suffix = out.suffix.lower()
    if suffix in WRITTEN_SUFFIXES:
        if bool((cameras.sizes != cameras.sizes[0]).any()):
            remedy = "Give --width and --height, or name a folder."
            raise OutputError(out, "the views have different sizes, a video has one", remedy)
    elif suffix == ".png":
        if len(cameras) != 1:
            remedy = f"Name a folder, or a video ({', '.join(WRITTEN_SUFFIXES)})."
            raise OutputError(out, f"expected one view for a .png file, got {len(cameras)}", remedy)
    elif suffix and not out.is_dir():
        remedy = f"Choose {', '.join(WRITTEN_SUFFIXES)}, .png, or a folder."
        raise OutputError(out, f"unknown format {suffix!r}", remedy)
    elif out.exists() and not out.is_dir():
        raise OutputError(out, "a file stands where the folder should be", "Choose another name.")


def _write_pngs(out: Path, pictures: Iterable[np.ndarray], names: tuple[str, ...]) -> None:
    taken: set[str] = set()
    for picture, name in zip(pictures, names, strict=True):
        stem = re.sub(r"[^\w.-]+", "_", str(Path(name).with_suffix(""))).strip("._") or "view"
        stem = f"{stem}_{len(taken):05d}" if stem in taken else stem
        taken.add(stem)
        with atomic_write(out if out.suffix.lower() == ".png" else out / f"{stem}.png") as temporary:
            Image.fromarray(picture).save(temporary)


def _counted(pictures: Iterable[np.ndarray], progress: Progress) -> Iterator[np.ndarray]:
    for picture in pictures:
        yield picture
        progress.advance()
