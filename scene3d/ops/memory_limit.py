"""The most memory that this process may take: what --memory-limit sets, for the whole process as its allocators are.

On a GPU torch's allocator enforces it, and lists of tiles are made in parts that fit. On the CPU nothing can enforce
it: commands compare it with what they will need, and refuse.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

GIGABYTE = 2**30


@dataclass
class _Limit:
    n_bytes: int | None = None


_limit = _Limit()


def set_memory_limit(gigabytes: float | None) -> None:
    """Take at most so many GB from now on, of the GPU's memory where there is one; None = all that is free.

    Raises:
        ValueError: not a positive number.
    """
    if gigabytes is not None and not gigabytes > 0:
        raise ValueError(f"memory-limit: expected more than 0 GB, got {gigabytes}")
    _limit.n_bytes = None if gigabytes is None else int(gigabytes * GIGABYTE)
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        share = 1.0 if _limit.n_bytes is None else min(1.0, _limit.n_bytes / total)
        torch.cuda.set_per_process_memory_fraction(share)


def memory_limit() -> int | None:
    """The limit in bytes, None where none was set."""
    return _limit.n_bytes


def gigabytes_text(n_bytes: float) -> str:
    """As messages tell sizes: 1.5 GB; small ones in MB."""
    return f"{n_bytes / GIGABYTE:.1f} GB" if n_bytes >= 0.1 * GIGABYTE else f"{n_bytes / 2**20:.1f} MB"
