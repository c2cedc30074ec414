"""Linear rules of the "context" codec: how each column follows its neighbours, the columns before it and other numbers
that a decoder already has. Fitted by the encoder to the least sum of absolute residuals, which the rate goes with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scene3d.io.s3d_context import Hood
from scene3d.io.s3d_model import Rule
from scene3d.io.s3d_steps import step_size

RULE_ONE, MOST_FACTOR = 2**12, 2**15 - 1
# Rows that a fit looks at, and rounds of reweighting.
MAX_ROWS, ROUNDS = 20_000, 4
# Keeps factors small where features say the same.
RIDGE = 1e-4


@dataclass(frozen=True)
class Around:
    """Rows of neighbours with weights that sum to 1, 0 where there is none. [R, K] each"""

    rows: np.ndarray
    weights: np.ndarray

    def mean(self, values: np.ndarray) -> np.ndarray:  # [N, C] -> [R, C]
        return (values[self.rows] * self.weights[:, :, None]).sum(axis=1)


def fit_rule(values: np.ndarray, steps: np.ndarray, known: np.ndarray, hood: Hood, is_full: bool) -> Rule:
    """Find the rule of some columns.

    Args:
        values: Fixed point. [N, C]
        steps: Step indices. [N, C]
        known: What a decoder has already, fixed point. [N, G]
        hood: Neighbours.
        is_full: With all features; else the neighbours' mean of the column itself.
    """
    n_columns, n_known = values.shape[1], known.shape[1]
    everything = np.concatenate([values, known], axis=1).astype(np.float64)
    means = everything.mean(axis=0) if len(values) else np.zeros(everything.shape[1])
    chosen = _chosen(hood)
    around = _around(hood, chosen)
    centered = everything - means
    own, near = centered[chosen], around.mean(centered)
    features = _features(own, near, n_columns, n_known)
    factors = np.zeros((n_columns, features.shape[1] if is_full else 1))
    for c in range(n_columns):
        # Columns behind are not known yet: their features are 0.
        used = np.arange(2 * n_known + n_columns + c) if is_full else np.array([2 * n_known + c])
        place = used if is_full else np.array([0])
        if len(chosen):
            step = step_size(steps[chosen, c].astype(np.float64)) * 65536
            factors[c, place] = _least_absolute(features[:, used], own[:, c], step)
    whole = np.round(factors * RULE_ONE).clip(-MOST_FACTOR, MOST_FACTOR).astype(np.int32)
    return Rule(np.round(means).astype(np.int32), whole)


def _chosen(hood: Hood) -> np.ndarray:
    """Rows with neighbours, evenly over all."""
    rows = np.nonzero(hood.neighbors[:, 0] >= 0)[0]
    return rows[:: max(1, -(-len(rows) // MAX_ROWS))]


def _around(hood: Hood, rows: np.ndarray) -> Around:  # weights as the coder has them
    distances, neighbors = hood.distances[rows].astype(np.int64), hood.neighbors[rows]
    weights = (256 >> np.minimum((distances - distances[:, :1]).clip(0) // 3, 8)) * (neighbors >= 0)
    return Around(np.maximum(neighbors, 0), weights / np.maximum(weights.sum(axis=1, keepdims=True), 1))


def _features(own: np.ndarray, near: np.ndarray, n_columns: int, n_known: int) -> np.ndarray:
    columns, known = slice(0, n_columns), slice(n_columns, n_columns + n_known)
    off = own - near
    return np.concatenate([off[:, known], own[:, known], near[:, columns], off[:, columns]], axis=1)


def _least_absolute(features: np.ndarray, target: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Factors that make the sum of |residual| least, as far as residuals are longer than a step. [F]"""
    residual, factors = target, np.zeros(features.shape[1])
    for _ in range(ROUNDS):
        weights = 1 / (np.abs(residual) + step / 2)
        weighted = features * weights[:, None]
        square = weighted.T @ features
        square += np.diag(RIDGE * np.diag(square) + 1e-9)
        factors = np.linalg.solve(square, weighted.T @ target)
        residual = target - features @ factors
    return factors
