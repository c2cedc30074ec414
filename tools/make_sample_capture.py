"""Render the bundled sample capture: images, exact poses, sparse points and exact test depth of a still life.

Needs Blender as a Python module, in an environment of its own (one CPU core renders a view in half a minute):

    python3.11 -m venv bpy-venv && bpy-venv/bin/pip install bpy
    bpy-venv/bin/python tools/make_sample_capture.py data/sample

Views that exist are kept, so an interrupted run continues. Poses are camera-to-world in OpenGL axes (x right, y up,
z backward), the first pixel's centre is at (0.5, 0.5), depth is along the optical axis, lengths are metres.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

try:
    import bpy
    import sample_scene
    from mathutils import Matrix, Vector
    from mathutils.bvhtree import BVHTree
except ModuleNotFoundError as error:
    if error.name not in ("bpy", "mathutils"):
        raise
    raise SystemExit(
        "make_sample_capture needs Blender's Python module. Install it in an environment of its own:\n"
        "    python3.11 -m venv bpy-venv && bpy-venv/bin/pip install bpy\n"
        f"and run: bpy-venv/bin/python {sys.argv[0]} OUT"
    ) from error

Array = np.ndarray

VIEWS_PER_LOOP = 16
TEST_EVERY = 8
FOV_DEG = 52.0
JPEG_QUALITY = 95
DEPTH_UNIT = 1e-3
"""Metres for one step of the 16-bit depth images; nerfstudio's default."""
ROOM = ("floor", "back wall", "left wall", "rail", "mount", "art", "frame", "table top", "apron", "leg")
"""Objects that a mask leaves out."""
# Centre azimuth, half width, elevation, half height (degrees), distance, target, phase (radians) of each closed loop.
# A loop has no ends, and its phase puts both test views (every 8th) near its middle, between train views.
LOOPS = (
    (-45.0, 48.0, 18.0, 7.0, 1.25, (-0.02, 0.02, 0.16), 0.35),
    (-45.0, 42.0, 38.0, 9.0, 1.24, (-0.01, 0.01, 0.10), -0.45),
    (-45.0, 40.0, 27.0, 10.0, 0.96, (0.00, 0.00, 0.12), 0.70),
)


@dataclass(frozen=True)
class Shot:
    """One view to take."""

    name: str
    world_from_camera: Array
    """Camera-to-world in OpenGL axes. [4, 4]"""


@dataclass(frozen=True)
class Lens:
    """The pinhole that all shots share, in pixels."""

    width: int
    height: int

    @property
    def focal(self) -> float:
        """Focal length."""
        return 0.5 * self.width / math.tan(math.radians(FOV_DEG) / 2)

    def rays(self, shot: Shot, pixels: Array) -> Array:
        """Cast rays through image positions (x, y) [P, 2]; directions with unit step along the axis. [P, 3]"""
        x = (pixels[:, 0] - self.width / 2) / self.focal
        y = (self.height / 2 - pixels[:, 1]) / self.focal
        return np.stack([x, y, -np.ones_like(x)], -1) @ shot.world_from_camera[:3, :3].T

    def all_rays(self, shot: Shot) -> Array:
        """Cast rays through all pixels' centres, row by row. [H * W, 3]"""
        x, y = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        return self.rays(shot, np.stack([x.ravel(), y.ravel()], -1))

    def project(self, shot: Shot, points: Array) -> tuple[Array, Array]:
        """Project world points to image positions [P, 2] and depths [P]."""
        local = (points - shot.world_from_camera[:3, 3]) @ shot.world_from_camera[:3, :3]
        depth = -local[:, 2]
        scaled = self.focal * local[:, :2] / np.where(np.abs(depth) > 1e-9, depth, 1e-9)[:, None]
        return scaled * [1, -1] + [self.width / 2, self.height / 2], depth


