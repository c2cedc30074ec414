"""Step sizes of the "context" codec: how exact each number of a splat has to be, from tables of the file.

A splat has two classes, for shape and for colour: one class more asks for steps half as large. Step sizes are indices,
a quarter of an octave apart, 64 = one unit. Everything is integers: encoder and decoder must agree on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

N_CLASSES = 16
STEP_COUNT, STEP_ONE = 128, 64
# The finest step of the Gibbs vector, 2^-14.
MIN_TURN_STEP = 8
# Anisotropies in bins of half a natural logarithm; log scales in bins of one, from -16 on.
N_RATIO_BINS, RATIO_BIN = 12, 32768
N_SIZE_BINS, SIZE_BIN, SIZE_LOW = 24, 65536, -16 * 65536
FIXED_ONE = 65536
POSITION_BITS = 30
# Turning about axis k (axes from long to short) mixes the other two.
MIXED_AXES = ((1, 2), (0, 2), (0, 1))


@dataclass(frozen=True)
class StepTables:
    """Step indices.

    Attributes:
        opacity: Of the logarithm of opacity, by shape class. [16]
        scale: Of the three log scales, long to short, by shape class. [3, 16]
        turn: Of the Gibbs vector about the three axes, by shape class. [3, 16]
        turn_ratio: Added by the anisotropy of the two axes that the turn mixes. [3, 12]
        position: Of the centre, 64 = the whole cube, by shape class. [16]
        position_size: Added by the middle log scale. [24]
        color: Of Y Co Cg, by colour class. [3, 16]
        sh: Of the rotated coefficients of the higher degrees, by colour class. [16]
    """

    opacity: np.ndarray
    scale: np.ndarray
    turn: np.ndarray
    turn_ratio: np.ndarray
    position: np.ndarray
    position_size: np.ndarray
    color: np.ndarray
    sh: np.ndarray


SHAPES = {
    "opacity": (N_CLASSES,),
    "scale": (3, N_CLASSES),
    "turn": (3, N_CLASSES),
    "turn_ratio": (3, N_RATIO_BINS),
    "position": (N_CLASSES,),
    "position_size": (N_SIZE_BINS,),
    "color": (3, N_CLASSES),
    "sh": (N_CLASSES,),
}


def ratio_bins(scales: np.ndarray) -> np.ndarray:
    """Bins of the anisotropy that each turn meets. [N, 3] fixed point, long to short -> [N, 3]"""
    wide = scales.astype(np.int64)
    ratios = np.stack([wide[:, i] - wide[:, j] for i, j in MIXED_AXES], axis=1)
    return np.clip(np.abs(ratios) // RATIO_BIN, 0, N_RATIO_BINS - 1)


def size_bins(scales: np.ndarray) -> np.ndarray:
    """Bins of the middle log scale. [N, 3] -> [N]"""
    return np.clip((scales[:, 1].astype(np.int64) - SIZE_LOW) // SIZE_BIN, 0, N_SIZE_BINS - 1)


def opacity_steps(tables: StepTables, shape_class: np.ndarray) -> np.ndarray:  # [N] -> [N, 1]
    return _bytes(tables.opacity[shape_class])[:, None]


def scale_steps(tables: StepTables, shape_class: np.ndarray) -> np.ndarray:  # [N] -> [N, 3]
    return _bytes(tables.scale[:, shape_class].T)


def turn_steps(tables: StepTables, shape_class: np.ndarray, scales: np.ndarray) -> np.ndarray:  # -> [N, 3]
    by_ratio = np.take_along_axis(tables.turn_ratio.T, ratio_bins(scales), axis=0)
    return _bytes(tables.turn[:, shape_class].T + by_ratio, MIN_TURN_STEP)


def position_levels(tables: StepTables, shape_class: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """How often the cube is halved until a centre is exact enough, to the nearest. [N] 0..30"""
    index = tables.position[shape_class] + tables.position_size[size_bins(scales)]
    return np.clip((STEP_ONE - index + 2) // 4, 0, POSITION_BITS)


def color_steps(tables: StepTables, color_class: np.ndarray) -> np.ndarray:  # [N] -> [N, 3]
    return _bytes(tables.color[:, color_class].T)


def sh_steps(tables: StepTables, color_class: np.ndarray, n_columns: int) -> np.ndarray:  # [N] -> [N, n_columns]
    return np.repeat(_bytes(tables.sh[color_class])[:, None], n_columns, axis=1)


def step_size(index: np.ndarray) -> np.ndarray:
    """Step sizes as numbers, for planning; the coder has its own in fixed point."""
    return 2.0 ** ((index - STEP_ONE) / 4)


def _bytes(indices: np.ndarray, low: int = 0) -> np.ndarray:
    return np.ascontiguousarray(np.clip(indices, low, STEP_COUNT - 1).astype(np.uint8))
