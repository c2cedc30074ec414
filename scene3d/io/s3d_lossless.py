"""The "lossless-2" codec of .s3d: float32 planes, bit for bit. Gaussians are sorted along a Morton curve, as their
order means nothing and neighbours are alike.

Floats become integers of the same order; each is coded as its difference to the row before, byte by byte from the
highest, under contexts of the bytes above and of the column before. Bytes that turn out to be noise are written as they
are. Harmonics are cut into chunks of a few columns, which two threads work through.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scene3d.core.errors import BackendUnavailable, FormatError
from scene3d.core.gaussians import SH_COUNTS, Gaussians
from scene3d.core.scene import Scene
from scene3d.io.s3d_container import DAMAGED, Container
from scene3d.ops import morton

try:
    from scene3d import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]

CODEC = "lossless-2"
# Columns of each tensor; that of shN depends on the degree.
WIDTHS = {"means": 3, "quats": 4, "log_scales": 3, "opacity_logits": 1, "sh0": 3}
MORTON_BITS = 20
# Columns of a chunk of harmonics: those of five coefficients.
SH_COLUMNS = 15


def encode_lossless(scene: Scene) -> Container:
    """Store a scene of any floats, NaN and infinity among them. Conversion to float32 is up to the caller.

    Raises:
        TypeError: a tensor is not float32.
        BackendUnavailable: the native module is not built.
    """
    _require_native()
    gaussians = scene.splats().detach()
    for name, value in gaussians.params().items():
        if value.dtype != torch.float32:
            raise TypeError(f"{name}: expected float32, got {value.dtype}. Convert it with .to(torch.float32)")
    rows = gaussians.select(order_of(gaussians))
    planes = {name: value.reshape(len(rows), -1).numpy() for name, value in rows.params().items() if value.numel()}
    words = {
        name: _ordered(planes[source][:, columns])
        for name, source, columns in _chunks(rows.sh_degree)
        if source in planes
    }
    with ThreadPoolExecutor(2) as threads:
        chunks = dict(zip(words, threads.map(_cpu.encode_words, words.values()), strict=True))
    return Container("splats", CODEC, len(rows), chunks, scene.info, {"sh_degree": rows.sh_degree})


def decode_lossless(container: Container, path: Path) -> Gaussians:
    """The splats of a container.

    Raises:
        FormatError: its header or chunks are not what this codec writes.
    """
    _require_native()
    n, sh_degree = container.n_items, container.meta.get("sh_degree")
    if not isinstance(sh_degree, int) or not 0 <= sh_degree < len(SH_COUNTS):
        raise FormatError(path, f"expected an SH degree of 0 to 3, got {sh_degree!r}", remedy=DAMAGED)
    words = {name: np.zeros((n, columns.stop - columns.start), np.uint32) for name, _, columns in _chunks(sh_degree)}
    if n:
        missing = next((name for name in words if name not in container.chunks), None)
        if missing is not None:
            raise FormatError(path, f"the chunk {missing!r} is missing", remedy=DAMAGED)
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(_cpu.decode_words, (container.chunks[name] for name in words), words.values()))
    values: dict[str, Tensor] = {"shN": torch.zeros(n, 3 * (SH_COUNTS[sh_degree] - 1))}
    for name, source, columns in _chunks(sh_degree):
        plane = torch.from_numpy(_floats(words[name]))
        if source == "shN":
            values["shN"][:, columns] = plane
        else:
            values[source] = plane
    return Gaussians(
        means=values["means"],
        quats=values["quats"],
        log_scales=values["log_scales"],
        opacity_logits=values["opacity_logits"][:, 0],
        sh0=values["sh0"].view(n, 1, 3),
        shN=values["shN"].view(n, SH_COUNTS[sh_degree] - 1, 3),
    )


def _chunks(sh_degree: int) -> list[tuple[str, str, slice]]:
    """Name of each chunk, the tensor it is of, and which columns."""
    chunks = [(name, name, slice(0, width)) for name, width in WIDTHS.items()]
    n_sh = 3 * (SH_COUNTS[sh_degree] - 1)
    starts = range(0, n_sh, SH_COLUMNS)
    # The longest last would keep one thread waiting.
    return [(f"shN.{i}", "shN", slice(at, min(at + SH_COLUMNS, n_sh))) for i, at in enumerate(starts)] + chunks


def order_of(gaussians: Gaussians) -> Tensor:
    """Rows along a Morton curve through the centres; those that are not finite count as the nearest that is. [N]"""
    means = gaussians.means.detach().double().numpy()
    finite = np.nan_to_num(means, nan=0.0, posinf=0.0, neginf=0.0)
    if len(means) == 0:
        return torch.zeros(0, dtype=torch.long)
    # Few Gaussians are far away: percentiles keep the cells small where the others are.
    low, high = np.percentile(finite, [0.5, 99.5], axis=0)
    cell = max(float((high - low).max()), 1e-30) / 2 ** (MORTON_BITS - 1)
    cells = np.clip((finite - low) / cell + 2 ** (MORTON_BITS - 2), 0, 2**MORTON_BITS - 1)
    return morton.interleave(torch.from_numpy(cells.astype(np.int64))).argsort(stable=True)


def _ordered(values: np.ndarray) -> np.ndarray:
    """The bits of floats as integers that rise with them. [N, W] float32 -> [N, W] uint32"""
    bits = values.view(np.uint32)
    return np.ascontiguousarray(np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint32))


def _floats(words: np.ndarray) -> np.ndarray:
    """The inverse of _ordered."""
    bits = np.where(words >> 31, words & np.uint32(0x7FFFFFFF), ~words).astype(np.uint32)
    return np.ascontiguousarray(bits).view(np.float32)


def _require_native() -> None:
    if _cpu is None:
        reason = "the native module is not built"
        raise BackendUnavailable("s3d", reason, "Install scene3d with its native code: pip install .")
