"""Which pairs of photos are matched: all, neighbours in order, or those that look alike.

Pairs are (i, j) with i < j, indices into the photos in order of name.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pairs = set[tuple[int, int]]

# Cosine between root-normalised SIFT descriptors of the same point is above this.
SAME_POINT_COSINE = 0.85
# Coarse features whose mutual matches show that two photos overlap.
MIN_COARSE_MATCHES = 4
# Comparing coarse features costs about 0.5 ms a pair.
MAX_COMPARED_PAIRS = 200_000


def all_pairs(n_photos: int) -> Pairs:
    """Every pair."""
    return {(i, j) for j in range(n_photos) for i in range(j)}


def neighbour_pairs(n_photos: int, overlap: int) -> Pairs:
    """Pairs up to `overlap` apart, and 2, 4, 8, ... 512 apart, which bridges bad stretches."""
    steps = set(range(1, overlap + 1)) | {2**k for k in range(10)}
    return {(i, i + step) for step in steps for i in range(n_photos - step)}


def similar_pairs(descriptors: list[NDArray[np.uint8]], n_partners: int) -> Pairs:
    """Pairs that share coarse features: finds loops and unordered neighbours (preemptive matching, Wu 2013).

    Args:
        descriptors: The coarsest features of every photo. Each [F, 128]
        n_partners: Most partners kept a photo.

    Returns:
        The pairs, best partners of every compared photo.
    """
    n = len(descriptors)
    n_coarse = max((len(d) for d in descriptors), default=0)
    if n < 2 or n_coarse == 0:
        return set()
    table = np.zeros((n, n_coarse, 128), np.float32)
    for i, descriptor in enumerate(descriptors):
        rows = descriptor.astype(np.float32)
        # Rows without length do not occur in SIFT; the floor keeps a hostile database from dividing by zero.
        table[i, : len(rows)] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    # Long captures compare every k-th photo with all others.
    stride = max(1, -(-n * n // (2 * MAX_COMPARED_PAIRS)))
    pairs: Pairs = set()
    for i in range(0, n, stride):
        counts = np.array([_mutual_matches(table[i], table[j]) if j != i else 0 for j in range(n)])
        best = np.argsort(-counts, kind="stable")[:n_partners]
        pairs |= {(min(i, int(j)), max(i, int(j))) for j in best if counts[j] >= MIN_COARSE_MATCHES}
    return pairs


def _mutual_matches(a: NDArray[np.float32], b: NDArray[np.float32]) -> int:
    cosines = a @ b.T
    nearest_b = cosines.argmax(axis=1)
    nearest_a = cosines.argmax(axis=0)
    rows = np.arange(len(a))
    is_match = (nearest_a[nearest_b] == rows) & (cosines[rows, nearest_b] > SAME_POINT_COSINE)
    return int(is_match.sum())