def main() -> None:
    """Parse the command line and make the capture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the capture, e.g. data/sample")
    parser.add_argument("--width", type=int, default=480, help="image width in pixels; the height is 3/4 of it")
    parser.add_argument("--samples", type=int, default=16, help="paths per pixel before denoising")
    parser.add_argument("--threads", type=int, default=1, help="render threads")
    parser.add_argument("--only", type=int, nargs="*", help="render these views and stop, for a look")
    parser.add_argument("--n-points", type=int, default=9000, help="sparse points")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sparse points")
    parser.add_argument("--masks", action="store_true", help="also write masks/, white where things stand on the table")
    parser.add_argument("--mesh", type=Path, help="also write the scene's triangles to this PLY")
    args = parser.parse_args()

    lens, shots = Lens(args.width, args.width * 3 // 4), plan_shots()
    sample_scene.build()
    configure(lens, args.samples, args.threads)
    chosen = shots if args.only is None else [shots[i] for i in args.only]
    render(chosen, args.out / "images")
    if args.only is not None:
        return
    vertices, triangles, names = triangulate()
    tree = BVHTree.FromPolygons(vertices.tolist(), triangles.tolist(), all_triangles=True)
    if args.mesh is not None:
        write_mesh(args.mesh, vertices, triangles)
    for shot in shots if args.masks else ():
        write_mask(args.out / "masks" / f"{shot.name}.png", cast_mask(tree, ~np.isin(names, ROOM), lens, shot))
    for shot in shots[::TEST_EVERY]:
        write_depth(args.out / "depths" / f"{shot.name}.png", cast_depth(tree, lens, shot))
    write_points(args.out / "points.ply", *sample_points(tree, lens, shots, args))
    write_transforms(args.out, lens, shots)


def plan_shots() -> list[Shot]:
    """Place the cameras on the loops, in the order of their names."""
    shots = []
    for azimuth, half_width, elevation, half_height, distance, target, phase in LOOPS:
        for t in phase + 2 * np.pi * np.arange(VIEWS_PER_LOOP) / VIEWS_PER_LOOP:
            around = math.radians(azimuth + half_width * math.sin(t))
            above = math.radians(elevation + half_height * math.cos(t))
            backward = np.array(
                [math.cos(above) * math.cos(around), math.cos(above) * math.sin(around), math.sin(above)]
            )
            right = np.cross([0, 0, 1.0], backward)
            right /= np.linalg.norm(right)
            pose = np.eye(4)
            pose[:3, :3] = np.stack([right, np.cross(backward, right), backward], -1)
            pose[:3, 3] = np.array(target) + distance * backward
            shots.append(Shot(f"{len(shots):03d}", pose))
    return shots


def configure(lens: Lens, samples: int, threads: int) -> None:
    """Set up Cycles and the camera: linear exposure, sRGB curve, the filter of Blender's default, denoised."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.render.resolution_x, scene.render.resolution_y = lens.width, lens.height
    scene.render.threads_mode, scene.render.threads = "FIXED", threads
    scene.render.use_persistent_data = True
    scene.render.dither_intensity = 0
    scene.view_settings.view_transform = "Standard"
    cycles = scene.cycles
    cycles.device, cycles.samples, cycles.seed = "CPU", samples, 0
    # Two lights need no tree to choose from: a fifth faster without.
    cycles.use_adaptive_sampling, cycles.use_light_tree = False, False
    cycles.use_denoising, cycles.denoiser = True, "OPENIMAGEDENOISE"
    cycles.max_bounces, cycles.caustics_reflective = 6, False
    cycles.sample_clamp_indirect = 4.0
    cycles.pixel_filter_type, cycles.filter_width = "BLACKMAN_HARRIS", 1.5
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.sensor_fit, camera.data.angle = "HORIZONTAL", math.radians(FOV_DEG)
    camera.data.clip_start = 0.01
    scene.collection.objects.link(camera)
    scene.camera = camera


def render(shots: list[Shot], folder: Path) -> None:
    """Render the shots that are not there yet to JPEG without chroma subsampling."""
    folder.mkdir(parents=True, exist_ok=True)
    scene = bpy.context.scene
    for shot in shots:
        path = folder / f"{shot.name}.jpg"
        if path.exists():
            continue
        scene.camera.matrix_world = Matrix(shot.world_from_camera.tolist())
        with tempfile.TemporaryDirectory() as scratch:
            scene.render.filepath = str(Path(scratch) / "view.png")
            bpy.ops.render.render(write_still=True)
            pixels = read_image(Path(scene.render.filepath))
        write_image(path, pixels, {"Compression": f"jpeg:{JPEG_QUALITY}", "jpeg:subsampling": "4:4:4"})
        print(f"{path} {path.stat().st_size} bytes", file=sys.stderr, flush=True)


