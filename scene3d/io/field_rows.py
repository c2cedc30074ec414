"""Numbers of factors in whole steps, entropy coded in passes: first three times as coarsely, then made finer.

The coarse numbers of all factors come first in a file, then what makes them finer: a file that ends early is rounded
more coarsely from there on. A chunk `key` holds a float16 step for each rank, then the coarse numbers, rank after rank
(see entropy.encode_layers); `key.1` whether each number is one below, at, or one above three times that
(entropy.encode_refined).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scene3d.core.errors import FormatError
from scene3d.io import entropy
from scene3d.io.field_cells import chunk_of
from scene3d.io.s3d_container import DAMAGED, Container

FINER = 3
MAX_PASSES = 4
# Zeros cost a hundredth of a bit.
NUMBERS_PER_BYTE, FREE_NUMBERS = 512, 1 << 16


class RowWriter:
    """Gathers the rows of a container.

    Args:
        n_finer: Passes that make numbers finer.
    """

    def __init__(self, n_finer: int) -> None:
        self._bits: dict[str, int] = {}
        self._turns: dict[str, int] = {}
        self._passes: list[dict[str, bytes]] = [{} for _ in range(n_finer + 1)]

    def add(self, key: str, values: Tensor, steps: Tensor, above: np.ndarray, turn: int = 0) -> None:
        """Code numbers in whole steps.

        Args:
            key: Of the chunk.
            values: [P, R]
            steps: [R]
            above: See Places. [P]
            turn: Of what makes them finer: lower ones come first.
        """
        scaled = values / steps
        limit = FINER ** (len(self._passes) - 1) * ((1 << (entropy.MAX_SYMBOL_BITS - 1)) - 1)
        found = [scaled.round().clamp(-limit, limit).long()]
        for _ in self._passes[1:]:
            found.append((found[-1] + FINER // 2).div(FINER, rounding_mode="floor"))
        whole = [v.T.int().numpy() for v in reversed(found)]
        folded = _folded(whole[0])
        self._bits[key] = n_bits = _bits_of(folded)
        first = steps.numpy().astype("<f2").tobytes()
        self._passes[0][key] = first + entropy.encode_layers(folded, above, n_bits)
        for i in range(1, len(whole)):
            self._turns[f"{key}.{i}"] = turn
            self._passes[i][f"{key}.{i}"] = entropy.encode_refined(whole[i], whole[i - 1], above)

    def meta(self) -> dict[str, Any]:
        """What the header has to say."""
        return {"bits": self._bits, "finer": len(self._passes) - 1}

    def chunks(self) -> dict[str, bytes]:
        """Pass after pass."""
        found = dict(self._passes[0])
        for part in self._passes[1:]:
            found.update({key: part[key] for key in sorted(part, key=self._turns.__getitem__)})
        return found


class RowReader:
    """Reads rows of a container; remembers how many of their chunks are not there.

    Args:
        container: What a RowWriter gave, the last chunks perhaps missing.
        path: For the texts of errors.

    Raises:
        FormatError: its tables are none.
    """

    def __init__(self, container: Container, path: Path) -> None:
        self._container, self._path = container, path
        self.n_missing = 0
        bits, n_finer = container.meta.get("bits"), container.meta.get("finer")
        if not isinstance(bits, dict):
            raise FormatError(path, f"bits: expected a table, got {bits!r}", remedy=DAMAGED)
        if not isinstance(n_finer, int) or not 0 <= n_finer < MAX_PASSES:
            raise FormatError(path, f"finer: expected 0 to {MAX_PASSES - 1}, got {n_finer!r}", remedy=DAMAGED)
        self._bits, self._n_finer = bits, n_finer

    def has(self, key: str) -> bool:
        """Whether at least the coarse numbers are there."""
        return key in self._container.chunks

    def read(self, key: str, rank: int, above: np.ndarray) -> Tensor:
        """The numbers of a chunk, as fine as they are there. [P, R]

        Raises:
            FormatError: the chunk is missing or too short.
        """
        data = chunk_of(self._container, key, self._path)
        n_bits = self._bits.get(key)
        if not isinstance(n_bits, int) or not 1 <= n_bits <= entropy.MAX_SYMBOL_BITS:
            words = f"bits of {key!r}: expected 1 to {entropy.MAX_SYMBOL_BITS}, got {n_bits!r}"
            raise FormatError(self._path, words, remedy=DAMAGED)
        if len(data) < 2 * rank:
            words = f"expected at least {2 * rank} bytes of {key!r}, got {len(data)}"
            raise FormatError(self._path, words, remedy=DAMAGED)
        steps = torch.from_numpy(np.frombuffer(data[: 2 * rank], "<f2").astype(np.float32))
        folded = entropy.decode_layers(data[2 * rank :], rank, above, n_bits)
        whole = _unfolded(folded)
        for i in range(1, self._n_finer + 1):
            finer = self._container.chunks.get(f"{key}.{i}")
            if finer is None:
                self.n_missing += 1
                whole = whole * FINER
            else:
                whole = entropy.decode_refined(finer, whole, above)
        return torch.from_numpy(whole).T.float() * steps


def pack_numbers(values: list[Tensor], steps: list[float]) -> bytes:
    """Numbers in whole steps of each tensor, one after the other: float32 steps, their bits, the numbers as symbols."""
    limit = (1 << (entropy.MAX_SYMBOL_BITS - 1)) - 1
    parts = [(v / step).round().clamp(-limit, limit).reshape(-1).int() for v, step in zip(values, steps, strict=True)]
    folded = _folded(torch.cat(parts).numpy())
    n_bits = _bits_of(folded)
    coded = entropy.encode_layers(folded[None], np.full(len(folded), -1), n_bits)
    return np.array(steps, "<f4").tobytes() + bytes([n_bits]) + coded


def unpack_numbers(data: bytes, shapes: list[tuple[int, ...]], name: str, path: Path) -> list[Tensor]:
    """The inverse of pack_numbers.

    Raises:
        FormatError: these are not the bytes of so many numbers.
    """
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
    n_head = 4 * len(shapes) + 1
    n_bits = data[n_head - 1] if len(data) >= n_head else 0
    if not 1 <= n_bits <= entropy.MAX_SYMBOL_BITS or sum(sizes) > NUMBERS_PER_BYTE * len(data) + FREE_NUMBERS:
        raise FormatError(path, f"{len(data)} bytes of {name!r} do not hold {sum(sizes):,} numbers", remedy=DAMAGED)
    steps = np.frombuffer(data[: n_head - 1], "<f4").tolist()
    folded = entropy.decode_layers(data[n_head:], 1, np.full(sum(sizes), -1), n_bits)[0]
    parts = torch.from_numpy(_unfolded(folded)).float().split(sizes)
    return [part.reshape(shape) * step for part, shape, step in zip(parts, shapes, steps, strict=True)]


def _folded(whole: np.ndarray) -> np.ndarray:
    """Signs into the lowest bit: 0, -1, 1, -2 ..."""
    return np.where(whole >= 0, 2 * whole, -2 * whole - 1)


def _unfolded(folded: np.ndarray) -> np.ndarray:
    return np.where(folded % 2 == 0, folded // 2, -(folded + 1) // 2)


def _bits_of(folded: np.ndarray) -> int:
    return max(1, int(folded.max(initial=0)).bit_length())
