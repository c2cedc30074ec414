"""Plan of the "context" codec: from sensitivities to classes and step sizes.

Where steps are small, an error of step^2 / 12 in a number of sensitivity w costs w step^2 / 12, and bits are spent best
where that is the same for all numbers (reverse water-filling): `distortion` says how much. Steps stand in tables by
class of importance, which the file carries; so does how far each column follows its neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from scene3d.compress.linear_rule import fit_rule
from scene3d.compress.sensitivity import Sensitivity
from scene3d.core.gaussians import Gaussians
from scene3d.io import s3d_context as codec
from scene3d.io import s3d_steps as steps
from scene3d.io.s3d_context import Arranged, Fixed, Frame
from scene3d.io.s3d_model import Rule
from scene3d.io.s3d_steps import FIXED_ONE, N_CLASSES, POSITION_BITS, STEP_ONE, StepTables
from scene3d.ops import quaternions

# Classes begin so many octaves of importance above the distortion; what is fainter is coded as coarsely, or pruned.
SHAPE_OCTAVE, COLOR_OCTAVE = 1.0, -1.0
# Groups with fewer members say too little of their own.
MIN_MEMBERS = 20
# Longer steps in logarithms and turns leave the range in which errors grow with the derivative.
MAX_LOG_STEP, MAX_TURN_STEP = STEP_ONE, STEP_ONE
MAX_RATIO_STEP = 16
MIN_OPACITY, MAX_LOG_SCALE = 1e-4, 30.0
# Axes of Y Co Cg in RGB have these squared lengths.
LUMA_WEIGHTS = (3.0, 2.0, 3.0)
# Directions of spherical harmonics that hold less than this share of a step's own error are left out.
MIN_SH_SHARE = 0.5
BASIS_ONE = 2**14
FIT_ROUNDS = 3


@dataclass(frozen=True)
class Plan:
    """What the encoder needs.

    Attributes:
        arranged: Splats in their order.
        frame: Numbers of the header.
        tables: Step sizes.
        rules: How columns are predicted, by stream.
    """

    arranged: Arranged
    frame: Frame
    tables: StepTables
    rules: dict[str, Rule]


def make_plan(gaussians: Gaussians, sensitivity: Sensitivity, distortion: float, depth: int) -> Plan:
    """Choose classes and steps.

    Args:
        gaussians: What to code, finite.
        sensitivity: Of its numbers.
        distortion: Mean square error that each number may add to the images.
        depth: Of the octree.
    """
    order = gaussians.log_scales.argsort(dim=1, descending=True, stable=True)
    weights = _Weights(sensitivity, order)
    shape_class = _classes(weights.shape, distortion, SHAPE_OCTAVE)
    color_class = _classes(weights.color, distortion, COLOR_OCTAVE)
    low, size = _cube(gaussians.means)
    basis, coordinates = _sh_basis(gaussians, sensitivity, weights.color, color_class, distortion)
    scales = gaussians.log_scales.gather(1, order).double().numpy().clip(-MAX_LOG_SCALE, MAX_LOG_SCALE)
    positions = ((gaussians.means.double().numpy() - low) * (2**POSITION_BITS / size)).astype(np.int64)
    fixed = Fixed(
        positions=positions.clip(0, 2**POSITION_BITS - 1),
        classes=_fixed(np.stack([shape_class, color_class], axis=1)),
        opacity=_fixed(gaussians.opacities.double().numpy().clip(MIN_OPACITY, 1)[:, None], np.log),
        scales=_fixed(scales),
        quats=_sorted_quats(gaussians.quats, order),
        color=_fixed(_luma(gaussians.sh0[:, 0].double().numpy())),
        sh=_fixed(coordinates),
        basis=basis,
    )
    tables = _tables(weights, fixed, shape_class, color_class, distortion, size)
    arranged = codec.arrange(fixed, depth)
    frame = Frame(depth, tuple(low.tolist()), size, gaussians.sh_degree)
    return Plan(arranged, frame, tables, _rules(arranged, tables))


def with_colors(plan: Plan, gaussians: Gaussians) -> Plan:
    """The plan of what is decoded, with other opacities and colours: shapes then code to themselves.

    Args:
        plan: One that was encoded.
        gaussians: In the order of the plan.
    """
    fixed = plan.arranged.fixed
    # Rows of the basis span what is kept; coordinates are found by least squares.
    basis = fixed.basis / BASIS_ONE
    rest = gaussians.shN.double().flatten(1).numpy()
    recolored = replace(
        fixed,
        opacity=_fixed(gaussians.opacities.double().numpy().clip(MIN_OPACITY, 1)[:, None], np.log),
        color=_fixed(_luma(gaussians.sh0[:, 0].double().numpy())),
        sh=_fixed(np.linalg.lstsq(basis.T, rest.T, rcond=None)[0].T) if len(basis) else fixed.sh,
    )
    return replace(plan, arranged=replace(plan.arranged, fixed=recolored))


class _Weights:
    """Sensitivities as the codec sees them: axes sorted, [N] or [N, 3] float64."""

    def __init__(self, sensitivity: Sensitivity, order: torch.Tensor) -> None:
        self.position = sensitivity.means.double().mean(dim=1).numpy()
        self.scale = sensitivity.log_scales.gather(1, order).double().numpy()
        self.turn = sensitivity.turns.gather(1, order).double().numpy()
        self.opacity = sensitivity.log_opacity.double().numpy()
        self.color = sensitivity.color.double().numpy()
        self.shape = self.scale.sum(axis=1) + self.turn.sum(axis=1)


def _classes(weights: np.ndarray, distortion: float, octave: float) -> np.ndarray:  # [N] -> [N] int64
    octaves = 0.5 * np.log2(np.maximum(weights / distortion, 1e-9)) - octave
    return np.clip(np.round(octaves), 0, N_CLASSES - 1).astype(np.int64)


def _cube(means: torch.Tensor) -> tuple[np.ndarray, float]:
    """Corner and side, a power of two, of a cube around all centres."""
    if len(means) == 0:
        return np.zeros(3), 1.0
    values = means.double().numpy()
    low = values.min(axis=0)
    extent = float((values.max(axis=0) - low).max())
    return low, 2.0 ** math.ceil(math.log2(extent * (1 + 1e-9))) if extent > 0 else 1.0


def _sorted_quats(quats: torch.Tensor, order: torch.Tensor) -> np.ndarray:  # [N, 4] int32
    axes = quaternions.to_rotmat(quats.double()).gather(2, order[:, None, :].expand(-1, 3, -1)).clone()
    axes[torch.linalg.det(axes) < 0, :, 2] *= -1
    fixed = np.round(quaternions.from_rotmat(axes).numpy() * codec.QUAT_ONE)
    return np.ascontiguousarray(fixed.clip(-codec.QUAT_ONE, codec.QUAT_ONE - 1).astype(np.int32))


def _luma(rgb: np.ndarray) -> np.ndarray:  # [N, 3] -> Y Co Cg
    red, green, blue = rgb.T
    return np.stack([(red + 2 * green + blue) / 4, (red - blue) / 2, (2 * green - red - blue) / 4], axis=1)


def _fixed(values: np.ndarray, function: np.ufunc | None = None) -> np.ndarray:
    values = values if function is None else function(values)
    return np.ascontiguousarray(np.round(values.clip(-16000, 16000) * FIXED_ONE).astype(np.int32))


def _tables(
    weights: _Weights, fixed: Fixed, shape_class: np.ndarray, color_class: np.ndarray, distortion: float, size: float
) -> StepTables:
    def by_shape(values: np.ndarray) -> np.ndarray:
        return _fit(shape_class, values, distortion)

    turns, ratios = [], []
    bins = steps.ratio_bins(fixed.scales)
    for axis in range(3):
        turn, ratio = _fit_two(shape_class, bins[:, axis], steps.N_RATIO_BINS, weights.turn[:, axis], distortion)
        # The Gibbs vector is half of a small angle: an octave less.
        turns.append(np.minimum(_index(turn - 4), MAX_TURN_STEP))
        ratios.append(np.minimum(_index(ratio) - STEP_ONE, MAX_RATIO_STEP))
    in_cube = weights.position * size**2
    position, by_size = _fit_two(shape_class, steps.size_bins(fixed.scales), steps.N_SIZE_BINS, in_cube, distortion)
    color = _fit(color_class, weights.color, distortion)
    return StepTables(
        opacity=np.minimum(_index(by_shape(weights.opacity)), MAX_LOG_STEP),
        scale=np.minimum(np.stack([_index(by_shape(weights.scale[:, k])) for k in range(3)]), MAX_LOG_STEP),
        turn=np.stack(turns),
        turn_ratio=np.stack(ratios),
        position=_index(position),
        position_size=_index(by_size) - STEP_ONE,
        color=np.stack([_index(color - 2 * math.log2(weight)) for weight in LUMA_WEIGHTS]),
        sh=_index(color),
    )


def _index(octaves: np.ndarray) -> np.ndarray:
    """Quarter octaves above one unit as the index of a step."""
    limit = 2 * steps.STEP_COUNT
    return np.clip(np.round(octaves) + STEP_ONE, -limit, limit).astype(np.int64)


def _fit(classes: np.ndarray, weights: np.ndarray, distortion: float) -> np.ndarray:
    """Best step of each class, quarter octaves: mean(w) step^2 / 12 = distortion. Small classes follow the others."""
    count = np.bincount(classes, minlength=N_CLASSES)
    total = np.bincount(classes, weights, N_CLASSES)
    is_sound = (count >= MIN_MEMBERS) & (total > 0)
    falling = -4.0 * np.arange(N_CLASSES)
    if not is_sound.any():
        mean = total.sum() / max(len(classes), 1)
        return (2 * math.log2(12 * distortion / mean) if mean > 0 else 0.0) + falling - falling[_middle(classes)]
    found = 2 * np.log2(12 * distortion * count[is_sound] / total[is_sound])
    base = np.average(found - falling[is_sound], weights=count[is_sound])
    result = base + falling
    result[is_sound] = found
    return result


def _middle(classes: np.ndarray) -> int:
    return int(np.median(classes)) if len(classes) else 0


def _fit_two(
    classes: np.ndarray, bins: np.ndarray, n_bins: int, weights: np.ndarray, distortion: float
) -> tuple[np.ndarray, np.ndarray]:
    """Steps as a sum of two tables, by class and by bin, fitted in turn."""
    by_bin = np.zeros(n_bins)
    by_class = np.zeros(N_CLASSES)
    count = np.bincount(bins, minlength=n_bins)
    for _ in range(FIT_ROUNDS):
        by_class = _fit(classes, weights * 2 ** (by_bin[bins] / 2), distortion)
        left = np.bincount(bins, weights * 2 ** (by_class[classes] / 2) / (12 * distortion), n_bins)
        is_sound = (count >= MIN_MEMBERS) & (left > 0)
        by_bin[is_sound] = -2 * np.log2(left[is_sound] / count[is_sound])
    return by_class, by_bin


def _sh_basis(
    gaussians: Gaussians, sensitivity: Sensitivity, weights: np.ndarray, classes: np.ndarray, distortion: float
) -> tuple[np.ndarray, np.ndarray]:
    """Karhunen-Loeve basis of the higher degrees, weighted by what is seen, and coordinates. [M, 3 (K-1)], [N, M]"""
    n, n_rest = len(gaussians), gaussians.shN.shape[1]
    if n_rest == 0 or n == 0 or not weights.sum() > 0:
        return np.zeros((0, 3 * n_rest), np.int16), np.zeros((n, 0))
    # Views that are not all around see some coefficients more than others.
    seen = np.sqrt(np.maximum(sensitivity.sh.double().sum(dim=0).numpy() / weights.sum(), 1e-3))
    seen = np.repeat(seen, 3)
    values = gaussians.shN.double().flatten(1).numpy() * seen
    variances, vectors = np.linalg.eigh((values * weights[:, None]).T @ values / weights.sum())
    step = steps.step_size(_index(_fit(classes, weights, distortion))[classes])
    threshold = MIN_SH_SHARE * np.average(step**2, weights=weights) / 12
    kept = vectors[:, ::-1][:, : int((variances > threshold).sum())]
    basis = np.round(kept.T / seen * BASIS_ONE)
    return basis.clip(-(2**15), 2**15 - 1).astype(np.int16), values @ kept


def _rules(arranged: Arranged, tables: StepTables) -> dict[str, Rule]:
    fixed, hood = arranged.fixed, arranged.hood
    shape_class, color_class = (fixed.classes // FIXED_ONE).T
    unit = np.full(fixed.classes.shape, STEP_ONE, np.uint8)
    nothing = np.zeros((len(fixed.classes), 0), np.int32)
    shape = np.concatenate([fixed.classes, fixed.scales], axis=1)
    known = np.concatenate([fixed.classes, fixed.opacity], axis=1)
    sh_steps = steps.sh_steps(tables, color_class, fixed.sh.shape[1])
    return {
        "classes": fit_rule(fixed.classes, unit, nothing, hood, True),
        "scale": fit_rule(fixed.scales, steps.scale_steps(tables, shape_class), fixed.classes, hood, True),
        "opacity": fit_rule(fixed.opacity, steps.opacity_steps(tables, shape_class), shape, hood, True),
        "color": fit_rule(fixed.color, steps.color_steps(tables, color_class), known, hood, True),
        "sh": fit_rule(fixed.sh, sh_steps, nothing, hood, False),
    }
