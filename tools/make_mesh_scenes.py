"""Make captures with an exact mesh, depth and ids, to measure meshes by: a minute of one processor core each.

    python tools/make_mesh_scenes.py OUT --scenes mechanical thin --coats matte glossy

mechanical: machine parts with sharp edges. thin: wires, plates and grids a few pixels wide. Each matte, or with a
mirror-like coat that moves with the camera. Around stands a room with painted walls, which is part of the photos (a
fit needs a background that has a place) and not of mesh.ply. Triangles are shaded by a soft sky with shadows; paint is
a function of the place in the world. Files: images/, transforms.json (every 8th photo is for testing), points.ply (in
the manner of structure from motion: off by 0.2 % of the distance), mesh.ply, objects.json, and depth/ and ids/ of the
test photos (16 bit, depth_unit_scale_factor in transforms.json; ids 8 bit, 0 = nothing of mesh.ply).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import mesh_light as light
import mesh_parts as parts
import numpy as np
import torch
import tyro
from mesh_light import Paint
from PIL import Image
from torch import Tensor

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.mesh import Mesh, face_normals
from scene3d.core.progress import Progress
from scene3d.io.atomic import atomic_write, write_json
from scene3d.io.mesh_files import write_mesh
from scene3d.io.ply import write_points_ply
from scene3d.ops.threads import set_threads
from scene3d.ops.triangles import view_mesh

SceneName = Literal["mechanical", "thin"]
CoatName = Literal["matte", "glossy"]

DEPTH_UNIT = 1e-4
TEST_EVERY = 8
OVERSAMPLING = 2
# Of the table with everything on it.
RADIUS = 1.35
# Lifts shadows off their surface, scene units.
BIAS = 0.012
# Elevation in degrees, share of the views, distance.
RINGS = ((14.0, 0.38, 2.5), (33.0, 0.35, 2.6), (58.0, 0.27, 2.6))


@dataclass(frozen=True)
class Config:
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder; each capture gets one in it, such as mechanical-matte."""
    scenes: tuple[SceneName, ...] = ("mechanical", "thin")
    """Which scenes."""
    coats: tuple[CoatName, ...] = ("matte", "glossy")
    """Which surfaces."""
    n_views: int = 48
    """Photos, every 8th for testing."""
    width: int = 400
    """Of a photo, pixels; the height is 3/4 of it."""
    n_points: int = 6000
    """Points in points.ply."""
    n_lights: int = 40
    """Directions that the light of the sky comes from."""
    seed: int = 0
    """Of points and paint."""
    threads: int | None = None
    """Of the native code."""


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    name: str
    mesh: Mesh
    paint: Paint


@dataclass(frozen=True)
class Stage:
    """A scene ready to be looked at.

    Attributes:
        things: Objects of the truth, then those of the room.
        n_true: How many of them are part of the truth.
        whole: All in one mesh.
        owner: Number of the thing of every face. [F]
        normals: Unit, of every face. [F, 3]
        sky: The light.
    """

    things: tuple[Thing, ...]
    n_true: int
    whole: Mesh
    owner: Tensor
    normals: Tensor
    sky: light.Sky

    def truth(self) -> Mesh:
        """The mesh to measure by."""
        return parts.merged([thing.mesh for thing in self.things[: self.n_true]])


def main(config: Config) -> None:
    """Make every capture that was asked for."""
    set_threads(config.threads)
    for scene in config.scenes:
        for coat in config.coats:
            make_capture(scene, coat, config.out / f"{scene}-{coat}", config)


