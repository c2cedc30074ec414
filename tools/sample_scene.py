"""The sample scene: a still life on a table in the corner of a room, built in Blender from nothing but this code.

World axes: x right, y back, z up, metres; the table's surface is z = 0 and its centre the origin. The walls stand at
x = -0.55 and y = 0.55; the photographer moves in the quadrant x > 0, y < 0. Light comes from one of the skies
in Blender's own data files and from one soft lamp.
"""

from __future__ import annotations

import math
from pathlib import Path

import bpy
import numpy as np
import sample_textures as paint
from mathutils import Vector
from sample_shapes import blade, box, material, revolve, smooth_curve, surface, tube, turn

FLOOR = -0.74
WALL = 0.55
TABLE = 1.34  # It touches both walls.
PEEL = (0.24, 0.12)  # Round a fruit and from its base to its top.


def build() -> None:
    """Empty Blender's scene and build the still life, the room and the lights."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    rng = np.random.default_rng(7)
    _room()
    _pictures()
    _table()
    _runner()
    _vase()
    _plant(rng, np.array([-0.20, 0.20, 0.24]))
    _books()
    _basket()
    _fruit()
    _mug()
    _candle()
    _jug()
    _lights()


def _room() -> None:
    parquet = material("parquet", paint.soften(paint.parquet(), (1.5, 1.5), 0.004), 0.5, coat=0.1)
    wash = material("limewash", paint.limewash(), 0.85)
    skirt = material("skirting", paint.plaster((0.86, 0.84, 0.79)), 0.5)
    low, high, top = -WALL, 4.5, 2.2
    floor = np.array([[[x, y, FLOOR] for y in (-high, WALL)] for x in (low, high)])
    surface("floor", floor, parquet, (1.5, 1.5))
    back = np.array([[[x, WALL, z] for z in (FLOOR, top)] for x in (low, high)])
    surface("back wall", back, wash, (2, 1))
    left = np.array([[[-WALL, y, z] for z in (FLOOR, top)] for y in (-high, WALL)])
    surface("left wall", left, wash, (2, 1))
    length = high - low
    for height, depth, at in ((0.11, 0.02, FLOOR + 0.055), (0.05, 0.03, 0.025)):
        box("rail", (length, depth, height), ((low + high) / 2, WALL - depth / 2, at), skirt, (0.6, 0.6), 0.006)
        box("rail", (depth, length, height), (-WALL + depth / 2, -(low + high) / 2, at), skirt, (0.6, 0.6), 0.006)


def _pictures() -> None:
    gilt = material("gilt", paint.hammered((0.80, 0.62, 0.30)), 0.35, metallic=0.8, bump=0.002)
    mount = material("mount", paint.plaster((0.93, 0.91, 0.85)), 0.8)
    walnut = material("walnut", paint.plaster((0.26, 0.15, 0.09)), 0.4, coat=0.3)
    for seed, size, at, angle, frame in (
        (3, (0.50, 0.38), (0.14, WALL, 0.47), 0, gilt),
        (6, (0.34, 0.42), (-WALL, -0.12, 0.46), 90, walnut),
    ):
        width, height = size
        inner = (width - 0.12, height - 0.12)
        art = material("art", paint.soften(paint.painting(seed, round(768 * inner[0] / inner[1])), inner), 0.7)
        parts = [
            box("mount", (width, 0.012, height), (0, -0.006, 0), mount, (1, 1), 0.001),
            box("art", (inner[0], 0.006, inner[1]), (0, -0.013, 0), art, inner, 0.001),
        ]
        for side in (-1, 1):
            parts.append(
                box("frame", (width + 0.05, 0.03, 0.03), (0, -0.015, side * height / 2), frame, (0.2, 0.2), 0.006)
            )
            parts.append(box("frame", (0.03, 0.028, height), (side * width / 2, -0.015, 0), frame, (0.2, 0.2), 0.006))
        turn(parts, at, angle)


def _table() -> None:
    oak = material("oak", paint.soften(paint.table_top(), (1.2, 1.2)), 0.5, coat=0.1)
    middle = TABLE / 2 - WALL + 0.03
    parts = [box("table top", (TABLE, TABLE, 0.036), (0, 0, -0.018), oak, (1.2, 1.2), 0.006)]
    inset = TABLE / 2 - 0.07
    for x in (-inset, inset):
        parts.append(box("apron", (0.02, 2 * inset, 0.09), (x, 0, -0.08), oak, (1.2, 1.2)))
        parts.append(box("apron", (2 * inset, 0.02, 0.09), (0, x, -0.08), oak, (1.2, 1.2)))
        for y in (-inset, inset):
            parts.append(box("leg", (0.06, 0.06, -FLOOR - 0.03), (x, y, (FLOOR - 0.03) / 2), oak, (1.2, 1.2), 0.008))
    turn(parts, (middle, -middle, 0), 0)


def _runner() -> None:
    cloth = material("kilim", paint.soften(paint.kilim(), (0.34, 1.05)), 0.95)
    x, y = np.linspace(-0.17, 0.17, 50)[:, None], np.linspace(0.45, -0.60, 160)[None]
    lift = 0.0025 + 0.001 * np.sin(23 * x + 5 * y) * np.sin(13 * y)
    surface("runner", np.stack([0.05 + x + 0 * y, y + 0 * x, lift], -1), cloth)


def _vase() -> None:
    china = material("porcelain", paint.soften(paint.porcelain(), (0.5, 0.6)), 0.3, coat=0.4)
    profile = [(0.0, 0.004), (0.05, 0.0), (0.052, 0.012), (0.075, 0.07), (0.094, 0.14), (0.082, 0.20), (0.045, 0.245)]
    profile += [(0.036, 0.27), (0.05, 0.30), (0.047, 0.303), (0.032, 0.27), (0.03, 0.2)]
    revolve("vase", profile, (-0.20, 0.20, 0), china, 96)


def _plant(rng: np.random.Generator, root: np.ndarray) -> None:
    green = material("leaf", paint.leaf((0.16, 0.29, 0.15), (0.52, 0.62, 0.40)), 0.45, coat=0.1)
    bark = material("stem", paint.plaster((0.36, 0.30, 0.17)), 0.6)
    petal = material("petal", paint.leaf((0.93, 0.90, 0.86), (0.98, 0.80, 0.70)), 0.6)
    heart = material("heart", paint.speckled((0.87, 0.60, 0.10), (0.55, 0.30, 0.05), 0.3, 128), 0.8)
    for i in range(8):
        angle, lean = 2 * np.pi * (i + 0.3 * rng.random()) / 8, 0.09 + 0.10 * rng.random()
        out = np.array([math.cos(angle), math.sin(angle), 0])
        rise = 0.17 + 0.10 * rng.random()
        controls = np.array(
            [
                root,
                root + [0, 0, 0.07] + 0.02 * out,
                root + [0, 0, rise * 0.7] + 0.5 * lean * out,
                root + [0, 0, rise] + lean * out,
            ]
        )
        path = smooth_curve(controls, 10)
        tube("stem", path, np.linspace(0.0034, 0.0022, len(path)), bark, 8)
        if i % 2:
            _flower(path[-1], path[-1] - path[-4], petal, heart)
        for k, at in enumerate(range(13 if i % 2 == 0 else 17, len(path) - (i % 2) * 4, 2)):
            around = rng.uniform(-0.5, 0.5) + k * 2.4
            aside = np.array([math.cos(around), math.sin(around), 0.25 + 0.5 * rng.random()])
            size = rng.uniform(0.055, 0.085) * (1.1 - 0.4 * at / len(path))
            blade("leaf", path[at], aside, size, size * 0.42, rng.uniform(0.1, 0.4), green)


def _flower(centre: np.ndarray, axis: np.ndarray, petal: bpy.types.Material, heart: bpy.types.Material) -> None:
    axis = axis / np.linalg.norm(axis)
    first = np.cross(axis, [1.0, 0, 0])
    second = np.cross(axis, first)
    for k in range(15):
        angle = 2 * np.pi * k / 15
        direction = math.cos(angle) * first + math.sin(angle) * second + (0.25 + 0.12 * (k % 2)) * axis
        blade("petal", centre + 0.006 * axis, direction, 0.036, 0.012, 0.12, petal)
    revolve(
        "heart", [(0.0, -0.004), (0.009, 0.0), (0.010, 0.006), (0.006, 0.011), (0, 0.012)], tuple(centre), heart, 24
    )


def _books() -> None:
    inks = (
        ((0.52, 0.11, 0.13), (0.90, 0.76, 0.46)),
        ((0.13, 0.22, 0.42), (0.86, 0.82, 0.70)),
        ((0.15, 0.33, 0.27), (0.91, 0.74, 0.50)),
    )
    paper = material("pages", paint.soften(paint.pages(), (0.25, 0.036)), 0.9)
    z = 0.0
    for i, (size, angle) in enumerate(
        (((0.27, 0.19, 0.040), 24.0), ((0.24, 0.17, 0.032), 44.0), ((0.21, 0.14, 0.036), 17.0))
    ):
        length, depth, thick = size
        cover = material("cover", paint.soften(paint.book_cover(*inks[i], style=2 - i), size[:2]), 0.7)
        back = material("spine", paint.soften(paint.spine(*inks[i], seed=i + 3), size[::2]), 0.7)
        parts = [
            box("cover", (length, depth, 0.003), (0, 0, 0.0015), cover, (length, depth), 0.001),
            box("cover", (length, depth, 0.003), (0, 0, thick - 0.0015), cover, (length, depth), 0.001),
            box("spine", (length, 0.004, thick), (0, -depth / 2, thick / 2), back, (length, thick), 0.0018),
            box(
                "pages",
                (length - 0.010, depth - 0.006, thick - 0.006),
                (0, -0.002, thick / 2),
                paper,
                (0.25, thick),
                0.001,
            ),
        ]
        turn(parts, (0.30, 0.27, z), angle)
        z += thick + 0.0005
    # Leaning back by 0.7 the head rests on its chin and its neck, 39 mm below its centre.
    place, lean = (0.30, 0.27, z + 0.0385), (-0.7, 0, math.radians(40))
    bpy.ops.mesh.primitive_monkey_add(size=0.15, calc_uvs=True, location=place, rotation=lean)
    head = bpy.context.object
    rounding = head.modifiers.new("subdivision", "SUBSURF")
    rounding.levels = rounding.render_levels = 2
    head.data.polygons.foreach_set("use_smooth", [True] * len(head.data.polygons))
    glaze = paint.speckled((0.12, 0.50, 0.52), (0.03, 0.22, 0.30), 0.25, 1024)
    head.data.materials.append(material("turquoise", paint.soften(glaze, (0.3, 0.3)), 0.4, coat=0.25))


def _basket() -> None:
    wire = material("wire", paint.hammered((0.30, 0.27, 0.25)), 0.45, metallic=1.0)
    centre = np.array([0.07, -0.14, 0.0])
    side = smooth_curve(np.array([[0.055, 0.012], [0.095, 0.016], [0.130, 0.050], [0.150, 0.098]]), 8)
    for angle in np.arange(18) * 2 * np.pi / 18:
        path = np.stack([side[:, 0] * math.cos(angle), side[:, 0] * math.sin(angle), side[:, 1]], -1)
        tube("wire", path + centre, 0.0024, wire, 8)
    turns = np.linspace(0, 2 * np.pi, 73)[:, None]
    for radius, z, width in (
        (0.055, 0.012, 0.003),
        (0.100, 0.006, 0.004),
        (0.130, 0.050, 0.0024),
        (0.150, 0.098, 0.004),
    ):
        ring = np.hstack([radius * np.cos(turns), radius * np.sin(turns), z + 0 * turns])
        tube("ring", ring + centre, width, wire, 10)
    for sign in (-1, 1):
        t = np.linspace(0, np.pi, 25)
        handle = np.stack([sign * (0.150 + 0.022 * np.sin(t)), 0.045 * np.cos(t), 0.098 + 0.05 * np.sin(t)], -1)
        tube("handle", handle + centre, 0.003, wire, 10)


def _fruit() -> None:
    peel = material(
        "orange", paint.soften(paint.speckled((0.93, 0.47, 0.07), (0.80, 0.36, 0.04), 0.5), PEEL), 0.45, coat=0.1
    )
    zest = material(
        "lemon", paint.soften(paint.speckled((0.95, 0.80, 0.16), (0.84, 0.66, 0.10), 0.5), PEEL), 0.45, coat=0.1
    )
    skin = material("apple", paint.soften(paint.apple(), PEEL), 0.35, coat=0.2)
    stem = material("stalk", paint.plaster((0.27, 0.19, 0.10)), 0.7)
    orange = [
        (0, -0.037),
        (0.018, -0.034),
        (0.037, -0.012),
        (0.040, 0.0),
        (0.037, 0.014),
        (0.018, 0.034),
        (0.005, 0.035),
        (0, 0.033),
    ]
    lemon = [
        (0, -0.046),
        (0.006, -0.042),
        (0.020, -0.028),
        (0.030, 0.0),
        (0.022, 0.026),
        (0.009, 0.038),
        (0.005, 0.046),
        (0, 0.047),
    ]
    apple = [
        (0, -0.028),
        (0.014, -0.034),
        (0.034, -0.014),
        (0.040, 0.008),
        (0.030, 0.031),
        (0.014, 0.035),
        (0.004, 0.026),
        (0, 0.024),
    ]
    # Kind, place and two tilts of each fruit; the first eight lie in the basket.
    for kind, at, tilt in (
        ("orange", (0.125, -0.125, 0.058), (0.5, 0.3)),
        ("apple", (0.020, -0.110, 0.058), (0.3, -0.4)),
        ("lemon", (0.055, -0.205, 0.050), (1.4, 0.2)),
        ("orange", (0.020, -0.185, 0.062), (-0.4, 0.6)),
        ("apple", (0.118, -0.200, 0.062), (-0.5, 0.3)),
        ("lemon", (0.080, -0.065, 0.056), (1.5, 1.2)),
        ("orange", (0.068, -0.150, 0.108), (0.9, 0.2)),
        ("lemon", (0.118, -0.162, 0.110), (1.3, 0.8)),
        ("apple", (0.330, -0.170, 0.034), (0.05, 0.1)),
        ("lemon", (0.365, -0.055, 0.030), (1.5, 0.9)),
    ):
        profile, look = {"orange": (orange, peel), "lemon": (lemon, zest), "apple": (apple, skin)}[kind]
        parts = [revolve(kind, profile, (0, 0, 0), look, 48)]
        if kind == "apple":
            bend = smooth_curve(np.array([[0, 0, 0.024], [0.002, 0, 0.036], [0.008, 0.002, 0.047]]), 6)
            parts.append(tube("stalk", bend, 0.0016, stem, 8))
        for part in parts:
            part.location, part.rotation_euler = at, (tilt[0], 0, tilt[1] * 3)


def _mug() -> None:
    clay = material("stoneware", paint.soften(paint.stoneware(), (0.27, 0.24)), 0.3, coat=0.4)
    profile = [
        (0, 0.003),
        (0.034, 0.0),
        (0.040, 0.010),
        (0.044, 0.05),
        (0.043, 0.092),
        (0.0405, 0.095),
        (0.039, 0.09),
        (0.039, 0.02),
        (0.0, 0.014),
    ]
    at = np.array([-0.25, -0.30, 0.0])
    revolve("mug", profile, tuple(at), clay)
    t = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 25)
    aim = math.radians(-20)
    arm = 0.040 + 0.030 * np.cos(t)
    handle = np.stack([arm * math.cos(aim), arm * math.sin(aim), 0.048 + 0.030 * np.sin(t)], -1)
    tube("mug handle", handle + at, 0.0055, clay, 14)


def _candle() -> None:
    brass = material("brass", paint.hammered((0.86, 0.66, 0.32)), 0.35, metallic=1.0)
    wax = material("wax", paint.plaster((0.90, 0.84, 0.70)), 0.5)
    wick = material("wick", paint.plaster((0.10, 0.09, 0.08)), 0.9)
    profile = [(0, 0.002), (0.055, 0.0), (0.057, 0.008), (0.040, 0.016), (0.012, 0.028), (0.010, 0.06), (0.020, 0.075)]
    profile += [
        (0.009, 0.09),
        (0.008, 0.14),
        (0.018, 0.155),
        (0.010, 0.165),
        (0.030, 0.182),
        (0.031, 0.186),
        (0.012, 0.184),
    ]
    revolve("candlestick", [*profile, (0.014, 0.2), (0.0, 0.2)], (0.05, 0.26, 0), brass)
    revolve(
        "candle",
        [(0.011, 0.19), (0.0108, 0.25), (0.0105, 0.325), (0.008, 0.329), (0.0, 0.324)],
        (0.05, 0.26, 0),
        wax,
        32,
    )
    tube("wick", np.array([[0.05, 0.26, 0.322], [0.05, 0.26, 0.33], [0.0515, 0.2605, 0.338]]), 0.0011, wick, 8)


def _jug() -> None:
    copper = material("copper", paint.soften(paint.hammered((0.92, 0.56, 0.40)), (0.36, 0.26)), 0.38, metallic=1.0)
    at = np.array([-0.36, 0.0, 0.0])
    profile = [
        (0, 0.003),
        (0.045, 0.0),
        (0.060, 0.03),
        (0.062, 0.06),
        (0.042, 0.11),
        (0.036, 0.135),
        (0.046, 0.16),
        (0.044, 0.161),
        (0.034, 0.135),
        (0.038, 0.1),
    ]
    revolve("jug", profile, tuple(at), copper)
    grip = np.array([[0.040, 0.148], [0.075, 0.150], [0.090, 0.11], [0.078, 0.07], [0.058, 0.055]])
    curve, aim = smooth_curve(grip, 8), math.radians(-75)
    path = np.stack([curve[:, 0] * math.cos(aim), curve[:, 0] * math.sin(aim), curve[:, 1]], -1)
    tube("jug handle", path + at, 0.0045, copper, 12)


def _lights() -> None:
    sky = bpy.data.worlds.new("sky")
    bpy.context.scene.world = sky
    sky.use_nodes = True
    nodes, links = sky.node_tree.nodes, sky.node_tree.links
    picture = nodes.new("ShaderNodeTexEnvironment")
    folder = Path(bpy.utils.system_resource("DATAFILES", path="studiolights/world"))
    picture.image = bpy.data.images.load(str(folder / "interior.exr"))
    links.new(picture.outputs["Color"], nodes["Background"].inputs["Color"])
    nodes["Background"].inputs["Strength"].default_value = 0.8
    lamp = bpy.data.lights.new("window", "AREA")
    lamp.energy, lamp.size, lamp.color = 75, 0.9, (1.0, 0.93, 0.82)
    holder = bpy.data.objects.new("window", lamp)
    holder.location = (0.6, -2.4, 1.9)
    holder.rotation_euler = (-Vector(holder.location)).to_track_quat("-Z", "Y").to_euler()
    bpy.context.scene.collection.objects.link(holder)
