"""Procedural textures of the sample scene, as plain arrays.

Every public function returns sRGB-encoded colours in [0, 1], shape [H, W, 3], row 0 at v = 0 (the bottom of the image,
as Blender stores it). Nothing is random except through seeds, so the same call gives the same bytes.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

SHARPNESS = 0.0016
"""Blur of all textures, metres: details of less than about three pixels, 7 mm, fade out."""


def noise(x: Array, y: Array, seed: int = 0) -> Array:
    """Evaluate smooth value noise of period-free integer lattices at (x, y), in [0, 1]."""
    ix, iy = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = x - ix, y - iy
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    low = _hash(ix, iy, seed) * (1 - fx) + _hash(ix + 1, iy, seed) * fx
    high = _hash(ix, iy + 1, seed) * (1 - fx) + _hash(ix + 1, iy + 1, seed) * fx
    return low * (1 - fy) + high * fy


def fbm(x: Array, y: Array, octaves: int = 4, seed: int = 0) -> Array:
    """Sum octaves of noise with halving amplitude, in [0, 1]."""
    total = sum(noise(x * 2**i, y * 2**i, seed + i) / 2**i for i in range(octaves))
    return total / (2 - 2 / 2**octaves)


def wood(u: Array, v: Array, tone: Array, seed: int = 0) -> Array:
    """Colour wood whose grain runs along u.

    Args:
        u: Position along the grain, metres. [H, W]
        v: Position across the grain, metres. [H, W]
        tone: 0 for dark to 1 for light planks. [H, W]
        seed: Seed of the grain.

    Returns:
        Colours. [H, W, 3]
    """
    bend = fbm(u * 1.7, v * 9, 3, seed)
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (v * 38 + 7 * bend))
    fibres = fbm(u * 9, v * 130, 2, seed + 9)
    pores = _step(0.72, 0.85, noise(u * 14, v * 190, seed + 17))
    light = 0.25 + 0.3 * rings**2 + 0.3 * fibres + 0.3 * (tone - 0.5) + 0.25 * (bend - 0.5)
    colour = mix(rgb(0.36, 0.21, 0.11), rgb(0.80, 0.58, 0.36), light)
    return colour * (1 - 0.26 * pores[..., None])


def table_top(size: int = 2048, planks: int = 7, width: float = 1.2) -> Array:
    """Draw glued planks along u for a square top of the given width in metres."""
    u, v = _grid(size)
    plank = np.floor(v * planks)
    across = v * planks - plank
    tone = _hash(plank.astype(np.int64), plank.astype(np.int64), 5)
    colour = wood(u * width + plank * 3.7, v * width + plank * 1.3, tone, 11)
    return colour * (1 - 0.6 * _seam(across, 0.012))[..., None]


def parquet(size: int = 2048, strips: int = 24, width: float = 3.6) -> Array:
    """Draw a basket-weave parquet of square tiles, strips alternating in direction."""
    u, v = _grid(size)
    tiles = strips // 3
    turned = (np.floor(u * tiles) + np.floor(v * tiles)) % 2 > 0
    a, b = np.where(turned, v, u), np.where(turned, u, v)
    strip = np.floor(b * strips).astype(np.int64)
    tile = np.floor(a * tiles).astype(np.int64)
    tone = _hash(strip, tile * 7 + turned, 3)
    colour = wood(a * width + tone * 9, b * width + strip * 0.37, tone, 23) * rgb(0.82, 0.74, 0.68)
    gap = np.maximum(_seam(b * strips, 0.03), _seam(a * tiles, 0.01))
    return colour * (1 - 0.65 * gap)[..., None]


def limewash(size: int = 1024) -> Array:
    """Draw a wall washed with lime colour: clouds, and the broad strokes of the brush across them."""
    u, v = _grid(size)
    clouds = fbm(u * 14, v * 16, 4, 42)
    strokes = fbm(u * 44 + 3 * clouds, v * 120 + 9 * clouds, 2, 41)
    weight = np.clip(0.5 + 1.5 * (clouds - 0.5) + 0.5 * (strokes - 0.5), 0, 1)
    return mix(rgb(0.25, 0.37, 0.39), rgb(0.42, 0.55, 0.54), weight)


def kilim(width: int = 768, height: int = 2048) -> Array:
    """Draw a woven runner: stepped diamonds in bands, with visible warp and weft."""
    u, v = _grid(height, width)
    nx, ny = 96, 256
    # Two knots by two make one step: what is finer vanishes between pixels.
    cx, cy = 2 * np.floor(u * nx / 2) + 0.5, 2 * np.floor(v * ny / 2) + 0.5
    band = np.floor(cy / 32).astype(np.int64)
    px, py = np.abs((cx % 24) - 11.5), np.abs((cy % 32) - 15.5)
    stepped = np.floor((px + 0.75 * py) / 3)
    palette = np.array(
        [
            [0.66, 0.16, 0.13],
            [0.93, 0.87, 0.73],
            [0.16, 0.24, 0.40],
            [0.87, 0.60, 0.22],
            [0.29, 0.42, 0.33],
            [0.48, 0.11, 0.14],
        ]
    )
    colour = palette[(stepped.astype(np.int64) + band * 2) % 6]
    stripe = (cy % 32 < 3) | (cy % 32 > 28)
    colour = np.where(stripe[..., None], palette[(band + (cx // 4).astype(np.int64)) % 2 * 2 + (band % 2)], colour)
    border = (cx < 6) | (cx >= nx - 6)
    colour = np.where(border[..., None], palette[np.where((cy // 4) % 2 > 0, 2, 1)], colour)
    wear = fbm(u * 14, v * 45, 3, 51)
    return colour * (0.82 + 0.28 * (wear - 0.3))[..., None]


def porcelain(width: int = 2048, height: int = 1024) -> Array:
    """Paint cobalt flowers, scrolls and bands on a white glaze; u runs round the vase and closes."""
    u, v = _grid(height, width)
    blue, white = rgb(0.08, 0.15, 0.45), rgb(0.93, 0.94, 0.93)
    brush = 0.75 + 0.5 * (fbm(np.sin(2 * np.pi * u) * 30 + 40, v * 60 + np.cos(2 * np.pi * u) * 30 + 40, 3, 61) - 0.5)
    ink = np.zeros_like(u)
    for low, high, count in ((0.24, 0.56, 8), (0.56, 0.74, 12)):
        inside = (v > low) & (v < high)
        t = (v - low) / (high - low) - 0.5
        cell = np.floor(u * count)
        x = u * count - cell - 0.5
        flip = np.where(cell % 2 > 0, 1.0, -1.0)
        radius, angle = np.hypot(x, t + 0.1 * flip), np.arctan2(t + 0.1 * flip, x)
        rim = 0.27 + 0.07 * np.cos(8 * angle)
        flower = (radius < rim) * (0.35 + 0.65 * _step(0.1, 0.26, radius) * (0.6 + 0.4 * np.cos(16 * angle)))
        flower = np.maximum(flower, _line((radius - rim) / 0.4, 0.05))
        stem = np.abs(t - 0.38 * np.sin(2 * np.pi * u * count * 0.5) * flip) < 0.03
        curl = (np.abs(np.hypot(np.abs(x) - 0.42, t - 0.3 * flip) - 0.1) < 0.025) * 0.9
        ink = np.where(
            inside, np.maximum.reduce([ink, flower, stem * 0.8 * (radius > rim), curl * (radius > rim)]), ink
        )
    wave = (0.5 + 0.5 * np.sin(2 * np.pi * u * 40)) * 0.05
    petals = (v < 0.22) & (v > 0.04) & (np.abs(np.sin(np.pi * u * 18)) > 1.15 - (v - 0.02) / 0.2)
    ink = np.maximum.reduce(
        [
            ink,
            petals * 0.85,
            (v > 0.78) & (v - 0.80 < wave),
            _line((v - 0.23) / 0.1, 0.1),
            _line((v - 0.76) / 0.1, 0.06),
        ]
    )
    ink = np.maximum(ink, _line((v - 0.95) / 0.1, 0.15))
    return mix(white, blue, ink * brush)


def book_cover(
    base: tuple[float, float, float], accent: tuple[float, float, float], style: int, size: int = 768
) -> Array:
    """Print a cloth cover: 0 fans, 1 stars on a grid, 2 marbled waves; with a framed border."""
    u, v = _grid(size)
    x, y = u * 12, v * 12
    if style == 0:
        shift = np.floor(y * 2) % 2 * 0.5
        radius = np.hypot(x - shift - np.round(x - shift), y - np.floor(y * 2) / 2)
        pattern = _step(0.4, 0.6, 0.5 + 0.5 * np.sin(radius * 38))
    elif style == 1:
        fx, fy = np.abs(x - np.round(x)), np.abs(y - np.round(y))
        pattern = np.maximum(np.maximum(fx, fy) > 0.46, (fx * fy < 0.012) & (np.hypot(fx, fy) < 0.36)) * 1.0
    else:
        flow = fbm(u * 6, v * 6, 4, 71)
        pattern = _step(-0.2, 0.2, np.sin(40 * flow + 9 * v))
    inset = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v))
    pattern = np.where(inset < 0.05, 0, pattern)
    pattern = np.maximum(pattern, _line((inset - 0.03) / 0.1, 0.05))
    cloth = 0.84 + 0.3 * (noise(u * 380, v * 90, 3) * noise(u * 90, v * 380, 4))
    return np.clip(mix(rgb(*base), rgb(*accent), pattern * 0.9) * cloth[..., None], 0, 1)


def spine(base: tuple[float, float, float], accent: tuple[float, float, float], seed: int) -> Array:
    """Print a spine: bands and a row of letter-like marks along u."""
    u, v = _grid(128, 768)
    bands = np.maximum.reduce([_line((u - at) / 0.1, 0.08) for at in (0.06, 0.12, 0.88, 0.94)])
    cell = np.floor(u * 36).astype(np.int64)
    inside = (u > 0.24) & (u < 0.76) & (np.abs(v - 0.5) < 0.17) & (_hash(cell, cell, seed) > 0.15)
    x, y = np.floor((u * 36 - cell) * 4).astype(np.int64), np.floor((v - 0.33) / 0.34 * 5).astype(np.int64)
    marks = inside & (x < 3) & (_hash(cell * 4 + x, y, seed) > 0.42)
    cloth = 0.86 + 0.28 * noise(u * 500, v * 70, seed)
    return np.clip(mix(rgb(*base), rgb(*accent), np.maximum(bands, marks)) * cloth[..., None], 0, 1)


def pages() -> Array:
    """Draw the edges of a block of paper, sheets stacked along v."""
    u, v = _grid(256, 512)
    return rgb(0.90, 0.85, 0.73) * (0.72 + 0.3 * noise(u * 3, v * 90, 81) + 0.08 * noise(u * 90, v * 40, 82))[..., None]


def painting(seed: int, width: int = 1024, height: int = 768) -> Array:
    """Paint a landscape: a warm sky, a sun, and ridges that darken towards the viewer."""
    u, v = _grid(height, width)
    strokes = fbm(u * 60, v * 200, 3, seed)
    colour = mix(rgb(0.93, 0.72, 0.45), rgb(0.36, 0.52, 0.66), np.clip(v * 1.3 - 0.3 + 0.3 * (strokes - 0.5), 0, 1))
    sun = np.hypot((u - (0.66 if seed % 2 else 0.30)) * width / height, v - 0.68)
    colour = mix(colour, rgb(0.98, 0.90, 0.70), 1 - _step(0.09, 0.11, sun))
    for layer in range(5):
        ridge = 0.62 - 0.12 * layer + 0.22 * (fbm(u * (2 + layer) + 7 * layer + seed, u * 0, 5, seed + layer) - 0.5)
        tint = mix(rgb(0.55, 0.58, 0.62), rgb(0.12, 0.24, 0.17), np.full_like(u, layer / 4) + 0.35 * (strokes - 0.5))
        colour = mix(colour, tint, 1 - _step(-0.003, 0.003, v - ridge))
    return np.clip(colour * (0.8 + 0.4 * strokes)[..., None], 0, 1)


def leaf(dark: tuple[float, float, float], light: tuple[float, float, float]) -> Array:
    """Draw a leaf or petal with a midrib along u and side veins."""
    u, v = _grid(128, 256)
    veins = _seam((np.abs(v - 0.5) - u) * 9, 0.1) * 0.5
    veins = np.maximum(veins, np.abs(v - 0.5) < 0.03)
    return mix(rgb(*dark), rgb(*light), np.clip(0.6 * fbm(u * 8, v * 5, 4, 91) + 0.5 * veins, 0, 1))


def speckled(
    base: tuple[float, float, float], spots: tuple[float, float, float], density: float, size: int = 512
) -> Array:
    """Draw a mottled base with fine spots, e.g. peel or stoneware; density is the share of spotted cells."""
    u, v = _grid(size)
    mottle = fbm(u * 12, v * 8, 4, 31)
    spot = _step(0.97 - density, 1.0 - density * 0.6, noise(u * 90, v * 60, 32))
    return np.clip(mix(rgb(*base) * (0.8 + 0.4 * mottle)[..., None], rgb(*spots), spot), 0, 1)


def apple() -> Array:
    """Draw apple skin: red streaks over yellow, u round the fruit and v from base to stem."""
    u, v = _grid(512, 1024)
    streak = fbm(np.cos(2 * np.pi * u) * 3 + 9, np.sin(2 * np.pi * u) * 3 + 9, 3, 33) + 0.22 * (
        noise(u * 160, v * 4, 34) - 0.5
    )
    colour = mix(rgb(0.84, 0.70, 0.28), rgb(0.66, 0.10, 0.10), _step(0.20, 0.62, streak + 0.2 * (v - 0.5)))
    dots = _step(0.86, 0.95, noise(u * 110, v * 60, 35))
    return mix(mix(colour, rgb(0.93, 0.82, 0.55), dots * 0.6), rgb(0.55, 0.56, 0.22), _step(0.86, 1.0, v))


def stoneware() -> Array:
    """Draw a mug's glaze: speckled cream below, zigzags, a running blue-green dip above."""
    u, v = _grid(512, 1024)
    cream = speckled((0.88, 0.82, 0.70), (0.35, 0.22, 0.14), 0.16, 1024)[::2]
    zig = np.abs(u * 16 - np.round(u * 16)) * 2
    for at in (0.16, 0.24, 0.32):
        cream = mix(cream, rgb(0.50, 0.22, 0.14), 1 - _step(0.010, 0.016, np.abs(v - at - 0.06 * zig)))
    drip = 0.58 + 0.16 * (fbm(np.cos(2 * np.pi * u) * 5 + 9, np.sin(2 * np.pi * u) * 5 + 9, 3, 36) - 0.5)
    glaze = mix(rgb(0.06, 0.27, 0.32), rgb(0.33, 0.58, 0.55), fbm(u * 24, v * 14, 4, 37))
    return mix(cream, glaze, _step(-0.01, 0.01, v - drip))