def make_capture(scene: SceneName, coat: CoatName, out: Path, config: Config) -> None:
    """Render one capture and write all its files."""
    stage = build(scene, 1.0 if coat == "glossy" else 0.0, config.n_lights)
    cameras = ring_views(config.n_views, config.width)
    points, colors = [], []
    generator = torch.Generator().manual_seed(config.seed)
    with Progress(len(cameras), f"rendering {out.name}") as progress:
        for i in range(len(cameras)):
            photo = shoot(stage, cameras.select([i]), config.seed)
            save_image(photo, out / "images" / f"{cameras.names[i]}.jpg")
            seen = view_mesh(stage.whole, cameras, i)
            if i % TEST_EVERY == 0:
                save_truth(stage, cameras, i, out)
            else:
                n = round(config.n_points / (len(cameras) * (1 - 1 / TEST_EVERY)))
                found = sparse_points(photo, seen.depth, cameras.select([i]), n, generator)
                points.append(found[0])
                colors.append(found[1])
            progress.advance()
    write_points_ply(torch.cat(points), torch.cat(colors), out / "points.ply")
    write_mesh(stage.truth(), out / "mesh.ply")
    write_json(out / "objects.json", object_table(stage))
    write_json(out / "transforms.json", transforms(cameras))


def build(scene: SceneName, coat: float, n_lights: int) -> Stage:
    """Put the scene together and light it."""
    makers: dict[str, Callable[[], list[Thing]]] = {"mechanical": mechanical, "thin": thin}
    things = [replace(t, paint=replace(t.paint, coat=coat)) for t in makers[scene]()]
    table = Thing(
        "table",
        parts.placed(parts.slab((2.2, 2.2, 0.12)), (0, 0, -0.12)),
        Paint((0.62, 0.42, 0.24), (0.25, 0.13, 0.06), 0.25),
    )
    true = [table, *things]
    every = (*true, *room())
    whole = parts.merged([thing.mesh for thing in every])
    owner = torch.cat([torch.full((thing.mesh.n_faces,), k) for k, thing in enumerate(every)])
    normals = torch.nn.functional.normalize(face_normals(whole), dim=1)
    sky = light.make_sky(parts.merged([thing.mesh for thing in true]), n_lights, RADIUS)
    return Stage(every, len(true), whole, owner, normals, sky)


def mechanical() -> list[Thing]:
    """Machine parts: flat faces, bores, steps, teeth."""
    steel, brass, red = (
        Paint((0.5, 0.53, 0.58), (0.16, 0.18, 0.22), 0.09),
        Paint((0.75, 0.52, 0.18), (0.3, 0.17, 0.05), 0.1),
        Paint((0.7, 0.16, 0.1), (0.28, 0.04, 0.03), 0.13),
    )
    blue, green = Paint((0.2, 0.36, 0.7), (0.05, 0.1, 0.3), 0.12, 0.09), Paint((0.3, 0.6, 0.28), (0.08, 0.2, 0.08), 0.1)
    angle = torch.tensor([[-0.09, -0.09], [0.55, -0.09], [0.55, 0.09], [0.09, 0.09], [0.09, 0.5], [-0.09, 0.5]])
    shaft = [
        (0, 0),
        (0.1, 0),
        (0.1, 0.2),
        (0.16, 0.2),
        (0.16, 0.45),
        (0.12, 0.45),
        (0.12, 0.62),
        (0.07, 0.62),
        (0.07, 0.85),
        (0, 0.85),
    ]
    bolt = [(0, 0), (0.085, 0), (0.085, 0.34), (0.07, 0.37), (0, 0.37)]
    return [
        Thing(
            "gear",
            parts.placed(parts.extrusion(parts.gear_outline(18, 0.4, 0.09), 0.16, 0.14), (-0.5, -0.42, 0)),
            steel,
        ),
        Thing(
            "angle",
            parts.placed(
                parts.placed(parts.extrusion(angle, 0.34), (0, -0.17, 0.09), 90, (1, 0, 0)), (-0.35, 0.5, 0), -25
            ),
            red,
        ),
        Thing(
            "shaft",
            parts.placed(parts.placed(parts.turned(shaft), (0, 0, 0), 90, (0, 1, 0)), (0.15, -0.6, 0.16), 15),
            brass,
        ),
        Thing("nut", parts.placed(parts.extrusion(parts.polygon(6, 0.22, 8), 0.18, 0.11), (0.62, 0.62, 0), 12), steel),
        Thing("bolt head", parts.placed(parts.extrusion(parts.polygon(6, 0.17, 4), 0.12), (0.2, 0.25, 0), 40), blue),
        Thing("bolt", parts.placed(parts.turned(bolt), (0.2, 0.25, 0.12)), blue),
        Thing(
            "cube",
            parts.placed(
                parts.placed(parts.slab((0.3, 0.3, 0.3)), (0, 0, -0.15), 35, (1, 0.3, 0.2)), (0.72, 0.02, 0.19)
            ),
            green,
        ),
        Thing(
            "pyramid",
            parts.placed(parts.turned([(0, 0), (0.24, 0), (0.0005, 0.4), (0, 0.4)], 4), (-0.85, 0.28, 0), 20),
            brass,
        ),
    ]


