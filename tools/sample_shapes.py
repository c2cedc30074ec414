"""Meshes and materials of the sample scene: parametric surfaces with UVs, made into Blender objects.

World axes: x right, y back, z up, metres; the table's surface is z = 0. All surfaces are grids of points [U, V, 3]
with texture coordinates running from 0 to 1 along both sides, or boxes with metric texture coordinates.
"""

from __future__ import annotations

import math

import bpy
import numpy as np

Array = np.ndarray
Point = tuple[float, float, float]


def material(
    name: str,
    colours: Array,
    roughness: float = 0.5,
    metallic: float = 0.0,
    coat: float = 0.0,
    bump: float = 0.0,
) -> bpy.types.Material:
    """Make a material from a texture.

    Args:
        name: Name of the material and its image.
        colours: sRGB-encoded texture, row 0 at v = 0. [H, W, 3]
        roughness: 0 for a mirror to 1 for chalk.
        metallic: 1 for metal.
        coat: Weight of a clear glaze on top.
        bump: Height in metres of white over black, read from the texture's brightness.

    Returns:
        The material.
    """
    height, width = colours.shape[:2]
    image = bpy.data.images.new(name, width, height)
    image.pixels.foreach_set(np.dstack([colours, np.ones((height, width))]).astype(np.float32).ravel())
    image.pack()
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    nodes, links = made.node_tree.nodes, made.node_tree.links
    surface = nodes["Principled BSDF"]
    texture = nodes.new("ShaderNodeTexImage")
    texture.image = image
    links.new(texture.outputs["Color"], surface.inputs["Base Color"])
    values = {"Roughness": roughness, "Metallic": metallic, "Coat Weight": coat, "Coat Roughness": 0.04}
    for socket, value in values.items():
        surface.inputs[socket].default_value = value
    if bump:
        relief = nodes.new("ShaderNodeBump")
        relief.inputs["Distance"].default_value = bump
        links.new(texture.outputs["Color"], relief.inputs["Height"])
        links.new(relief.outputs["Normal"], surface.inputs["Normal"])
    return made


def surface(
    name: str, points: Array, look: bpy.types.Material, repeat: tuple[float, float] = (1, 1)
) -> bpy.types.Object:
    """Make an object from a grid of points.

    Args:
        name: Name of the object.
        points: Grid, world units. [U, V, 3]
        look: Its material.
        repeat: How often the texture repeats along both sides.

    Returns:
        The object, smooth-shaded.
    """
    n_u, n_v = points.shape[:2]
    index = np.arange(n_u * n_v).reshape(n_u, n_v)
    corners = [index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]]
    faces = np.stack(corners, -1).reshape(-1, 4)
    u, v = np.meshgrid(np.linspace(0, repeat[0], n_u), np.linspace(0, repeat[1], n_v), indexing="ij")
    return _object(name, points.reshape(-1, 3), faces, np.stack([u, v], -1).reshape(-1, 2)[faces].reshape(-1, 2), look)


def box(
    name: str, size: Point, centre: Point, look: bpy.types.Material, tile: tuple[float, float], bevel: float = 0.002
) -> bpy.types.Object:
    """Make a box with rounded edges; the texture is projected on each face, tile metres for one repeat."""
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    corners = signs * np.array(size) / 2
    faces = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    planes = ((1, 2), (1, 2), (0, 2), (0, 2), (0, 1), (0, 1))
    uvs = np.concatenate([corners[face][:, plane] / tile + 0.5 for face, plane in zip(faces, planes, strict=True)])
    made = _object(name, corners, faces, uvs, look, smooth=False)
    made.location = centre
    rounding = made.modifiers.new("bevel", "BEVEL")
    rounding.width, rounding.segments = bevel, 2
    return made


def revolve(
    name: str, profile: list[tuple[float, float]], at: Point, look: bpy.types.Material, segments: int = 72
) -> bpy.types.Object:
    """Turn a profile of (radius, height) control points, joined by a smooth curve, round the vertical axis."""
    radius, height = smooth_curve(np.array(profile), 12).T
    angle = np.linspace(0, 2 * np.pi, segments + 1)[:, None]
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle), height + 0 * angle], -1)
    return surface(name, points + np.array(at), look)


def tube(name: str, path: Array, radius: float | Array, look: bpy.types.Material, sides: int = 10) -> bpy.types.Object:
    """Sweep a circle along a path [P, 3]; the radius may vary along it."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    # The axis least along the whole path gives a frame that never degenerates on our nearly planar paths.
    axis = np.eye(3)[np.argmin(np.abs(tangent).max(0))]
    side = np.cross(tangent, axis)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, tangent)
    angle = np.linspace(0, 2 * np.pi, sides + 1)[None, :, None]
    width = np.broadcast_to(radius, len(path))[:, None, None]
    points = path[:, None] + width * (np.cos(angle) * side[:, None] + np.sin(angle) * up[:, None])
    return surface(name, points, look, (max(1.0, len(path) / 8), 1))


def blade(
    name: str, root: Array, direction: Array, length: float, width: float, droop: float, look: bpy.types.Material
) -> bpy.types.Object:
    """Make a leaf or petal growing from root: pointed, folded along the midrib, bending down by droop."""
    direction = direction / np.linalg.norm(direction)
    side = np.cross(direction, [0, 0, 1.0])
    side /= max(np.linalg.norm(side), 1e-3)
    normal = np.cross(side, direction)
    t, s = np.linspace(0, 1, 11)[:, None, None], np.linspace(-1, 1, 7)[None, :, None]
    half = 0.5 * width * (0.06 + np.sin(np.pi * t**0.8) ** 0.8)
    bend = -droop * t**2 + 0.35 * half / length * np.abs(s)
    return surface(name, root + length * (t * direction + bend * normal) + s * half * side, look)


def smooth_curve(points: Array, steps: int) -> Array:
    """Interpolate control points by a Catmull-Rom spline with the given steps in each span; [P, D] to [M, D]."""
    padded = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    t = (np.arange(steps) / steps)[None, :, None]
    before, start, end, after = (padded[i : len(padded) - 3 + i, None] for i in range(4))
    cubic = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )
    return np.vstack([cubic.reshape(-1, points.shape[1]), points[-1:]])


def turn(objects: list[bpy.types.Object], at: Point, angle_deg: float) -> None:
    """Turn objects round the vertical axis and move them to a place."""
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    for made in objects:
        x, y, z = made.location
        made.location = (at[0] + cos * x - sin * y, at[1] + sin * x + cos * y, at[2] + z)
        made.rotation_euler[2] += math.radians(angle_deg)


def _object(
    name: str, points: Array, faces: Array, uvs: Array, look: bpy.types.Material, smooth: bool = True
) -> bpy.types.Object:
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(points.tolist(), [], faces.tolist())
    mesh.uv_layers.new(name="uv").data.foreach_set("uv", np.asarray(uvs, np.float32).ravel())
    mesh.polygons.foreach_set("use_smooth", [smooth] * len(faces))
    mesh.materials.append(look)
    made = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(made)
    return made