def triangulate() -> tuple[Array, Array, Array]:
    """Collect the triangles that Cycles renders, in the world: vertices [V, 3], triangles [F, 3], object names [F]."""
    graph = bpy.context.evaluated_depsgraph_get()
    vertices, triangles, names, count = [], [], [], 0
    for made in bpy.context.scene.objects:
        if made.type != "MESH":
            continue
        evaluated = made.evaluated_get(graph)
        mesh = evaluated.to_mesh()
        mesh.calc_loop_triangles()
        points = np.empty(3 * len(mesh.vertices), np.float32)
        mesh.vertices.foreach_get("co", points)
        corners = np.empty(3 * len(mesh.loop_triangles), np.int32)
        mesh.loop_triangles.foreach_get("vertices", corners)
        pose = np.array(evaluated.matrix_world)
        vertices.append(points.reshape(-1, 3) @ pose[:3, :3].T + pose[:3, 3])
        triangles.append(corners.reshape(-1, 3) + count)
        names.append(np.full(len(triangles[-1]), made.name.split(".")[0]))
        count += len(mesh.vertices)
        evaluated.to_mesh_clear()
    return np.concatenate(vertices), np.concatenate(triangles), np.concatenate(names)


def cast(tree: BVHTree, origin: Array, directions: Array) -> Array:
    """Measure how many steps of each direction [R, 3] reach the first surface; infinity where there is none. [R]"""
    lengths = np.linalg.norm(directions, axis=1)
    start = Vector(origin)
    hits = (tree.ray_cast(start, Vector(direction))[3] for direction in directions)
    return np.array([np.inf if distance is None else distance for distance in hits]) / lengths


def cast_depth(tree: BVHTree, lens: Lens, shot: Shot) -> Array:
    """Measure the depth through every pixel's centre, metres. [H, W]"""
    return cast(tree, shot.world_from_camera[:3, 3], lens.all_rays(shot)).reshape(lens.height, lens.width)


def cast_mask(tree: BVHTree, is_kept: Array, lens: Lens, shot: Shot) -> Array:
    """Find where the ray through a pixel's centre ends on a triangle to keep [F]. [H, W]"""
    start = Vector(shot.world_from_camera[:3, 3])
    hits = (tree.ray_cast(start, Vector(direction))[2] for direction in lens.all_rays(shot))
    kept = np.array([index is not None and is_kept[index] for index in hits])
    return kept.reshape(lens.height, lens.width)