def thin() -> list[Thing]:
    """Wires, a grid, plates and blades: 0.016 to 0.05 units, two to eight pixels."""
    steel, copper, red = (
        Paint((0.6, 0.62, 0.66), (0.2, 0.21, 0.24), 0.06),
        Paint((0.8, 0.42, 0.25), (0.35, 0.13, 0.06), 0.06),
        Paint((0.75, 0.2, 0.12), (0.3, 0.05, 0.04), 0.09),
    )
    green, blue = (
        Paint((0.32, 0.6, 0.22), (0.08, 0.22, 0.06), 0.07),
        Paint((0.22, 0.4, 0.75), (0.06, 0.12, 0.34), 0.09, 0.07),
    )
    t = torch.linspace(0, 1, 160)
    helix = torch.stack([0.22 * (10 * math.pi * t).cos(), 0.22 * (10 * math.pi * t).sin(), 0.05 + 0.6 * t], dim=1)
    things = [Thing("spring", parts.placed(parts.wire(helix, 0.022), (-0.55, -0.45, 0)), copper)]
    bars = [parts.placed(parts.slab((0.02, 0.02, 0.6)), (0.1 * k - 0.35, 0, 0)) for k in range(8)]
    bars += [parts.placed(parts.slab((0.74, 0.016, 0.02)), (0, 0.016, 0.05 + 0.18 * k)) for k in range(4)]
    things.append(Thing("fence", parts.placed(parts.merged(bars), (0.25, 0.55, 0), -12), steel))
    cards = [parts.placed(parts.slab((0.34, 0.02, 0.42)), (0, 0, 0), 60 * k) for k in range(3)]
    things.append(Thing("cards", parts.placed(parts.merged(cards), (0.6, -0.2, 0), 8), red))
    blades = [parts.placed(_blade(0.5 + 0.05 * (k % 3)), (0, 0, 0), 45 * k) for k in range(8)]
    things.append(Thing("blades", parts.placed(parts.merged(blades), (-0.6, 0.4, 0)), green))
    hoop = torch.stack([0.26 * (2 * math.pi * t).cos(), 0 * t, 0.3 + 0.26 * (2 * math.pi * t).sin()], dim=1)
    things.append(Thing("hoop", parts.placed(parts.wire(hoop, 0.025), (0.1, -0.72, 0), 30), blue))
    things.append(Thing("foot", parts.placed(parts.slab((0.2, 0.2, 0.04)), (0.1, -0.72, 0), 30), blue))
    return things