def hammered(colour: tuple[float, float, float], size: int = 512) -> Array:
    """Draw beaten metal: a cell pattern that also serves as its height."""
    u, v = _grid(size)
    cell = noise(u * 30, v * 14, 38)
    return np.clip(rgb(*colour) * (0.72 + 0.35 * cell + 0.15 * fbm(u * 60, v * 60, 3, 39))[..., None], 0, 1)


def plaster(colour: tuple[float, float, float], size: int = 512) -> Array:
    """Draw a painted, slightly worn surface."""
    u, v = _grid(size)
    return np.clip(rgb(*colour) * (0.86 + 0.28 * fbm(u * 20, v * 20, 5, 40))[..., None], 0, 1)


def soften(colours: Array, size: tuple[float, float], sigma: float = SHARPNESS) -> Array:
    """Remove detail finer than a camera at the distance of ours resolves, by a Gaussian blur across the borders.

    Args:
        colours: Texture. [H, W, 3]
        size: Width and height of one repeat on its surface, metres.
        sigma: Of the blur, metres.

    Returns:
        The texture, band-limited. [H, W, 3]
    """
    height, width = colours.shape[:2]
    across, along = np.fft.rfftfreq(width, size[0] / width), np.fft.fftfreq(height, size[1] / height)
    gain = np.exp(-2 * (np.pi * sigma) ** 2 * (across[None] ** 2 + along[:, None] ** 2))
    spectrum = np.fft.rfft2(colours, axes=(0, 1))
    return np.clip(np.fft.irfft2(spectrum * gain[..., None], s=(height, width), axes=(0, 1)), 0, 1)


def rgb(red: float, green: float, blue: float) -> Array:
    """Make a colour that broadcasts over an image."""
    return np.array([red, green, blue])


def mix(first: Array, second: Array, weight: Array) -> Array:
    """Blend two colours by a weight map, clamped to [0, 1]."""
    weight = np.clip(weight, 0, 1)
    weight = weight if weight.ndim == 3 else weight[..., None]
    return first * (1 - weight) + second * weight


def _grid(height: int, width: int | None = None) -> tuple[Array, Array]:
    width = width or height
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    return u, v


def _hash(ix: Array, iy: Array, seed: int) -> Array:
    mixed = (ix * 374761393 + iy * 668265263 + seed * 1442695041) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((mixed ^ (mixed >> 16)) & 0xFFFF) / 65535.0


def _step(low: float, high: float, x: Array) -> Array:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _line(x: Array, half_width: float) -> Array:
    """One where x is near zero, with a soft edge."""
    return 1 - _step(half_width * 0.6, half_width, np.abs(x))


def _seam(x: Array, half_width: float) -> Array:
    """One where x is near any integer, with a soft edge."""
    return _line(x - np.round(x), half_width)