def sample_points(tree: BVHTree, lens: Lens, shots: list[Shot], args: argparse.Namespace) -> tuple[Array, Array]:
    """Imitate structure from motion: points on surfaces where the train images have detail.

    Args:
        tree: The scene's triangles.
        lens: The camera.
        shots: All views; every 8th is left out as it is for testing.
        args: Fields n_points, seed and out, the folder with the images.

    Returns:
        Points seen by three or more views, off by 0.2 % of their distance [P, 3], and their median colours [P, 3].
    """
    rng = np.random.default_rng(args.seed)
    train = [shot for i, shot in enumerate(shots) if i % TEST_EVERY]
    images = [read_image(args.out / "images" / f"{shot.name}.jpg") for shot in train]
    points, sigmas = [], []
    for shot, image in zip(train, images, strict=True):
        grey = image.astype(np.float64).mean(-1)
        detail = np.hypot(*np.gradient(grey)) + 2.0
        picked = rng.choice(
            grey.size, 2 * args.n_points // len(train), replace=False, p=(detail / detail.sum()).ravel()
        )
        pixels = np.stack([picked % lens.width, picked // lens.width], -1) + rng.random((len(picked), 2))
        rays, origin = lens.rays(shot, pixels), shot.world_from_camera[:3, 3]
        steps = cast(tree, origin, rays)
        hit = np.isfinite(steps)
        points.append((origin + steps[:, None] * rays)[hit])
        sigmas.append(0.002 * steps[hit])
    points, sigmas = np.concatenate(points), np.concatenate(sigmas)
    colours = np.stack([_seen_colours(tree, lens, *view, points) for view in zip(train, images, strict=True)])
    kept = np.flatnonzero((~np.isnan(colours[..., 0])).sum(0) >= 3)
    kept = rng.permutation(kept)[: args.n_points]
    noise = rng.normal(size=(len(kept), 3)) * sigmas[kept, None]
    return points[kept] + noise, np.nanmedian(colours[:, kept], axis=0)


def _seen_colours(tree: BVHTree, lens: Lens, shot: Shot, image: Array, points: Array) -> Array:
    """Look points up in an image; NaN where they are outside it or hidden. [P, 3]"""
    positions, depths = lens.project(shot, points)
    inside = (depths > 0.05) & ((positions >= 0) & (positions < [lens.width, lens.height])).all(1)
    index = np.flatnonzero(inside)
    steps = cast(tree, shot.world_from_camera[:3, 3], points[index] - shot.world_from_camera[:3, 3])
    index = index[np.abs(steps - 1) < 0.001]
    x, y = positions[index].astype(int).T
    colours = np.full((len(points), 3), np.nan)
    colours[index] = image[y, x]
    return colours


def write_transforms(out: Path, lens: Lens, shots: list[Shot]) -> None:
    """Write transforms.json for all views and transforms_depth.json for the test views with depth.

    Nerfstudio accepts depth for every frame of a file or for none, hence two files.
    """
    width, height, focal = lens.width, lens.height, lens.focal
    shared: dict[str, object] = {"camera_model": "OPENCV", "w": width, "h": height, "fl_x": focal, "fl_y": focal}
    shared |= {"cx": width / 2, "cy": height / 2, "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0}
    shared |= {"ply_file_path": "points.ply"}
    frames = [
        {"file_path": f"images/{s.name}.jpg", "transform_matrix": s.world_from_camera.round(9).tolist()} for s in shots
    ]
    measured = [{**frame, "depth_file_path": f"depths/{s.name}.png"} for frame, s in zip(frames, shots, strict=True)]
    _write_json(out / "transforms.json", {**shared, "frames": frames})
    scale = {"depth_unit_scale_factor": DEPTH_UNIT}
    _write_json(out / "transforms_depth.json", {**shared, **scale, "frames": measured[::TEST_EVERY]})


def _write_json(path: Path, content: dict[str, object]) -> None:
    text = json.dumps(content, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def write_points(path: Path, points: Array, colours: Array) -> None:
    """Write a binary PLY of points with colours in [0, 255]."""
    kind = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    table = np.empty(len(points), kind)
    for column, name in enumerate("xyz"):
        table[name] = points[:, column]
    for column, name in enumerate(("red", "green", "blue")):
        table[name] = np.round(colours[:, column])
    names = {"<f4": "float", "u1": "uchar"}
    fields = "".join(f"property {names[code]} {name}\n" for name, code in kind)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{fields}end_header\n"
    path.write_bytes(header.encode() + table.tobytes())


def write_mesh(path: Path, vertices: Array, triangles: Array) -> None:
    """Write a binary PLY of triangles."""
    table = np.empty(len(triangles), [("n", "u1"), ("corners", "<i4", 3)])
    table["n"], table["corners"] = 3, triangles
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
    header += "property float x\nproperty float y\nproperty float z\n"
    header += f"element face {len(triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    path.write_bytes(header.encode() + vertices.astype("<f4").tobytes() + table.tobytes())


def write_depth(path: Path, depth: Array) -> None:
    """Write depth in metres [H, W] as a 16-bit PNG in steps of DEPTH_UNIT; 0 where there is no surface."""
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.where(np.isfinite(depth), np.round(depth / DEPTH_UNIT), 0)
    write_image(path, steps.clip(0, 65535).astype(np.uint16)[..., None], {"png:compressionLevel": 9})


def write_mask(path: Path, mask: Array) -> None:
    """Write a mask [H, W] as an 8-bit PNG, white where it is true."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.where(mask, 255, 0).astype(np.uint8)[..., None], {"png:compressionLevel": 9})


def read_image(path: Path) -> Array:
    """Read an 8-bit image. [H, W, 3]"""
    source = _image_io().ImageInput.open(str(path))
    pixels = source.read_image("uint8")
    source.close()
    return pixels[..., :3]


def write_image(path: Path, pixels: Array, options: dict[str, object]) -> None:
    """Write an image [H, W, C] in its own type with OpenImageIO's options."""
    oiio = _image_io()
    spec = oiio.ImageSpec(pixels.shape[1], pixels.shape[0], pixels.shape[2], str(pixels.dtype))
    for name, value in options.items():
        spec.attribute(name, value)
    target = oiio.ImageOutput.create(str(path))
    if not target.open(str(path), spec) or not target.write_image(np.ascontiguousarray(pixels)) or not target.close():
        raise OSError(f"{path}: {target.geterror()}")


def _image_io():  # the OpenImageIO module, which Blender ships outside the usual search path
    root = Path(bpy.utils.resource_path("LOCAL")) / "python"
    for folder in root.glob("lib/**/site-packages"):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    import OpenImageIO

    return OpenImageIO


if __name__ == "__main__":
    main()