def _blade(length: float) -> Mesh:
    """A leaf of grass: broad below, pointed above, bent outwards, 0.016 thick."""
    t = torch.linspace(0, 1, 14)
    out, up = 0.06 + length * 0.7 * t**2, length * (t - 0.25 * t**3)
    half = 0.05 * (1 - t) + 0.006
    rings = []
    for side, lift in ((-1, 0.0), (1, 0.0), (1, 0.016), (-1, 0.016)):
        rings.append(torch.stack([out - lift, side * half, up], dim=1))
    vertices = torch.stack(rings, dim=1).reshape(-1, 3)
    at = torch.arange(13)[:, None] * 4
    around = [(k, (k + 1) % 4) for k in range(4)]
    faces = [torch.cat([at + a, at + 4 + b, at + b], dim=1) for a, b in around]
    faces += [torch.cat([at + a, at + 4 + a, at + 4 + b], dim=1) for a, b in around]
    caps = torch.tensor([[0, 1, 2], [0, 2, 3], [54, 53, 52], [55, 54, 52]])
    mesh = Mesh(vertices.float(), torch.cat([*faces, caps]))
    volume = (mesh.corners()[:, 0] * face_normals(mesh)).sum()
    return mesh if float(volume) > 0 else Mesh(mesh.vertices, mesh.faces.flip(1))


def room() -> list[Thing]:
    """Floor and walls with paint of their own, far enough not to be taken for the scene."""
    floor, wall = (
        Paint((0.5, 0.5, 0.48), (0.16, 0.17, 0.2), 0.5, 0.7, glow=True),
        Paint((0.62, 0.58, 0.5), (0.25, 0.28, 0.34), 0.8, glow=True),
    )
    walls = [parts.placed(parts.placed(parts.slab((9.2, 0.2, 5.0)), (0, 4.6, -1)), (0, 0, 0), 90 * k) for k in range(4)]
    return [
        Thing("floor", parts.placed(parts.slab((9.2, 9.2, 0.2)), (0, 0, -1.2)), floor),
        *(Thing(f"wall {k}", mesh, wall) for k, mesh in enumerate(walls)),
    ]


def ring_views(n: int, width: int) -> Cameras:
    """n views on three rings that look at the middle, in an order that mixes the rings."""
    height = width * 3 // 4
    viewmats = []
    for ring, (elevation_deg, share, distance) in enumerate(RINGS):
        elevation = math.radians(elevation_deg)
        m = round(n * share) if ring < len(RINGS) - 1 else n - len(viewmats)
        for k in range(m):
            around = 2 * math.pi * (k + 0.37 * len(viewmats) / n) / m
            flat = torch.tensor([math.cos(around), math.sin(around), 0.0])
            eye = distance * (math.cos(elevation) * flat + math.sin(elevation) * torch.tensor([0.0, 0, 1]))
            viewmats.append(look_at(eye, torch.tensor([0.0, 0, 0.12]), torch.tensor([0.0, 0, 1])))
    focal = 1.0 * width
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    names = tuple(f"{i:03d}" for i in range(n))
    return Cameras(torch.stack(viewmats), K.repeat(n, 1, 1), torch.tensor([[width, height]]).repeat(n, 1), names)


def shoot(stage: Stage, camera: Cameras, seed: int) -> Tensor:
    """The photo of one camera, [H, W, 3] uint8."""
    fine = camera.resized(camera.sizes * OVERSAMPLING)
    seen = view_mesh(stage.whole, fine)
    rows, columns = seen.hit.nonzero(as_tuple=True)
    face = seen.face[rows, columns].long()
    points = (stage.whole.corners()[face] * seen.weights[rows, columns][:, :, None]).sum(dim=1)
    views = torch.nn.functional.normalize(points - camera.centers()[0], dim=1)
    normals = stage.normals[face]
    normals = torch.where((normals * views).sum(dim=1, keepdim=True) > 0, -normals, normals)
    colors = torch.zeros(len(points), 3)
    for k, thing in enumerate(stage.things):
        mine = stage.owner[face] == k
        if not bool(mine.any()):
            continue
        matte = light.painted(thing.paint, points[mine], seed + 101 * k)
        if not thing.paint.glow:
            matte = matte * light.sky_light(stage.sky, points[mine], normals[mine], BIAS)[:, None]
        coat = torch.full((int(mine.sum()),), thing.paint.coat)
        colors[mine] = light.coated(matte, coat, normals[mine], views[mine]) if thing.paint.coat else matte
    image = torch.zeros(*seen.hit.shape, 3)
    image[rows, columns] = colors
    image = torch.nn.functional.avg_pool2d(image.permute(2, 0, 1)[None], OVERSAMPLING)[0].permute(1, 2, 0)
    return (light.to_srgb(image) * 255).round().to(torch.uint8)


