"""How many threads the native code and torch take. Results of the native code never depend on it, those of torch do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

MAX_THREADS = 256


def available_threads() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def set_threads(n_threads: int | None) -> int:
    """Let the native code use `n_threads`, None = all cores. Returns the number."""
    chosen = available_threads() if n_threads is None else n_threads
    if not 1 <= chosen <= MAX_THREADS:
        raise ValueError(f"threads: expected 1 to {MAX_THREADS}, got {chosen}")
    try:
        from scene3d import _cpu
    except ImportError:
        return chosen
    _cpu.set_threads(chosen)
    return chosen


@contextmanager
def single_threaded_torch() -> Iterator[None]:
    """Keep torch to one thread inside of the block: its sums, and the tails of its loops, depend on the number."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