def sparse_points(
    photo: Tensor, depth: Tensor, camera: Cameras, n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """n places where the photo has detail, a little off, with their colours. [n, 3], [n, 3] uint8"""
    grey = photo.float().mean(dim=2)
    detail = torch.ones_like(grey)
    detail[1:-1, 1:-1] += (grey[1:-1, 2:] - grey[1:-1, :-2]).abs() + (grey[2:, 1:-1] - grey[:-2, 1:-1]).abs()
    detail = torch.where(depth > 0, detail, 0.0)
    at = torch.multinomial(detail.flatten(), n, generator=generator)
    y, x = at // grey.shape[1], at % grey.shape[1]
    z = depth[y, x]
    K, viewmat = camera.Ks[0], camera.viewmats[0]
    in_cam = torch.stack([(x + 0.5 - K[0, 2]) / K[0, 0] * z, (y + 0.5 - K[1, 2]) / K[1, 1] * z, z], dim=1)
    points = (in_cam - viewmat[:3, 3]) @ viewmat[:3, :3]
    return points + 0.002 * z[:, None] * torch.randn(n, 3, generator=generator), photo[y, x]


def save_truth(stage: Stage, cameras: Cameras, i: int, out: Path) -> None:
    """Exact depth and ids of the truth through the pixel centres of one view, without the room."""
    seen = view_mesh(stage.whole, cameras, i)
    owner = torch.where(seen.hit, stage.owner[seen.face.clamp_min(0).long()], len(stage.things))
    is_true = owner < stage.n_true
    depth = torch.where(is_true, seen.depth / DEPTH_UNIT, 0.0).round().to(torch.int32).numpy().astype(np.uint16)
    ids = torch.where(is_true, owner + 1, 0).to(torch.uint8).numpy()
    for name, image in (("depth", depth), ("ids", ids)):
        with atomic_write(out / name / f"{cameras.names[i]}.png") as temporary:
            Image.fromarray(image).save(temporary, format="PNG")


def save_image(photo: Tensor, path: Path) -> None:
    """JPEG without chroma subsampling."""
    with atomic_write(path) as temporary:
        Image.fromarray(photo.numpy()).save(temporary, format="JPEG", quality=95, subsampling=0)


def object_table(stage: Stage) -> list[dict[str, object]]:
    """Ids and ranges of faces in mesh.ply."""
    table: list[dict[str, object]] = []
    first = 0
    for k, thing in enumerate(stage.things[: stage.n_true]):
        table.append({"id": k + 1, "name": thing.name, "first_face": first, "n_faces": thing.mesh.n_faces})
        first += thing.mesh.n_faces
    return table


def transforms(cameras: Cameras) -> dict[str, object]:
    """transforms.json: camera-to-world in OpenGL axes."""
    K = cameras.Ks[0].tolist()
    frames = []
    for name, viewmat in zip(cameras.names, cameras.viewmats.double(), strict=True):
        pose = torch.linalg.inv(viewmat) @ torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
        frames.append({"file_path": f"images/{name}.jpg", "transform_matrix": pose.tolist()})
    return {
        "camera_model": "PINHOLE",
        "w": cameras.width(),
        "h": cameras.height(),
        "fl_x": K[0][0],
        "fl_y": K[1][1],
        "cx": K[0][2],
        "cy": K[1][2],
        "ply_file_path": "points.ply",
        "depth_unit_scale_factor": DEPTH_UNIT,
        "frames": frames,
    }


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
